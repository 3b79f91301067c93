# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One running graph for all tests that need the whole of it: it takes long to start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGraph]:
    """`koch up --record` with config/rig.sim.yaml, all streams alive."""
    from koch_vla.nodes.running_graph import RunningGraph

    with RunningGraph(tmp_path_factory.mktemp("graph")) as running:
        running.wait_healthy(seconds=120.0)  # imports take long on a busy machine
        yield running
