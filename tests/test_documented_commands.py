# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Every command of the documents runs, on the rig that its reader has, on a terminal of 80 x 24.

The commands are read from the documents. One that no test below runs fails
`test_every_documented_command_runs_in_a_test`.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from narrow_terminal import NarrowTerminal
from repository import ROOT
from small_images import with_small_images

from koch_vla.nodes.running_graph import free_port

DOCUMENTS = ("README.md", "docs/install.md", "docs/tutorial.md", "docs/hardware.md")
PATIENCE_S = 150.0  # other processes may use the machine
# Commands that are run elsewhere, and where. What has no rig needs none of the walks below.
ELSEWHERE = {
    "up --record --set recorder.storage=rosbag2": "tests/test_storage_choice.py",
    "setup": "tests/test_bare_home.py",
    "setup --without policy,sim": "tests/test_bare_home.py::test_parts_are_read_and_checked",
    "setup --with lerobot": "tests/test_bare_home.py::test_extras_are_read_and_checked",
    "setup --with NAMES": "tests/test_bare_home.py::test_extras_are_read_and_checked",
    "bridge": "tests/test_lerobot_plugin.py",
    "inspect BAG --rerun episode.rrd": "src/koch_episodes/test/test_rerun_export.py",
    "hub": "src/koch_vla/test/test_hub.py",
    "hub push DIR me/name": "src/koch_vla/test/test_hub.py",
    "hub pull me/name --out DIR": "src/koch_vla/test/test_hub.py",
    "record --robot.type=koch_follower ...": "tests/test_lerobot_manual.py",
    "train --device cuda": "src/koch_policy/test/test_train_cli.py::test_trains_and_resumes",
    "train --set train.wandb=PROJECT": "src/koch_policy/test/test_metrics.py",
    "run --runtime lerobot": "src/koch_policy/test/test_lerobot_runtime.py",
    "test": "tests/everything.py",
    "env": "tests/test_koch_script.py::test_environment_can_be_taken_over",
    # Minutes to hours long; its steps are those of the tutorial.
    "demo": "src/koch_vla/test/test_demo.py::test_the_emulated_follower_follows_the_leader",
    "demo --quick": "src/koch_vla/test/test_demo.py::"
    "test_a_policy_that_has_to_look_gets_more_demonstrations",
    "identify": "src/koch_sim/test/test_identify.py",
    "identify --excite outputs/motion": "src/koch_sim/test/test_identify.py",
    "identify outputs/episodes/episode_000000 --rig config/rig.yaml --out arm_model.json":
    "src/koch_sim/test/test_identify.py",
    "replay outputs/motion": "src/koch_sim/test/test_identify.py",
    "improve": "src/koch_vla/test/test_improve.py::"
    "test_rounds_of_a_policy_that_cannot_do_the_task",
    "teleop --keyboard": "tests/test_keyboard_teleop.py",
    "security": "tests/test_security_graph.py",
    "console": "src/koch_console/test/test_server.py",
    "record --lockstep --even": "src/koch_sim/test/test_recording.py::"
    "test_recorded_demonstrations_convert_to_a_dataset",
    "bench": "src/koch_vla/test/test_bench.py",
    # An hour, and hours: what they find and print is tested.
    "bench faults": "src/koch_vla/test/test_rounds.py::"
    "test_the_round_has_a_fault_of_every_kind_and_forty_rows",
    "bench soak": "src/koch_vla/test/test_rounds.py::"
    "test_the_soak_page_says_for_how_long_and_at_what_load",
    "dataset": "src/koch_episodes/test/test_dataset_edit.py",
    "compare": "src/koch_vla/test/test_compare_cli.py",
    "compare DIR DIR": "src/koch_vla/test/test_compare_cli.py",
    "run --policy outputs/act --num-episodes 20 --episode-time-s 30":
    "src/koch_policy/test/ros/test_policy_process.py::test_runs_are_judged_one_by_one",
    "runs": "src/koch_policy/test/test_runs_cli.py",
    "completion": "src/koch_vla/test/test_completion.py::test_bash_completes",
    "completion bash": "src/koch_vla/test/test_completion.py::test_bash_completes",
    "motors setup follower": "src/koch_driver/test/test_motor_setup.py::"
    "test_a_slip_of_the_hand_is_said_and_the_same_motor_asked_for_again",
    "motors setup leader": "src/koch_driver/test/test_motor_setup.py::"
    "test_a_new_motor_gets_id_and_baud",
    "calibrate follower --zero-only": "src/koch_driver/test/test_calibrate.py::"
    "test_the_whole_dialogue_on_a_terminal",
    "calibrate camera NAME": "src/koch_cameras/test/test_cli.py::"
    "test_calibration_from_a_recorded_file",
    "calibrate camera above": "src/koch_cameras/test/test_cli.py::"
    "test_calibration_from_a_recorded_file",
    "calibrate camera above --pose outputs/episodes/episode_000000 --square 16 --marker 12 "
    "--image worst.png": "tests/test_camera_pose.py::"
    "test_the_subcommand_writes_the_mount_into_the_rig",
    "calibrate latency": "tests/test_latency.py::"
    "test_hidden_delays_are_found_within_five_milliseconds",
    "cameras list": "src/koch_cameras/test/test_cli.py::"
    "test_list_without_devices_says_what_to_do",
    "serve": "src/koch_policy/test/ros/test_policy_process.py::"
    "test_a_policy_on_another_computer_drives_the_arm_and_may_be_lost",
    # The preset of the paper takes hours on a processor.
    "train --dataset outputs/dataset --policy act --out outputs/act":
    "src/koch_policy/test/test_train_cli.py::test_trains_and_resumes",
}  # fmt: skip
# Documented length -> length in a test.
SHORTER = {
    "--num-episodes": "1", "--reset-time-s": "0", "--max-duration": "2",
    "-n": "1", "--at": "2",
}  # fmt: skip
# What a test says besides: how little to train, what a person would press.
MORE = {
    "train": ["--set", "train.steps=2", "--set", "train.batch_size=2"],
    "eval": ["--timeout-s", "20"],
    "run": ["--allow-mismatch"],
    "replay": ["-y"],
    "record": ["--start-timeout-s", "60"],
}


