# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's command lines: whose they are, what each flag becomes, what is said of the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from koch_rig.load import load_rig
from koch_vla import cli
from koch_vla.lerobot import commands
from koch_vla.lerobot.flags import FLAGS, Given, UnknownFlagError, lerobot_command, markdown
from koch_vla.lerobot.rig_file import write_rig

CAMERAS = (
    "{ left: {type: opencv, index_or_path: 1, width: 640, height: 480, fps: 30, "
    "color_mode: 'rgb', rotation: 'NO_ROTATION'}, above: {type: opencv, index_or_path: 0, "
    "width: 640, height: 480, fps: 30, color_mode: 'rgb', rotation: 'NO_ROTATION'}}"
)
FOLLOWER = [
    "--robot.type=koch_follower", "--robot.port=/dev/ttyUSB4", "--robot.id=my_follower",
]  # fmt: skip
LEADER = ["--teleop.type=koch_leader", "--teleop.port=/dev/ttyUSB7", "--teleop.id=my_leader"]
RECORD = [
    *FOLLOWER, f"--robot.cameras={CAMERAS}", *LEADER, "--display_data=true",
    "--dataset.repo_id=me/training_datasets", "--dataset.num_episodes=100",
    "--dataset.episode_time_s=15", "--dataset.reset_time_s=10",
    "--dataset.single_task=Pick up the rectangular block and put it into the cup.",
    "--dataset.push_to_hub=False", "--dataset.root=FOLDER", "--resume=false",
]  # fmt: skip
TRAIN = [
    "--policy.type=act", "--policy.push_to_hub=false", "--dataset.root=FOLDER",
    "--dataset.repo_id=me/block_cup", "--batch_size=16", "--steps=20000",
    "--output_dir=outputs/train/my_koch", "--job_name=my_koch_act", "--policy.device=cuda",
    "--wandb.enable=false",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
    monkeypatch.delenv("HF_LEROBOT_CALIBRATION", raising=False)
    monkeypatch.delenv("KOCH_RIG", raising=False)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["calibrate", *LEADER], "calibrate"),
        (["record", *RECORD], "record"),
        (["scripts.train", *TRAIN], "train"),
        (["train", *TRAIN], "train"),
        (["train", "--steps=10", "--batch_size=2"], "train"),
        (["lerobot-record", *RECORD], "record"),
        (["scripts.lerobot_train", *TRAIN], "train"),
        (["teleoperate", *FOLLOWER, *LEADER], "teleoperate"),
        (["rollout", *FOLLOWER], "rollout"),
        (["find_port"], "find-port"),
        (["eval", "--policy.path=DIR", "--env.type=pusht"], "eval"),
        (["calibrate", "follower", "--new"], None),
        (["record", "--num-episodes", "3"], None),
        (["train", "--dataset", "D", "--set", "train.batch_size=2"], None),
        (["teleop", "--set", "follower/driver.on_exit=rest"], None),
        (["eval", "--policy", "DIR"], None),
        (["info"], "info"),
    ],
)
def test_a_command_line_of_lerobots_is_recognised(words, command):
    assert lerobot_command(words[0], words[1:]) == command


def test_the_arms_of_the_flags_make_a_rig_with_lerobots_calibrations(tmp_path):
    rig = load_rig(write_rig(Given("record", RECORD)))
    follower, leader = rig.arms["follower"], rig.arms["leader"]
    assert (follower.port, leader.port, leader.drives) == (
        "/dev/ttyUSB4", "/dev/ttyUSB7", "follower",
    )  # fmt: skip
    home = tmp_path / "lerobot/calibration"
    assert follower.calibration_path == home / "robots/koch_follower/my_follower.json"
    assert leader.calibration_path == home / "teleoperators/koch_leader/my_leader.json"
    assert list(rig.cameras) == ["left", "above"]
    assert rig.cameras["left"].source == 1
    assert rig.task == "Pick up the rectangular block and put it into the cup."
    assert list(rig.features) == [
        "observation.state", "observation.images.left", "observation.images.above", "action",
    ]  # fmt: skip


def test_limits_and_mounts_are_those_of_the_known_rig(repository):
    rig, known = load_rig(write_rig(Given("record", RECORD))), load_rig("config/rig.yaml")
    assert rig.limits.table_z == known.limits.table_z == 0.005
    assert rig.arms["follower"].joints == known.arms["follower"].joints
    assert rig.cameras["above"].mount == known.cameras["above"].mount


def test_one_arm_is_a_rig(tmp_path):
    words = [*LEADER, f"--teleop.calibration_dir={tmp_path}"]
    rig = load_rig(write_rig(Given("calibrate", words)))
    assert list(rig.arms) == ["leader"]
    assert rig.arms["leader"].calibration_path == tmp_path / "my_leader.json"


def test_training_flags_become_ours():
    assert commands.train_words(Given("train", TRAIN)) == [
        "--dataset", str(Path.cwd() / "FOLDER"), "--out", "outputs/train/my_koch",
        "--policy", "act", "--device", "cuda", "--set", "train.batch_size=16",
        "--set", "train.steps=20000", "--set", "policy.push_to_hub=false",
    ]  # fmt: skip


def test_a_run_is_resumed_by_its_configuration(tmp_path):
    config = tmp_path / "out/checkpoints/last/pretrained_model/train_config.json"
    words = [f"--config_path={config}", "--resume=true", "--dataset.root", "D"]
    found = commands.train_words(Given("train", words))
    assert found[2:] == ["--out", str(tmp_path / "out"), "--resume"]


