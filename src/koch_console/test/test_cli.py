# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch console` says what is wrong before it serves anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest


def koch_console(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "koch_vla", "console", *words]
    return subprocess.run(
        command,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )


@pytest.mark.ros
def test_other_computers_need_a_token_and_a_port_must_be_free(rig_file):
    told = koch_console("--rig", str(rig_file), "--bind", "0.0.0.0", KOCH_CONSOLE_TOKEN="")
    assert told.returncode == 2
    assert "--bind 0.0.0.0: other computers would reach the arm" in told.stderr
    assert "Traceback" not in told.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = koch_console("--rig", str(rig_file), "--port", port)
    assert told.returncode == 2
    assert f"http://127.0.0.1:{port}: Address already in use" in told.stderr
