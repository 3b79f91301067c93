# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch eval` refuses what cannot work before it starts anything, and notices a dead graph."""

import time
from pathlib import Path

import pytest

from koch_rig.model import share_folder
from koch_sim.errors import SimulationError
from koch_vla import evaluate_cli
from koch_vla.errors import GraphEndedError

CONFIG = share_folder() / "config"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rig", str(CONFIG / "rig.yaml")], "never moves real arms"),
        (["--camera", "nope"], "above, left, wrist"),
        (["--policy", "nope"], "no such folder"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(
    options: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SimulationError, match=said):
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
    empty = tmp_path / "checkpoint"
    empty.mkdir()
    began_s = time.monotonic()
    with pytest.raises(GraphEndedError, match=r"(?s)exit code 2\..*config\.json"):
        evaluate_cli.main(["--policy", str(empty), "--out", str(tmp_path / "out")])
    assert time.monotonic() - began_s < evaluate_cli.READY_TIMEOUT_S
