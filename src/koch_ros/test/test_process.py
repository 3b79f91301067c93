# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a node's process says stands whole on the terminal of the command that started it."""

from __future__ import annotations

import io
import time

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
