# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Carries out LeRobot's command lines: each becomes the commands of ours that do the same.

Before it begins, each says our own words for it, so that a person learns them on the way.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import command_line
from koch_core.errors import KochError
from koch_core.terminal import complain, say
from koch_core.working import Working
from koch_vla.lerobot.flags import ELSEWHERE, FlagValueError, Given

if TYPE_CHECKING:
    from koch_vla.background import BackgroundGraph

_READY_S = 120.0  # imports on a busy machine
_NUMBERS = {  # LeRobot's training flag -> our setting
    "batch_size": "train.batch_size",
    "steps": "train.steps",
    "seed": "train.seed",
    "log_freq": "train.log_every",
    "save_freq": "train.save_every",
    "dataset.episodes": "train.episodes",
    "dataset.use_imagenet_stats": "train.imagenet_statistics",
    "dataset.eval_split": "train.validation_fraction",
}
_ZERO_IS_UNSET = {
    "eval_steps": "train.validate_every",
    "max_eval_samples": "train.validation_windows",
}
# Strengths of LeRobot's own transforms (datasets/transforms.py); sharpness is not done here.
_TRANSFORMS = ("brightness=0.2", "contrast=0.2", "saturation=0.5", "hue=0.05", "rotate_deg=5.0")
_CODECS = {"libsvtav1": "av1", "av1": "av1", "h264": "h264", "libx264": "h264"}
_ENCODER = {"crf": "--crf", "g": "--gop", "preset": "--preset"}


class DatasetThereError(KochError):
    """A recording would go into a folder that holds something."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} is there already. Give --resume=true to add episodes, or another "
            "--dataset.root."
        )


def main(words: Sequence[str]) -> int:
    """Run a command line of LeRobot's; the first word is its command."""
    command, *rest = words
    if command in ELSEWHERE:
        complain(f"koch {command}: LeRobot's {command} is `{ELSEWHERE[command]}` here.")
        return 2
    given = Given(command, rest)
    return _COMMANDS[command](given)


def _begin(given: Given, *commands: Sequence[object]) -> None:
    """Say what has no meaning here, and what is run, in our words."""
    for note in given.notes:
        complain(f"koch {given.command}: {note}")
    for command in commands:
        say(f"= koch {shlex.join(map(str, command))}")


def _rig(given: Given) -> Path:
    from koch_vla.lerobot.rig_file import write_rig

    return write_rig(given)


def dataset_folder(given: Given) -> Path:
    """The folder of the dataset: root, else repo_id in LeRobot's cache."""
    root = given.text("dataset.root")
    if root:
        return Path(root).expanduser().absolute()
    env = os.environ
    cache = env.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    home = env.get("HF_LEROBOT_HOME") or str(Path(cache) / "lerobot")
    return Path(home).expanduser().absolute() / given.needed("dataset.repo_id")


def _calibrate(given: Given) -> int:
    from koch_driver.setup import calibrate_cli

    arms = [arm for group, arm in (("robot.", "follower"), ("teleop.", "leader"))
            if given.group(group)]  # fmt: skip
    if len(arms) != 1:
        raise FlagValueError("robot.type", arms, "one arm: either --robot.* or --teleop.*")
    rig = _rig(given)
    words = [arms[0], "--rig", str(rig), "--no-zero"]
    _begin(given, ["calibrate", *words])
    return calibrate_cli.main(words)


def _teleoperate(given: Given) -> int:
    from koch_vla import teleop

    given.needed("robot.type"), given.needed("teleop.type")
    words = ["--rig", str(_rig(given)), *_shown(given), *_set(graph_settings(given))]
    _begin(given, ["teleop", *words])
    return teleop.main(words)


def _shown(given: Given) -> list[str]:
    return ["--console"] if given.is_on("display_data") else []


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def graph_settings(given: Given) -> list[str]:
    """Parameters of nodes that the flags ask for."""
    settings = []
    if given.text("robot.disable_torque_on_disconnect"):
        releases = given.is_on("robot.disable_torque_on_disconnect")
        settings.append(f"follower/driver.on_exit={'release' if releases else 'hold'}")
    if given.text("teleop.gripper_open_pos"):
        value = given.number("teleop.gripper_open_pos", 50.0)
        settings.append(f"leader/driver.gripper_open={value}")
    return settings


