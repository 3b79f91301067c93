# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch up`: its arguments, its list of nodes, and what it says about a wrong rig file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from koch_vla import cli
from koch_vla.paths import default_rig
from koch_vla.up import main

EMULATED = "simulation: {physics: first_order}"


def test_the_list_names_every_node_and_starts_none(write_rig, capsys):
    assert main(["--rig", str(write_rig(EMULATED)), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["/emulator", "/robot_state_publisher"]
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_speed: 3.0", "max_sped: 3.0", "Did you mean 'max_speed'|did you mean.*max_speed"),
        ("max_speed: 3.0", "max_speed: fast", r"limits\.max_speed.*got"),
        ("base: {", "base: {{{", r"rig\.yaml"),
        ("fps: 30\ntask", "fps: 30 Hz\ntask", "fps"),
    ],
)
def test_a_wrong_rig_file_gives_one_message_and_exit_code_2(write_rig, capsys, old, new, said):
    path = write_rig()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert cli.main(["up", "--rig", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert str(path) in captured.err
    assert re.search(said, captured.err, re.IGNORECASE)


def test_a_missing_rig_file_is_named(tmp_path, capsys):
    assert cli.main(["up", "--rig", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_a_missing_calibration_is_said_before_any_node_starts(calibrated, capfd):
    rig = calibrated(EMULATED)
    (rig.parent / "leader.json").unlink()
    assert cli.main(["up", "--rig", str(rig)]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert re.search(r"koch up: .*leader\.json: got no such file.*koch calibrate", captured.err)


def test_a_missing_checkpoint_is_said_before_any_node_starts(calibrated, capfd, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, said in (("none", "no such folder"), ("empty", "no config.json here")):
        words = ["up", "--rig", str(calibrated(EMULATED)), "--policy", str(tmp_path / name)]
        assert cli.main(words) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert f"koch up: {tmp_path / name}: {said}" in captured.err


def test_a_log_that_cannot_be_written_is_named(calibrated, capfd, tmp_path):
    (tmp_path / "file").touch()
    words = ["up", "--rig", str(calibrated(EMULATED)), "--log", str(tmp_path / "file" / "log")]
    assert cli.main(words) == 2
    assert re.search(r"koch up: --log .*log: cannot be written \(", capfd.readouterr().err)


def test_the_rig_comes_from_the_environment_when_none_is_named(monkeypatch, tmp_path, repository):
    monkeypatch.setenv("KOCH_RIG", str(tmp_path / "mine.yaml"))
    assert default_rig() == tmp_path / "mine.yaml"
    assert default_rig(sim=True) == repository / "config/rig.sim.yaml"
    monkeypatch.delenv("KOCH_RIG")
    assert default_rig() == repository / "config/rig.yaml"


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.alone
def test_a_misspelt_parameter_ends_the_graph_with_the_right_name(
    repository, capfd, monkeypatch, tmp_path
):
    monkeypatch.setenv("KOCH_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    rig = repository / "config/rig.emulated.yaml"
    words = ["up", "--rig", str(rig), "--only", "follower/driver"]
    assert cli.main([*words, "--set", "follower/driver.on_exot=rest"]) == 2
    captured = capfd.readouterr()
    assert re.search(r"on_exot: this node has none.*Did you mean 'on_exit'", captured.out)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.alone
def test_the_emulated_rig_runs_and_ends_with_zero(write_rig, tmp_path, repository):
    log = tmp_path / "up.log"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "koch_vla", "up", "--log", str(log)),
            *("--rig", str(repository / "config/rig.emulated.yaml")),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "KOCH_RUN_DIR": str(tmp_path / "run"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 40
        while not (log.is_file() and "all is ready" in log.read_text()):
            assert time.monotonic() < deadline, log.read_text() if log.is_file() else "no log"
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert output.index("follower: running") < output.index("all is ready")
    assert "follower: closed" in output
    assert "Traceback" not in output
