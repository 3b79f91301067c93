# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A node graph that runs while a block of code uses it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from koch_core.closing import Opening
from koch_vla.errors import GraphEndedError
from koch_vla.node_spec import NodeSpec
from koch_vla.output import PrefixedOutput
from koch_vla.supervisor import Supervisor

END_TIMEOUT_S = 30.0


class BackgroundGraph(Opening):
    """Runs nodes in a thread, their output in a log file.

    Args:
        specs: The nodes.
        log: File for their output; appended to.

    Attributes:
        log: That file.

    Use as a context manager; the nodes are stopped at its end.
    """

    def __init__(self, specs: Sequence[NodeSpec], log: Path) -> None:
        self._specs = tuple(specs)
        self.log = log
        self._code: int | None = None
        self._error: BaseException | None = None
        self._stream: TextIO | None = None
        self._supervisor: Supervisor | None = None
        self._thread = threading.Thread(target=self._run, name="graph")

    def open(self) -> None:
        """Start the nodes."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.log.open("a", encoding="utf-8")
        output = PrefixedOutput(self._specs, stream=self._stream)
        self._supervisor = Supervisor(self._specs, report=output)
        self._thread.start()

    def close(self) -> None:
        """Stop the nodes."""
        if self._supervisor is not None:
            self._supervisor.stop()
        self._thread.join(END_TIMEOUT_S)
        if self._stream is not None:
            self._stream.close()

    def check(self) -> None:
        """Say so when the graph has ended by itself.

        Raises:
            GraphEndedError: It has; the message says which node failed and why.
        """
        if self._error is not None:
            raise self._error
        if self._code is not None:
            assert self._supervisor is not None
            raise GraphEndedError(self._code, self.log, self._supervisor.cause)

    def _run(self) -> None:
        assert self._supervisor is not None
        try:
            self._code = self._supervisor.run()
        except BaseException as error:  # handed to the thread that uses the graph, by check()
            self._error = error
