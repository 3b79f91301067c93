# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a node's process says stands whole on the terminal of the command that started it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koch_ros.process import NodeProcess

MODULE = "tokenize"  # takes no ROS arguments, says so on stderr and ends with exit code 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_process_that_ends_has_shown_its_last_words_within_the_columns(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with NodeProcess(MODULE, {}) as process:
        deadline_s = time.monotonic() + 30.0
        while process.exit_code() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert process.exit_code() == 2
        lines = screen.getvalue().replace("\r\033[K", "").splitlines()
    said = " ".join(" ".join(lines).split())
    assert "error: unrecognized arguments: --ros-args --params-file" in said
    assert all(len(line) <= 40 or " " not in line.strip() for line in lines)


def test_a_quiet_process_keeps_them(capfd) -> None:
    with NodeProcess(MODULE, {}, quiet=True) as process:
        while process.exit_code() is None:
            time.sleep(0.05)
        assert "unrecognized arguments" in process.last_words()
    assert not capfd.readouterr().err


_NODE = """
from rclpy.node import Node
from koch_ros.node import run_node
run_node(lambda: Node("little"), realtime=False)
"""
_COMMAND = """
import time
from koch_ros.process import NodeProcess
with NodeProcess("little_node", {}) as process:
    print(process.pid, flush=True)
    time.sleep(120.0)
"""


@pytest.mark.ros
def test_a_node_ends_with_its_command_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "little_node.py").write_text(_NODE)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = subprocess.Popen(
        [sys.executable, "-c", _COMMAND], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    with command:
        assert command.stdout is not None
        node = Path("/proc") / command.stdout.readline().strip()
        assert node.is_dir()
        command.kill()
    deadline_s = time.monotonic() + 30.0
    while node.is_dir() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not node.is_dir()