# Five minutes on two cores, so asked for:
# KOCH_WALKS=1 ./koch test tests/test_documented_commands.py
WALK = pytest.mark.skipif(not os.environ.get("KOCH_WALKS"), reason="set KOCH_WALKS=1 to walk")


def documented() -> dict[str, str]:
    """Each command without `./koch`, and the document that has it."""
    found = {}
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        lines = blocks.replace("\\\n", " ").splitlines()
        lines += re.findall(r"`([^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in lines:
            for part in re.findall(r"(?:\./|^)koch( [^)\"]*|$)", line):
                command = " ".join(shlex.split(part, comments=True))
                if command and not command.startswith("COMMAND"):
                    found[command] = name
    return found


def test_every_documented_command_runs_in_a_test() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    walks = {text for text in texts if isinstance(text, str)}
    for command, document in documented().items():
        is_name = " " not in command  # `koch look` alone names a subcommand
        begun = any(text == command or text.startswith(f"{command} ") for text in walks)
        assert command in walks or (is_name and begun), (
            f"{document}: no test runs `koch {command}`. Run it in a walk of {__file__}, or name "
            "the test that does under ELSEWHERE."
        )


def test_what_is_run_elsewhere_exists() -> None:
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert (ROOT / path).is_file()
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), place


# -- the reader's desk ---------------------------------------------------------------------------


class Desk:
    """A checkout, in which a reader works, and two terminals.

    Its simulated cameras have 320 x 240 pixels: at four times as many the simulation alone keeps
    two slow cores busy, and the machine would be judged.

    Args:
        folder: Of the checkout.
        **variables: Of the reader's shell.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        for name in ("docs", "launch", "src", "urdf"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "config", folder / "config")
        rig_file = folder / "config" / "rig.sim.yaml"
        rig_file.write_text(with_small_images(rig_file.read_text(encoding="utf-8")))
        self.environment = {
            **os.environ,
            "KOCH_RUN_DIR": str(folder / "run"),
            "KOCH_SIM_PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **variables,
        }

    def words(self, command: str) -> list[str]:
        """A documented command as it is run here."""
        words = shlex.split(os.path.expandvars(command.replace("$KOCH_RIG", self._rig())))
        for place, word in enumerate(words[:-1]):
            if word in SHORTER:
                words[place + 1] = SHORTER[word]
        return [sys.executable, "-m", "koch_vla", *words, *MORE.get(words[0], [])]

    def _rig(self) -> str:
        return self.environment.get("KOCH_RIG", "")

    def koch(self, command: str, *more: str, codes: Sequence[int] = (0,)) -> str:
        """Run a documented command to its end on a narrow terminal; what it wrote."""
        words = [*self.words(command), *more]
        with NarrowTerminal(words, self.environment, self.folder) as terminal:
            code = terminal.end(PATIENCE_S)
            assert code in codes, f"koch {command}: {code}\n{terminal.text[-3000:]}"
            terminal.check()
            assert "Traceback" not in terminal.text
            return terminal.text

    @contextmanager
    def running(self, command: str, *, ready: str = "all is ready") -> Iterator[NarrowTerminal]:
        """Run a documented command in the other terminal until Ctrl-C."""
        with NarrowTerminal(self.words(command), self.environment, self.folder) as terminal:
            terminal.wait_for(ready, PATIENCE_S)
            yield terminal
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.end(PATIENCE_S) == 0, terminal.text[-3000:]
            terminal.check()


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("tutorial"))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Arms and cameras on a table, which the rig file of their owner does not know to be emulated.

    The simulated world stands for the hardware: serial ports and network cameras.
    """
    folder = tmp_path_factory.mktemp("workshop")
    desk = Desk(folder, KOCH_RIG=str(folder / "my_rig.yaml"))
    text = (folder / "config" / "rig.sim.yaml").read_text(encoding="utf-8")
    rig = yaml.safe_load(re.sub(r"\$\{(\w+):-[^}]*\}", lambda m: desk.environment[m[1]], text))
    del rig["simulation"]
    for section in ("streams", "features"):  # nobody tells where block and cup are
        rig[section] = {k: v for k, v in rig[section].items() if "sim/" not in f"{k} {v}"}
    for arm in rig["arms"].values():
        arm["calibration"] = str(folder / "config" / arm["calibration"])
    for camera in rig["cameras"].values():
        camera["intrinsics"] = str(folder / "config" / camera["intrinsics"])
    (folder / "my_rig.yaml").write_text(yaml.safe_dump(rig), encoding="utf-8")
    world = [sys.executable, "-m", "koch_vla", "up", "--sim", "--only", "koch_sim"]
    with (folder / "world.log").open("w") as log:
        process = subprocess.Popen(world, env=desk.environment, cwd=folder, stdout=log, stderr=log)
    try:
        deadline_s = PATIENCE_S
        while "all is ready" not in (folder / "world.log").read_text():
            assert process.poll() is None, (folder / "world.log").read_text()
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                deadline_s -= 0.2
            assert deadline_s > 0.0
        yield desk
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30.0)


