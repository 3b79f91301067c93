# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch eval` refuses what cannot work before it starts anything, and notices a dead graph."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from koch_core.errors import KochError
from koch_rig.model import share_folder
from koch_vla import evaluate_cli
from koch_vla.errors import GraphEndedError

CONFIG = share_folder() / "config"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rig", str(CONFIG / "rig.yaml")], "never moves real arms"),
        (["--camera", "nope"], "above, left, wrist"),
        (["--policy", "nope"], "no such folder"),
        (["--policy", str(CONFIG)], "no config.json here"),
        (["--lockstep", "--policy", str(CONFIG)], "no config.json here"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    options: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(KochError, match=said):
        evaluate_cli.main([*options, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--draws", "2"], ["--scene", "stack"], ["--jobs", "2"]])
def test_what_only_lockstep_knows_is_refused_without_it(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        evaluate_cli._parse(words)
    assert f"{words[0]} needs --lockstep" in capsys.readouterr().err
    settings, options = evaluate_cli._parse(["--lockstep", *words, "--task", "x"])
    assert options.task == "x"  # not the scene, which LockstepSettings calls task
    assert (settings.task == "stack") is (words[1] == "stack")


@pytest.mark.ros
@pytest.mark.slow
def test_graph_that_ends_is_noticed_and_quoted(tmp_path: Path) -> None:
    pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")
    broken = tmp_path / "checkpoint"
    broken.mkdir()
    (broken / "config.json").write_text("[")
    began_s = time.monotonic()
    with pytest.raises(GraphEndedError, match=r"(?s)exit code 2\..*config\.json"):
        evaluate_cli.main(["--policy", str(broken), "--out", str(tmp_path / "out")])
    assert time.monotonic() - began_s < evaluate_cli.READY_TIMEOUT_S


@pytest.mark.ros
@pytest.mark.slow
def test_what_a_graph_lacks_is_said_long_before_the_end_of_patience(tmp_path: Path) -> None:
    pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")
    words = [sys.executable, "-m", "koch_vla", "eval", "--attach", "--policy", str(tmp_path)]
    (tmp_path / "config.json").write_text("{}")
    words += ["--out", str(tmp_path / "out")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as evaluating:
        assert evaluating.stderr is not None
        try:
            told = next(line for line in evaluating.stderr if "it lacks" in line)
            assert evaluating.poll() is None  # it goes on waiting
        finally:
            evaluating.kill()
    for name in ("/sim/task_state", "/follower/home", "/policy/run"):
        assert name in told
    assert "koch up --rig" in told
    assert f"--no-teleop --policy {tmp_path}" in told
