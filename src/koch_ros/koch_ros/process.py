# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A node that lives as long as a subcommand, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from koch_core.closing import Closing
from koch_core.terminal import interject
from koch_ros.node import OWNER

_END_S = 10.0
_RELAY_S = 1.0  # a process that the node has left behind may hold its output open
Process = TypeVar("Process", bound="NodeProcess")


class NodeProcess(Closing):
    """Starts a node's module; ended by `close`, the end of a `with` block, or of this process.

    Args:
        module: Python module with a `main`.
        parameters: Node parameters.
        ros_arguments: More ROS arguments, such as a log level.
        quiet: Keep what it writes to stderr for `last_words`, instead of showing it line by line.
    """

    def __init__(
        self,
        module: str,
        parameters: Mapping[str, Any],
        ros_arguments: Sequence[str] = (),
        *,
        quiet: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="koch_node_")
        folder = Path(self._folder.name)
        file = folder / "parameters.yaml"
        tree = {"/**": {"ros__parameters": dict(parameters)}}
        file.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML, always quoted
        self._log = (folder / "stderr.log").open("w+b") if quiet else None
        command = [sys.executable, "-m", module, "--ros-args", "--params-file", str(file)]
        self._process = subprocess.Popen(
            [*command, *ros_arguments],
            env={**os.environ, OWNER: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stderr=self._log or subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the subcommand; it ends the node itself
        )
        self._relay = threading.Thread(target=self._show, name="node output", daemon=True)
        self._relay.start()

    def _show(self) -> None:
        if self._process.stderr is not None:
            with self._process.stderr as lines:
                for line in lines:
                    interject(line.rstrip())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Its exit code, when all that it said is shown; None while it runs."""
        code = self._process.poll()
        if code is not None:
            self._relay.join(_RELAY_S)
        return code

    def last_words(self) -> str:
        """The last line on its stderr, where that is kept; else nothing."""
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it: SIGTERM, and SIGKILL when that does not help; harmless a second time."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._relay.join(_RELAY_S)
        if self._log is not None:
            self._log.close()
            self._log = None
        self._folder.cleanup()