# -- the walks -----------------------------------------------------------------------------------


@WALK
@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_the_tutorial(tutorial: Desk) -> None:
    tutorial.koch("doctor", codes=(0, 1))
    assert "/world" in tutorial.koch("up --sim --list")
    tutorial.koch("up --sim --set follower/driver.on_exit=rest", "--list")
    tutorial.koch("eval -n 5", "--lockstep")
    with tutorial.running("up --sim --expert") as up:
        assert re.search(r"camera images: http://127\.0\.0\.1:\d+/", " ".join(up.text.split()))
        tutorial.koch("look --sim -o look.png")
        said = tutorial.koch(
            "record --rig config/rig.sim.yaml --root outputs/episodes "
            "--num-episodes 3 --episode-time-s 20 --reset-time-s 3"
        )
        assert "1 episode(s) saved" in said
    with tutorial.running("up --sim --speed 0.5"):
        record = "record --rig config/rig.sim.yaml --root outputs/slow --num-episodes 1"
        tutorial.koch(record, "--episode-time-s", "2")
        tutorial.koch("look --sim -o look.png")
    # 1: an episode with gaps, which a busy machine may make, is drawn and told all the same.
    tutorial.koch("inspect outputs/episodes/episode_000000 -o episode.png", codes=(0, 1))
    tutorial.koch(
        "look outputs/episodes/episode_000000 --rig config/rig.sim.yaml --at 8 -o scene.png"
    )
    tutorial.koch("convert outputs/episodes --out outputs/dataset")
    tutorial.koch("inspect --validate outputs/dataset --no-png")
    tutorial.koch(
        "train --dataset outputs/dataset --policy act --preset tiny "
        "--rig config/rig.sim.yaml --out outputs/act"
    )
    tutorial.koch(
        "eval --policy outputs/act/checkpoints/last/pretrained_model -n 5 --out outputs/eval"
    )
    with tutorial.running("up --sim --no-teleop"):
        # Of hardware.md; a policy for the workshop would need a leader that somebody moves there.
        # 1: two steps of training are no policy; that it ran to an end is what counts.
        run = "run --policy outputs/act --max-duration 20 --once"
        said = tutorial.koch(run, "--rig", "config/rig.sim.yaml", codes=(0, 1))
        assert "actions in" in said
    for name in ("look.png", "episode.png", "scene.png", "outputs/eval/eval.json"):
        assert (tutorial.folder / name).is_file(), name


@WALK
@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_real_arms(workshop: Desk) -> None:
    workshop.koch("doctor --rig $KOCH_RIG", codes=(0, 1))
    workshop.koch("motors list")
    for command in ("calibrate follower --write", "calibrate leader --write"):
        words = workshop.words(command)
        with NarrowTerminal(words, workshop.environment, workshop.folder) as terminal:
            terminal.wait_for("c makes a new calibration", PATIENCE_S)
            terminal.press("u")
            terminal.wait_for("Press ENTER there (s skips", PATIENCE_S)
            terminal.press("s")
            assert terminal.end(PATIENCE_S) == 0
            terminal.check()
    workshop.koch("cameras -o cameras.png")
    with workshop.running("up --no-teleop --only koch_driver,koch_cameras"):
        workshop.koch("look -o look.png")
    with workshop.running("teleop") as teleop:
        teleop.wait_for("behind by", PATIENCE_S)
    with workshop.running("up --record --record-root outputs/episodes"):
        said = workshop.koch("record --num-episodes 50 --episode-time-s 20 --reset-time-s 10")
        assert "1 episode(s) saved" in said
    workshop.koch("convert outputs/episodes --out outputs/dataset")
    workshop.koch("inspect --validate outputs/dataset")
    with workshop.running("up --no-teleop"):
        workshop.koch("replay outputs/episodes/episode_000000")
