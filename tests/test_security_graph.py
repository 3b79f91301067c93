# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch security` beside the whole running graph: all that nodes use is allowed, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")

from koch_vla.nodes.used_names import used_names
from koch_vla.security import Permissions

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240)]


def koch_security(
    graph: RunningGraph, folder: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    words = ["security", "--rig", str(graph.rig_file), "--sim", "--keystore", str(folder), *more]
    return subprocess.run(
        [sys.executable, "-m", "koch_vla", *words], env=dict(os.environ), capture_output=True,
        text=True, check=False, timeout=90,
    )  # fmt: skip


def test_each_node_may_do_what_it_does_and_nothing_else(
    graph: RunningGraph, tmp_path: Path
) -> None:
    folder = tmp_path / "keystore"
    done = koch_security(graph, folder, "--record", "--seconds", "6")
    assert done.returncode == 0, done.stderr
    seen = used_names(4.0)
    nodes = {
        name for name in seen if (folder / "enclaves" / name.strip("/") / "key.pem").is_file()
    }
    assert {"/follower/driver", "/recorder", "/world"} <= nodes
    for name in nodes:
        path = folder / "enclaves" / name.strip("/") / "permissions.xml"
        assert Permissions.read(path) == Permissions.of(seen[name]), name
    may_command = {
        name for name in nodes
        if any(
            topic.startswith("rt/follower/command/")
            for topic in Permissions.read(
                folder / "enclaves" / name.strip("/") / "permissions.xml"
            ).publish
        )
    }  # fmt: skip
    assert may_command <= {"/follower/teleop", "/teleop", "/leader/driver"}, may_command


def test_a_graph_that_does_not_run_whole_is_told(graph: RunningGraph, tmp_path: Path) -> None:
    folder = tmp_path / "keystore"
    done = koch_security(graph, folder, "--console", "--seconds", "1")
    assert done.returncode == 2
    assert "do not run" in done.stderr
    assert not folder.exists()