def test_what_has_no_meaning_is_said_in_one_line_and_what_happens_anyway_is_not():
    given = Given("record", [*RECORD, "--dataset.num_image_writer_processes=2"])
    assert len(given.notes) == 1
    assert given.notes[0].startswith("--dataset.num_image_writer_processes=2 has no meaning here")
    assert "\n" not in given.notes[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--batchsize=2", "--policy.type=act"], "Did you mean '--batch_size'"),
        (["record", *RECORD, "--dataset.num_episode=3"], "Did you mean '--dataset.num_episodes'"),
        (["record", *RECORD, "--num-episodes=3"], "koch's own flags cannot stand beside"),
        (["calibrate", "--teleop.type=koch_leader", "--teleop.port=COM7"], "WSL 2"),
        (["calibrate", "--teleop.type=so101_leader", "--teleop.port=/dev/x"], "koch_leader"),
        (["calibrate", "--robot.type=koch_follower"], "--robot.port: got None"),
        (["record", *FOLLOWER, "--dataset.repo_id=a/b", "--dataset.single_task=x"], "policy.path"),
        (["edit_dataset", "--operation.type=split"], "is `koch dataset` here"),
        (["record", *FOLLOWER, *LEADER, "--robot.cameras={a: {type: realsense}}",
          "--dataset.repo_id=a/b", "--dataset.single_task=x"], "robot.cameras.a.type"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(words, said, capsys):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert said in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_a_dataset_that_is_there_is_not_recorded_over(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    words = [word for word in RECORD if not word.startswith("--dataset.root")]
    assert cli.main(["record", *words, f"--dataset.root={tmp_path / 'data'}"]) == 2
    assert "--resume=true" in capsys.readouterr().err


def test_every_flag_has_either_a_place_or_a_reason():
    for command, flags in FLAGS.items():
        for flag in flags:
            assert bool(flag.here) != bool(flag.why), f"{command} {flag.name}"
        names = [flag.name for flag in flags]
        assert len(names) == len(set(names)), command


def test_the_document_holds_the_table(repository):
    text = (repository / "docs/from_lerobot.md").read_text(encoding="utf-8")
    start = text.index("### calibrate")
    assert text[start:] == markdown(), (
        "run: python -c 'from koch_vla.lerobot.flags import markdown; print(markdown(), end=\"\")'"
        ", and put it behind '### calibrate'"
    )


def test_an_unknown_flag_is_refused():
    with pytest.raises(UnknownFlagError, match=re.escape("--robot.prt")):
        Given("record", ["--robot.prt=x"])


def test_a_task_may_hold_yaml():
    given = Given("record", ["--dataset.single_task=Pick: {up}"])
    assert given.text("dataset.single_task") == "Pick: {up}"
    assert (
        yaml.safe_load(write_rig(Given("record", [*RECORD, *given_task()])).read_text())["task"]
        == "Pick: {up}"
    )


def given_task() -> list[str]:
    return ["--dataset.single_task=Pick: {up}"]


LIST_FLAGS = """
import dataclasses, importlib, json, typing
from draccus import ChoiceRegistry

def walk(kind, prefix=""):
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        hint = hints[field.name]
        plain = typing.get_origin(hint) in (dict, list, tuple)
        kinds = () if plain else (hint, *typing.get_args(hint))
        kinds = [k for k in kinds if isinstance(k, type)]
        inner = [k for k in kinds if dataclasses.is_dataclass(k)]
        if inner and not issubclass(inner[0], ChoiceRegistry):
            yield from walk(inner[0], prefix + field.name + ".")
        else:
            yield prefix + field.name + (".*" if inner else "")

def flags(module, name):
    return sorted(walk(getattr(importlib.import_module(module), name)))

found = {
    command: flags("lerobot.scripts.lerobot_" + command, command.capitalize() + "Config")
    for command in ("calibrate", "teleoperate", "record", "replay")
}
found["train"] = flags("lerobot.configs.train", "TrainPipelineConfig")
try:
    found["rollout"] = flags("lerobot.rollout.configs", "RolloutConfig")
except ImportError:
    pass
import lerobot.robots.koch_follower.config_koch_follower as follower
import lerobot.teleoperators.koch_leader.config_koch_leader as leader
robot = getattr(follower, "KochFollowerRobotConfig", None) or follower.KochFollowerConfig
teleop = getattr(leader, "KochLeaderTeleopConfig", None) or leader.KochLeaderConfig
found["robot"], found["teleop"] = sorted(walk(robot)), sorted(walk(teleop))
print("FLAGS" + json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_flag_of_lerobots_is_in_the_table(lerobot_python, tmp_path):
    run = subprocess.run(
        [lerobot_python, "-c", LIST_FLAGS],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "LD_LIBRARY_PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.partition("FLAGS")[2])
    groups = {key: found.pop(key) for key in ("robot", "teleop")}
    missing = []
    for command, names in found.items():
        known = {flag.name for flag in FLAGS[command]}
        heads = tuple(name[:-1] for name in known if name.endswith("*"))
        for name in names:
            head = name.removesuffix(".*")
            wanted = [f"{head}.{key}" for key in groups[head]] if head in groups else [head]
            if head == "policy" or (name.endswith(".*") and head not in groups):
                wanted = [f"{head}.type"]
            missing += [
                f"{command} --{each}" for each in wanted
                if each not in known and not each.startswith(heads or "\0")
            ]  # fmt: skip
    assert missing == []


def test_a_flag_of_the_recipe_is_named_on_koch_train(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--dataset", "D", "--out", "O", "--steps", "3"])
    assert "--set train.steps=VALUE" in " ".join(capsys.readouterr().err.split())