def policy_settings(given: Given) -> list[str]:
    """Parameters of the policy node that the flags ask for."""
    settings = []
    names = {
        "policy.device": "device",
        "device": "device",
        "policy.n_action_steps": "execution_steps",
        "policy.num_inference_steps": "denoising_steps",
    }
    for flag, parameter in names.items():
        if given.text(flag):
            settings.append(f"policy.{parameter}={given.text(flag)}")
    if given.text("policy.temporal_ensemble_coeff"):
        value = given.text("policy.temporal_ensemble_coeff")
        settings += ["policy.strategy=temporal_ensemble", f"policy.ensemble_coefficient={value}"]
    if given.text("inference.type") == "rtc":
        settings.append("policy.strategy=rtc")
    if given.text("policy.use_amp") and given.is_on("policy.use_amp"):
        settings.append("policy.precision=bf16")
    return settings


def _record(given: Given) -> int:
    """Record episodes, by the leader's hand or a policy, and convert them."""
    folder = dataset_folder(given)
    bags = folder.with_name(f"{folder.name}_bags")
    resumes = given.is_on("resume")
    if not resumes:
        for place in (folder, bags):
            if place.exists() and any(place.iterdir()):
                raise DatasetThereError(place)
    record = _record_words(given)
    policy = given.text("policy.path")
    if not policy and not given.text("teleop.type"):
        raise FlagValueError("teleop.type", None, "koch_leader, or a --policy.path")
    rig = _rig(given)
    up = ["up", "--rig", str(rig), "--record", "--record-root", str(bags), *_shown(given)]
    up += ["--policy", policy] if policy else []
    up += _set([*graph_settings(given), *(policy_settings(given) if policy else [])])
    convert = _convert_words(given, folder, bags, appends=resumes and folder.exists())
    _begin(given, up, ["record", *record], ["convert", *convert])
    with _graph(up[1:], bags.with_name(f"{bags.name}.log")) as graph:
        code = _record_episodes(record, graph, with_policy=bool(policy))
    if not any(bags.glob("*/metadata.yaml")):
        complain("koch record: no episode was saved, so there is no dataset.")
        return 1
    from koch_episodes.convert import cli as convert_cli

    return convert_cli.main(convert) or code


def _record_words(given: Given) -> list[str]:
    words = ["--task", given.needed("dataset.single_task")]
    words += ["--num-episodes", str(int(given.number("dataset.num_episodes", 50)))]
    words += ["--episode-time-s", f"{given.number('dataset.episode_time_s', 60):g}"]
    words += ["--reset-time-s", f"{given.number('dataset.reset_time_s', 60):g}"]
    return words + (["--beep"] if given.is_on("play_sounds", default=True) else [])


def _convert_words(given: Given, folder: Path, bags: Path, *, appends: bool) -> list[str]:
    words = [str(bags), "--out", str(folder)]
    words += ["--append"] if appends else []
    codec = given.text("dataset.vcodec") or given.text("dataset.rgb_encoder.vcodec")
    if codec:
        if codec not in _CODECS:
            raise FlagValueError("dataset.vcodec", codec, f"one of {', '.join(_CODECS)}")
        words += ["--vcodec", _CODECS[codec]]
    for key, flag in _ENCODER.items():
        value = given.text(f"dataset.rgb_encoder.{key}")
        words += [flag, value] if value else []
    return words + (["--units", "degrees"] if given.is_on("robot.use_degrees") else [])


@contextlib.contextmanager
def _graph(words: Sequence[str], log: Path) -> Iterator[BackgroundGraph]:
    """Run what `koch up` would run, its output in a log, as long as the block lasts."""
    from koch_vla.background import BackgroundGraph
    from koch_vla.graph import GraphOptions, RigChoice, build_graph
    from koch_vla.nodes.namesakes import refuse_namesakes
    from koch_vla.preflight import check_files
    from koch_vla.up import chosen_graph

    parser = command_line("koch up", "", RigChoice, GraphOptions)
    _, rig, options = chosen_graph(parser, words)
    specs = build_graph(rig, options)
    check_files(rig, specs)
    refuse_namesakes(specs)
    with BackgroundGraph(specs, log) as graph:
        say(f"the nodes' output is in {log}")
        yield graph


