# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of every action space: trained, saved, and executed from where the arm is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset import DatasetWriter, FeatureSpec
from koch_policy.checkpoint import load_checkpoint
from koch_policy.chunks import StrategyKind
from koch_policy.configs import ACTION, ENVIRONMENT, STATE
from koch_policy.dataset_view import DatasetView
from koch_policy.errors import CheckpointError, DatasetError
from koch_policy.execution.compatibility import SpaceActions, differences
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.metadata import CheckpointMetadata
from koch_policy.offline import Tick, replay
from koch_policy.train.config import TrainConfig
from koch_policy.train.data import Windows
from koch_policy.train.setup import make_trainer, policy_config
from koch_policy.train.source import open_all, open_demonstrations
from koch_rig.action_layout import ACTION_SPACES, ActionLayout
from koch_rig.action_space import ActionCodec, UnreachableTargetError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig

JOINTS = KOCH_V1_1.joints
NAMES = tuple(f"{name}.pos" for name in JOINTS)
SPACES = sorted(ACTION_SPACES)
READY = np.array([0.2, -0.3, 0.2, 0.8, 0.3, -0.4])
ONE = ActionLayout.of([("follower", JOINTS)])
RIG = load_rig(Path(__file__).resolve().parents[3] / "config" / "rig.emulated.yaml")


