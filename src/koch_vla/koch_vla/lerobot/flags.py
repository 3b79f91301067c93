# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Every flag of LeRobot's commands: what it is here, or why it has no meaning here.

This table is read by the commands (`koch_vla.lerobot.commands`) and printed into
docs/from_lerobot.md (`markdown`). A flag that is not in it is refused by name, and one without a
meaning is answered with its line: nothing is read past.

Source: the draccus configurations of LeRobot 0.4.4 and 0.6.1, which a test compares with it:
`lerobot/scripts/lerobot_{calibrate,teleoperate,record,replay,rollout}.py`, `configs/train.py`,
`robots/koch_follower`, `teleoperators/koch_leader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from koch_core.errors import KochError
from koch_core.options import did_you_mean


@dataclass(frozen=True)
class Flag:
    """One flag of LeRobot's.

    Attributes:
        name: As typed behind the dashes; "a.*" is all of a group.
        here: What it is here; empty where it has no meaning.
        why: Why it has none, in one line that is said when it is given.
        harmless: Values that ask for what happens anyway: nothing is said of them.
    """

    name: str
    here: str = ""
    why: str = ""
    harmless: tuple[str, ...] = ()


_OFF, _ON = ("false", "none", "null", ""), ("true",)

_ROBOT = (
    Flag("robot.type", "`koch_follower`, the arm of role `follower` in the rig", ""),
    Flag("robot.port", "`port` of the follower in the rig"),
    Flag("robot.id", "the follower's `calibration` in the rig: ID.json in LeRobot's cache"),
    Flag("robot.calibration_dir", "folder of that file, in place of LeRobot's cache"),
    Flag("robot.cameras", "`cameras` of the rig; type `opencv`"),
    Flag("robot.use_degrees", "`koch convert --units degrees`"),
    Flag(
        "robot.max_relative_target",
        why="the guard limits each joint's speed instead: `limits.max_speed` of the rig",
        harmless=_OFF,
    ),
    Flag(
        "robot.disable_torque_on_disconnect",
        "false: `koch up --set follower/driver.on_exit=hold`; true: `release`",
    ),
)
_TELEOP = (
    Flag("teleop.type", "`koch_leader`, the arm of role `leader` in the rig"),
    Flag("teleop.port", "`port` of the leader in the rig"),
    Flag("teleop.id", "the leader's `calibration` in the rig: ID.json in LeRobot's cache"),
    Flag("teleop.calibration_dir", "folder of that file, in place of LeRobot's cache"),
    Flag("teleop.gripper_open_pos", "`koch up --set leader/driver.gripper_open=VALUE`"),
)
_RERUN = "the page of `--display_data=true` is served here; docs/console.md tells its address"
_DISPLAY = (
    Flag("display_data", "`koch up --console`"),
    Flag("display_mode", why=_RERUN),
    Flag("display_ip", why=_RERUN, harmless=_OFF),
    Flag("display_port", why=_RERUN, harmless=_OFF),
    Flag("display_compressed_images", why="images travel as the camera's own JPEGs", harmless=_ON),
)
_SOUNDS = Flag("play_sounds", "`koch record --beep`: a beep, no voice")
_IMAGES = "the camera's own JPEGs are stored while recording: no image is written or encoded then"
_RECORDED = (
    Flag("dataset.repo_id", "name of the dataset; its folder where no root is given"),
    Flag("dataset.root", "`koch convert --out DIR`; the bags are in DIR_bags"),
    Flag("dataset.single_task", "`koch record --task`"),
    Flag("dataset.num_episodes", "`koch record --num-episodes`"),
    Flag("dataset.episode_time_s", "`koch record --episode-time-s`"),
    Flag("dataset.reset_time_s", "`koch record --reset-time-s`"),
    Flag("dataset.fps", "`fps` of the rig"),
    Flag("dataset.video", why="images become videos in every dataset", harmless=_ON),
    Flag("dataset.push_to_hub", why="the dataset stays on this computer", harmless=_OFF),
    Flag("dataset.private", why="nothing is uploaded", harmless=_OFF),
    Flag("dataset.tags", why="nothing is uploaded", harmless=_OFF),
    Flag("dataset.vcodec", "`koch convert --vcodec`; libsvtav1 is `av1`"),
    Flag("dataset.rgb_encoder.vcodec", "`koch convert --vcodec`"),
    Flag("dataset.rgb_encoder.crf", "`koch convert --crf`"),
    Flag("dataset.rgb_encoder.g", "`koch convert --gop`"),
    Flag("dataset.rgb_encoder.preset", "`koch convert --preset`"),
    Flag("dataset.rgb_encoder.*", why="the converter's encoder sets it"),
    Flag("dataset.depth_encoder.*", why="depth cameras are not recorded"),
    Flag("dataset.num_image_writer_processes", why=_IMAGES),
    Flag("dataset.num_image_writer_threads_per_camera", why=_IMAGES),
    Flag("dataset.video_encoding_batch_size", why=_IMAGES),
    Flag("dataset.streaming_encoding", why=_IMAGES, harmless=_OFF),
    Flag("dataset.encoder_queue_maxsize", why=_IMAGES),
    Flag("dataset.encoder_threads", why="`koch convert --jobs` sets the processes", harmless=_OFF),
    Flag("dataset.rename_map", why="features have the cameras' names", harmless=("{}",)),
    Flag("dataset.no_stamp", why="no date is added to the name of a dataset", harmless=_ON),
    Flag("resume", "the bags are kept, `koch convert --append` adds them"),
)
_RUN_POLICY = (
    Flag("policy.path", "`koch run --policy DIR`"),
    Flag("policy.type", why="the checkpoint says its type"),
    Flag("policy.device", "`koch run --set device=NAME`"),
    Flag("policy.temporal_ensemble_coeff", "`koch run --strategy temporal_ensemble`"),
    Flag("policy.n_action_steps", "`koch run --set execution_steps=N`"),
    Flag("policy.num_inference_steps", "`koch run --set denoising_steps=N`"),
    Flag("policy.push_to_hub", why="nothing is uploaded", harmless=_OFF),
    Flag("policy.use_amp", "true: `koch run --set precision=bf16`"),
)
_ROLLOUT = (
    Flag("fps", "`fps` of the rig"),
    Flag("duration", "`koch run --max-duration`"),
    Flag("task", "`koch run --task`"),
    Flag("device", "`koch run --set device=NAME`"),
    Flag("inference.type", "rtc: `koch run --strategy rtc`; sync: the policy's own"),
    Flag("inference.*", why="docs/policies.md tells the strategies' own settings"),
    Flag("strategy.type", why="episodes are recorded where --dataset.* is given, else none"),
    Flag("strategy.*", why="episodes are recorded where --dataset.* is given, else none"),
    Flag("interpolation_multiplier", why="the guard interpolates at the rate of the arm's bus"),
    Flag("return_to_initial_position", why="the arm holds its pose", harmless=_OFF),
    Flag("rename_map", why="features have the names of the rig's cameras", harmless=("{}",)),
    Flag("use_torch_compile", why="networks are not compiled here", harmless=_OFF),
    Flag("torch_compile_backend", why="networks are not compiled here"),
    Flag("torch_compile_mode", why="networks are not compiled here"),
    Flag("compile_warmup_inferences", why="networks are not compiled here"),
)
_LOADER = "windows are read by the training process itself, decoded images are kept (`--cache`)"
_ENVIRONMENT = "`--set train.evaluate_every=STEPS` measures success in our own simulation"
_NOT_TRAINED = "LeRobot trains it; `koch run --runtime lerobot` runs the checkpoint"
_CLOUD = "training runs on this computer"
_TRAIN = (
    Flag("dataset.root", "`koch train --dataset DIR`"),
    Flag("dataset.repo_id", "folder in LeRobot's cache where no root is given"),
    Flag("dataset.episodes", "`--episodes NUMBERS`"),
    Flag("dataset.use_imagenet_stats", "`--set train.imagenet_statistics=false`"),
    Flag("dataset.image_transforms.enable", "`--set augment.brightness=0.2` and the like"),
    Flag("dataset.image_transforms.*", why="`--set augment.KEY=VALUE` sets each strength"),
    Flag("dataset.revision", why="a folder has no revisions", harmless=_OFF),
    Flag("dataset.repo_type", why="a dataset is a folder", harmless=("dataset",)),
    Flag("dataset.video_backend", why="videos are read with PyAV", harmless=("pyav",)),
    Flag("dataset.streaming", why="a dataset is a folder", harmless=_OFF),
    Flag("dataset.return_uint8", why=_LOADER),
    Flag("dataset.depth_output_unit", why="depth images are not trained on"),
    Flag("dataset.eval_split", "`--set train.validation_fraction=X`"),
    Flag("policy.type", "`koch train --policy`"),
    Flag("policy.path", "`koch train --from DIR`"),
    Flag("policy.device", "`koch train --device`"),
    Flag("policy.*", "`--set policy.KEY=VALUE`, checked by the policy"),
    Flag("batch_size", "`--set train.batch_size=N`"),
    Flag("steps", "`--set train.steps=N`"),
    Flag("seed", "`--set train.seed=N`"),
    Flag("output_dir", "`koch train --out DIR`"),
    Flag("job_name", "name of the output folder where no output_dir is given"),
    Flag("resume", "`koch train --resume`"),
    Flag("config_path", "beside resume: the training output that holds it"),
    Flag("checkpoint_path", "`koch train --from DIR`"),
    Flag("log_freq", "`--set train.log_every=N`"),
    Flag("save_freq", "`--set train.save_every=N`"),
    Flag("eval_steps", "`--set train.validate_every=N`; 0: the recipe's own"),
    Flag("max_eval_samples", "`--set train.validation_windows=N`; 0: the recipe's own"),
    Flag("save_checkpoint", why="checkpoints are always saved", harmless=_ON),
    Flag("save_checkpoint_to_hub", why="nothing is uploaded", harmless=_OFF),
    Flag("wandb.enable", "`--set train.wandb=PROJECT`"),
    Flag("wandb.project", "`--set train.wandb=PROJECT`"),
    Flag("wandb.*", why="wandb's own environment variables set it (WANDB_ENTITY, WANDB_MODE)"),
    Flag("eval_freq", why=_ENVIRONMENT),
    Flag("env_eval_freq", why=_ENVIRONMENT),
    Flag("eval.*", why=_ENVIRONMENT),
    Flag("env.*", why=_ENVIRONMENT),
    Flag("num_workers", why=_LOADER),
    Flag("prefetch_factor", why=_LOADER),
    Flag("persistent_workers", why=_LOADER),
    Flag("dataloader_multiprocessing_context", why=_LOADER),
    Flag("tolerance_s", why="frames are found by their index, not by their time"),
    Flag("cudnn_deterministic", why="runs on a processor repeat exactly", harmless=_OFF),
    Flag("use_policy_training_preset", why="the recipe is `--preset` and `--set`", harmless=_ON),
    Flag("optimizer.*", why="`--set train.learning_rate=X` and `weight_decay`, `clip_norm`"),
    Flag("scheduler.*", why="`--set train.warmup_steps=N` and `final_rate_fraction`"),
    Flag("peft.*", why=_NOT_TRAINED),
    Flag("reward_model.*", why=_NOT_TRAINED),
    Flag("use_rabc", why=_NOT_TRAINED, harmless=_OFF),
    Flag("rabc_progress_path", why=_NOT_TRAINED, harmless=_OFF),
    Flag("rabc_kappa", why=_NOT_TRAINED),
    Flag("rabc_epsilon", why=_NOT_TRAINED),
    Flag("rabc_head_mode", why=_NOT_TRAINED),
    Flag("sample_weighting.*", why="`--set train.weights={COLUMN: FACTOR}` weights frames"),
    Flag("rename_map", why="`--set train.parts` and the rig name features", harmless=("{}",)),
    Flag("job.*", why=_CLOUD),
)
_REPLAY = (
    Flag("dataset.repo_id", "folder in LeRobot's cache where no root is given"),
    Flag("dataset.root", "`koch replay DIR`"),
    Flag("dataset.episode", "`koch replay DIR --episode N`"),
    Flag("dataset.fps", why="the dataset's own rate is played; `koch replay --speed` changes it"),
    Flag("play_sounds", why="nothing is said aloud", harmless=_OFF),
)

#: Flags of each command, by our name of it.
FLAGS: Mapping[str, tuple[Flag, ...]] = {
    "calibrate": (*_ROBOT, *_TELEOP),
    "teleoperate": (
        *_ROBOT,
        *_TELEOP,
        *_DISPLAY,
        Flag("fps", why="the leader drives at the rate of its bus, 100 Hz"),
        Flag("teleop_time_s", why="Ctrl-C ends it", harmless=_OFF),
    ),
    "record": (*_ROBOT, *_TELEOP, *_RECORDED, *_RUN_POLICY, *_DISPLAY, _SOUNDS),
    "rollout": (*_ROBOT, *_TELEOP, *_RECORDED, *_RUN_POLICY, *_ROLLOUT, *_DISPLAY, _SOUNDS),
    "replay": (*_ROBOT, *_REPLAY),
    "train": _TRAIN,
}
#: What LeRobot's other commands are here.
ELSEWHERE: Mapping[str, str] = {
    "find-port": "koch motors",
    "find-cameras": "koch cameras list",
    "setup-motors": "koch motors setup follower",
    "find-joint-limits": "koch calibrate",
    "edit-dataset": "koch dataset",
    "dataset-viz": "koch inspect",
    "eval": "koch eval",
    "info": "koch doctor",
}
#: Words by which LeRobot's commands are called -> the command.
_SAME = {"scripts.train": "train", "teleop": "teleoperate"}


class UnknownFlagError(KochError):
    """A flag that neither side has."""

    def __init__(self, command: str, name: str) -> None:
        flags = [f"--{flag.name}" for flag in FLAGS[command] if not flag.name.endswith("*")]
        hint = did_you_mean(f"--{name}", flags)
        own = "" if "." in name or "_" in name else "koch's own flags cannot stand beside these. "
        super().__init__(
            f"--{name}: LeRobot's {command} has no such flag. {own}{hint} "
            "docs/from_lerobot.md lists them."
        )


class FlagValueError(KochError):
    """A flag of LeRobot's has a value that means nothing here."""

    def __init__(self, name: str, got: object, expected: str) -> None:
        super().__init__(f"--{name}: got {got!r}, expected {expected}.")


def lerobot_command(name: str, words: Sequence[str]) -> str | None:
    """Which of LeRobot's commands a command line of `koch` is; None where it is one of ours.

    Ours have neither dots nor underscores in their flags, and LeRobot's hardly go without.
    """
    plain = name.removeprefix("scripts.").removeprefix("lerobot_").removeprefix("lerobot-")
    plain = plain.replace("_", "-")
    command = _SAME.get(name, _SAME.get(plain, plain))
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    spelt = any("." in flag or "_" in flag for flag in flags)
    if command in FLAGS and (spelt or name not in FLAGS):
        return command if spelt or name != "teleop" else None
    is_ours = name == "eval" and not spelt
    return command if command in ELSEWHERE and not is_ours else None


class Given:
    """The flags of a command line, each looked up in the table.

    Args:
        command: A key of FLAGS.
        words: `--name=value`, or `--name value`; a flag alone is true.

    Attributes:
        notes: A line for each flag that has no meaning here.

    Raises:
        UnknownFlagError: A flag is not in the table.
    """

    def __init__(self, command: str, words: Sequence[str]) -> None:
        self.command = command
        self.values: dict[str, str] = {}
        self.notes: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("--"):
                raise FlagValueError(word, "a word alone", "flags such as --robot.port=PORT")
            name, equals, value = word.removeprefix("--").partition("=")
            if not equals:
                is_bare = not rest or rest[0].startswith("--")
                value = "true" if is_bare else rest.pop(0)
            self._take(name, value)

    def _take(self, name: str, value: str) -> None:
        flag = find_flag(self.command, name)
        if flag is None:
            raise UnknownFlagError(self.command, name)
        if flag.here:
            self.values[name] = value
        elif value.strip().lower() not in flag.harmless:
            self.notes.append(f"--{name}={value} has no meaning here: {flag.why}.")

    def text(self, name: str, default: str = "") -> str:
        """A value as it was typed."""
        value = self.values.get(name, default)
        return default if value.strip().lower() in ("none", "null") else value

    def needed(self, name: str) -> str:
        """A value that must be given.

        Raises:
            FlagValueError: It is not.
        """
        if not self.text(name):
            raise FlagValueError(name, None, "a value: LeRobot asks for it as well")
        return self.text(name)

    def is_on(self, name: str, *, default: bool = False) -> bool:
        """A value that is true or false."""
        word = self.text(name, str(default)).strip().lower()
        if word not in ("true", "false", "1", "0", "yes", "no"):
            raise FlagValueError(name, self.values[name], "true or false")
        return word in ("true", "1", "yes")

    def number(self, name: str, default: float) -> float:
        """A value that is a number, 0 or more."""
        word = self.text(name, str(default))
        try:
            value = float(word)
        except ValueError as error:
            raise FlagValueError(name, word, "a number") from error
        if not 0.0 <= value < float("inf"):
            raise FlagValueError(name, word, "a number, 0 or more")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """A value in YAML that is a mapping; empty where it is not given."""
        import yaml

        try:
            value = yaml.safe_load(self.text(name, "{}"))
        except yaml.YAMLError as error:
            raise FlagValueError(name, self.values[name], "a mapping in YAML") from error
        if not isinstance(value, dict):
            raise FlagValueError(name, self.values[name], "a mapping such as {front: {...}}")
        return value

    def group(self, prefix: str) -> dict[str, str]:
        """The given flags that begin so, without that beginning."""
        found = self.values.items()
        return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}


def find_flag(command: str, name: str) -> Flag | None:
    """The entry of a flag; that of its group where it has none of its own."""
    groups = []
    for flag in FLAGS[command]:
        if flag.name == name:
            return flag
        if flag.name.endswith("*") and name.startswith(flag.name[:-1]):
            groups.append(flag)
    return groups[0] if groups else None


def markdown() -> str:
    """The table for docs/from_lerobot.md."""
    parts = []
    for command, flags in FLAGS.items():
        title = command
        if command == "rollout":
            flags = tuple(flag for flag in flags if flag not in FLAGS["record"])
            title += ", besides those of record"
        lines = [f"### {title}", "", "| flag | here |", "|---|---|"]
        for flag in flags:
            lines.append(f"| `--{flag.name}` | {flag.here or f'no meaning: {flag.why}'} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