def _record_episodes(words: Sequence[str], graph: BackgroundGraph, *, with_policy: bool) -> int:
    from koch_episodes.recorder import terminal
    from koch_episodes.recorder.nodes.client import RecorderClient
    from koch_vla.errors import GraphNotReadyError
    from koch_vla.nodes.episode_policy import EpisodePolicy

    options = terminal.parse(words)
    with contextlib.ExitStack() as stack:
        client = RecorderClient()
        stack.callback(client.close)
        with Working("koch record: starting arms and cameras"):
            if not client.wait(_READY_S, graph.check):
                raise GraphNotReadyError(_READY_S, graph.log)
            if with_policy:
                stack.enter_context(EpisodePolicy(options.task or "", graph.check))
        return terminal.record_with(options, client)


def _rollout(given: Given) -> int:
    """A policy drives: recorded where a dataset is named, else just run."""
    given.needed("policy.path")
    if given.group("dataset."):
        return _record(given)
    rig = _rig(given)
    up = ["up", "--rig", str(rig), "--policy", given.text("policy.path"), *_shown(given)]
    up += _set([*graph_settings(given), *policy_settings(given)])
    run = ["--rig", str(rig), "--once"]
    run += ["--task", given.text("task")] if given.text("task") else []
    duration = given.number("duration", 0.0)
    run += ["--max-duration", f"{duration:g}"] if duration else []
    _begin(given, up, ["run", *run])
    from koch_policy import run_cli

    with _graph(up[1:], rig.with_suffix(".log")) as graph:
        graph.check()
        return run_cli.main(run)


def _replay(given: Given) -> int:
    given.needed("robot.type")
    rig = _rig(given)
    words = [str(dataset_folder(given)), "--rig", str(rig)]
    words += ["--episode", str(int(given.number("dataset.episode", 0))), "--yes"]
    up = ["up", "--rig", str(rig), *_set(graph_settings(given))]
    _begin(given, up, ["replay", *words])
    from koch_episodes import replay_cli

    with _graph(up[1:], rig.with_suffix(".log")) as graph:
        graph.check()
        return replay_cli.main(words)


def _train(given: Given) -> int:
    words = train_words(given)
    _begin(given, ["train", *words])
    from koch_policy.train import cli

    return cli.main(words)


def train_words(given: Given) -> list[str]:
    """Our `koch train` for LeRobot's."""
    words = ["--dataset", str(dataset_folder(given)), "--out", str(_output(given))]
    start = given.text("policy.path") or given.text("checkpoint_path")
    if given.is_on("resume"):
        words.append("--resume")
    elif start:
        words += ["--from", start]
    for flag, option in (("policy.type", "--policy"), ("policy.device", "--device")):
        words += [option, given.text(flag)] if given.text(flag) else []
    settings = [f"{name}={given.text(flag)}" for flag, name in _NUMBERS.items()
                if given.text(flag)]  # fmt: skip
    settings += [f"{name}={given.text(flag)}" for flag, name in _ZERO_IS_UNSET.items()
                 if given.number(flag, 0)]  # fmt: skip
    if given.is_on("wandb.enable"):
        settings.append(f"train.wandb={given.text('wandb.project', 'lerobot')}")
    if given.is_on("dataset.image_transforms.enable"):
        settings += [f"augment.{strength}" for strength in _TRANSFORMS]
    own = {"type", "path", "device"}
    settings += [f"policy.{key}={value}" for key, value in given.group("policy.").items()
                 if key not in own]  # fmt: skip
    return words + _set(settings)


def _output(given: Given) -> Path:
    """The output folder: named, or that of the run to resume, or by the name of the job."""
    if given.text("output_dir"):
        return Path(given.text("output_dir")).expanduser()
    config = given.text("config_path")
    if config:  # OUT/checkpoints/last/pretrained_model/train_config.json, or its folder
        parents = Path(config).expanduser().absolute().parents
        for folder in parents:
            if folder.name == "checkpoints":
                return folder.parent
        expected = "OUT/checkpoints/STEP/pretrained_model/train_config.json"
        raise FlagValueError("config_path", config, expected)
    return Path("outputs/train") / (given.text("job_name") or given.text("policy.type") or "act")


_COMMANDS: Mapping[str, Callable[[Given], int]] = {
    "calibrate": _calibrate,
    "teleoperate": _teleoperate,
    "record": _record,
    "rollout": _rollout,
    "replay": _replay,
    "train": _train,
}