def motion(steps: int, phase: float) -> np.ndarray:
    """A smooth way of all joints, (steps, J) [rad]."""
    times = np.arange(steps)[:, None] / 20.0 + phase
    return READY + 0.15 * np.sin(times + np.arange(6))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes in radians; an action leads its state by three steps."""
    return write(tmp_path_factory.mktemp("data") / "ways")


def write(root: Path, *, has_differences: bool = False) -> Path:
    spec, place = FeatureSpec("float32", (6,), NAMES), FeatureSpec("float32", (1,), ("x",))
    features = {ACTION: spec, STATE: spec, ENVIRONMENT: place}
    with DatasetWriter(root, features, fps=20) as writer:
        for number in range(3):
            way = motion(43, number).astype(np.float32)
            action = way[3:] - way[:-3] if has_differences else way[3:]
            block = way[:-3, :1]
            writer.add_episode({ACTION: action, STATE: way[:-3], ENVIRONMENT: block}, {}, "go")
        writer.finalize()
    said = {"units": "radians", "delta_actions": has_differences}
    (root / "meta/koch.json").write_text(json.dumps(said))
    return root


def recipe(make: Any, space: str) -> Any:
    groups = {"train": {"action_space": space, "steps": 2, "validation_fraction": 0.34}}
    return make.recipe("act").with_overrides(groups, "test")


@pytest.mark.parametrize("space", SPACES)
def test_what_is_learned_means_what_was_recorded(space: str, dataset: Path, make: Any) -> None:
    data = open_demonstrations(dataset, TrainConfig(action_space=space))
    plain = open_demonstrations(dataset, TrainConfig())
    config = policy_config(data, recipe(make, space))
    steps = config.horizon_steps
    codec = ActionCodec(ACTION_SPACES[space], ONE)
    windows = Windows(data, config, range(3))
    for row in (0, 11, 53):
        chunk = windows.actions(np.array([row]))[ACTION][0].numpy()
        state = plain.vectors[STATE][row]
        decoded = codec.decode(chunk, state)
        expected = plain.vectors[ACTION][row : row + steps]
        np.testing.assert_allclose(decoded.rows, expected, atol=2e-4)  # float32 in between
    if data.codec is not None:
        assert data.names[ACTION][-1] == "gripper.pos"


@pytest.mark.parametrize("space", SPACES)
def test_a_checkpoint_carries_its_space(
    space: str, dataset: Path, tmp_path: Path, make: Any
) -> None:
    data = open_all([str(dataset)], recipe(make, space).train)
    trainer = make_trainer(data, recipe(make, space), tmp_path, show_progress=False)
    trainer.run()
    loaded = load_checkpoint(tmp_path)
    codec = ActionCodec(ACTION_SPACES[space], ONE)
    assert loaded.extras.action_space == space
    assert loaded.config.action_dim == len(codec.names)
    steps = json.loads((loaded.path / "policy_postprocessor.json").read_text())["steps"]
    foreign = [step["registry_name"] for step in steps if step["registry_name"].startswith("koch")]
    assert foreign == ([] if space == "joint" else ["koch_action_space"])  # LeRobot refuses it
    view = DatasetView(dataset, loaded.config, loaded.extras, {})
    assert view.actions.shape[1] == 6  # in joints, whatever the policy says
    if space != "joint":
        (loaded.path / "koch.json").unlink()
        with pytest.raises(CheckpointError, match="`action_space` is 'joint'"):
            load_checkpoint(tmp_path)


def test_relative_statistics_are_those_of_whole_chunks(dataset: Path, make: Any) -> None:
    data = open_demonstrations(dataset, TrainConfig(action_space="joint_relative"))
    trainer = make_trainer(data, recipe(make, "joint_relative"), Path("out"))
    windows = Windows(data, trainer.config, range(3))
    rows = np.arange(sum(data.lengths))
    batch = windows.actions(rows)
    inside = batch[ACTION][~batch["action_is_pad"]]
    found = trainer.statistics[ACTION]
    assert found["min"].tolist() == pytest.approx(inside.min(0).values.tolist())
    assert found["max"].tolist() == pytest.approx(inside.max(0).values.tolist())


def test_differences_train_as_what_was_commanded(dataset: Path, tmp_path: Path, make: Any) -> None:
    apart = write(tmp_path / "apart", has_differences=True)
    for space in ("", "tcp_relative"):
        one, other = (open_demonstrations(root, TrainConfig(action_space=space))
                      for root in (dataset, apart))  # fmt: skip
        np.testing.assert_allclose(one.vectors[ACTION], other.vectors[ACTION], atol=1e-6)


def test_a_space_that_begins_at_the_pose_needs_to_see_it(dataset: Path, tmp_path: Path) -> None:
    spec = {ACTION: FeatureSpec("float32", (6,), NAMES), ENVIRONMENT:
            FeatureSpec("float32", (1,), ("x",))}  # fmt: skip
    with DatasetWriter(tmp_path / "blind", spec, fps=20) as writer:
        values = np.zeros((9, 1), np.float32)
        writer.add_episode({ACTION: motion(9, 0.0).astype(np.float32), ENVIRONMENT: values},
                           {}, "go")  # fmt: skip
        writer.finalize()
    with pytest.raises(DatasetError, match=r"no observation\.state.*where the space tcp begins"):
        open_demonstrations(tmp_path / "blind", TrainConfig(action_space="tcp"))


def test_degrees_need_a_calibration_for_poses_and_none_for_differences(
    dataset: Path, tmp_path: Path
) -> None:
    root = write(tmp_path / "degrees")
    (root / "meta/koch.json").write_text(json.dumps({"units": "degrees"}))
    open_demonstrations(root, TrainConfig(action_space="joint_relative"))
    with pytest.raises(DatasetError, match=r"holds no rig.*--rig FILE"):
        open_demonstrations(root, TrainConfig(action_space="tcp"))


def ticks(count: int) -> Iterator[Tick]:
    way = motion(count + 3, 0.0)
    for tick in range(count):
        state = way[tick].astype(np.float32)
        yield Tick(lambda state=state: {STATE: state}, way[tick + 3])


@pytest.mark.parametrize("kind", [StrategyKind.QUEUE, StrategyKind.TEMPORAL_ENSEMBLE])
@pytest.mark.parametrize("space", [name for name in SPACES if name != "joint"])
def test_a_perfect_policy_is_executed_without_an_error(space: str, kind: StrategyKind) -> None:
    codec = ActionCodec(ACTION_SPACES[space], ONE)
    way = motion(200, 0.0)

    def expert(call: int, observation: Any) -> np.ndarray:
        here = int(np.argmin(np.abs(way - observation[STATE]).sum(1)))
        vectors = codec.encode(way[here + 3 : here + 33], observation[STATE])
        return vectors.astype(np.float32)

    extras = CheckpointMetadata(units="radians", action_space=space)
    actions = SpaceActions(codec, range(6))
    result = replay(FunctionPolicy(expert, extras=extras), ticks(60), fps=20.0, actions=actions,
                    kind=kind, delay_s=0.09)  # fmt: skip
    assert len(result.seams) >= 4
    assert result.errors().largest.max() < 5e-4


def test_rtc_is_told_the_old_chunk_as_seen_from_the_new_observation() -> None:
    codec = ActionCodec(ACTION_SPACES["tcp_relative"], ONE)
    actions = SpaceActions(codec, range(6))
    rows = motion(12, 0.0)
    seen, later = ({STATE: rows[step].astype(np.float32)} for step in (0, 5))
    raw = codec.encode(rows, seen[STATE]).astype(np.float32)
    kept = actions.kept(raw, actions.decode(raw, seen)[0])
    again = actions.continued(kept[5:], later)
    np.testing.assert_allclose(again, codec.encode(rows[5:], later[STATE]), atol=1e-4)
    assert np.abs(again[0, :3] - raw[5, :3]).max() > 1e-3  # the old numbers would mislead


def test_a_replay_names_what_the_hand_cannot_reach() -> None:
    codec = ActionCodec(ACTION_SPACES["tcp"], ONE)
    far = codec.poses(READY[None].repeat(30, 0)).astype(np.float32)
    far[:, 2] = 2.0
    extras = CheckpointMetadata(units="radians", action_space="tcp")
    policy = FunctionPolicy(lambda call, observation: far, extras=extras)
    with pytest.raises(UnreachableTargetError, match=r"row 0 .* follower"):
        replay(policy, ticks(20), fps=20.0, actions=SpaceActions(codec, range(6)),
               kind=StrategyKind.QUEUE)  # fmt: skip


@pytest.mark.parametrize(
    ("space", "names", "match"),
    [
        (
            "polar",
            [],
            "action space 'polar': nothing registers it",
        ),
        ("tcp", ["a"], "names are a; the rig's are ee.x"),
        ("joint_relative", [], ""),
    ],
)
def test_a_policy_says_whether_it_fits_the_rig(space: str, names: list[str], match: str) -> None:
    known = space if space in ACTION_SPACES else "joint"
    extras = CheckpointMetadata(units="radians", action_space=known, names={ACTION: names})
    policy = FunctionPolicy(lambda call, observation: np.zeros((1, 6), np.float32), extras=extras)
    object.__setattr__(extras, "action_space", space)
    wrong, _ = differences(policy, RIG)
    assert any(match in line for line in wrong) if match else not wrong
