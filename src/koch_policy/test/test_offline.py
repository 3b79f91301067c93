# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Shadow errors and offline replay on recordings whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_core.stream import StreamBuffer
from koch_episodes.bag import open_bag
from koch_episodes.bag.writer import BagWriter
from koch_episodes.decode import NamedValues
from koch_policy.chunks import StrategyKind
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.errors import UnknownKeysError
from koch_policy.execution.compatibility import PlainActions
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.offline import Tick, plot, replay
from koch_policy.offline_cli import replay_settings
from koch_policy.recordings import bag_ticks
from koch_policy.run_cli import chosen_rig, node_parameters, parse
from koch_policy.shadow import CommandedActions, ShadowMeter, summarize
from koch_rig.action_layout import ActionLayout
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_rig.units import joint_units

J = len(KOCH_V1_1.joints)

ONE_ARM = ActionLayout.of([("follower", KOCH_V1_1.joints)])
SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample"
T0 = 1_700_000_000_000_000_000


def recording(count: int, hole: range = range(0)) -> Iterator[Tick]:
    """The action of tick k is 0.01 k in every joint, and so is the state."""
    for tick in range(count):
        value = np.full(J, 0.01 * tick)
        yield Tick(
            lambda value=value: {"observation.state": value.astype(np.float32)},
            value,
            "no image" if tick in hole else "",
        )


def expert(call: int, observation: Any) -> np.ndarray:
    """Predicts exactly what comes."""
    return observation["observation.state"][None] + 0.01 * np.arange(30, dtype="f4")[:, None]


def test_a_perfect_policy_has_no_error_whatever_its_delay() -> None:
    for delay_s in (0.0, 0.09, 0.4):
        result = replay(
            FunctionPolicy(expert),
            recording(120),
            fps=30.0,
            actions=PlainActions(lambda raw: raw.astype(np.float64)),
            kind=StrategyKind.QUEUE,
            delay_s=delay_s,
        )
        summary = result.errors()
        assert summary.count > 100
        assert summary.largest.max() < 1e-5
        assert len(result.seams) >= 5
        assert np.isnan(result.executed[0]).all()  # the first chunk comes a tick later at least


def test_a_policy_without_regard_to_delay_would_lag() -> None:
    """Negative control: chunks entered at row 0 instead are as late as the inference."""

    def late(call: int, observation: Any) -> np.ndarray:
        return np.concatenate([np.repeat(expert(call, observation)[:1], 9, 0),
                               expert(call, observation)[:21]])  # fmt: skip

    result = replay(
        FunctionPolicy(late),
        recording(120),
        fps=30.0,
        actions=PlainActions(lambda raw: raw.astype(np.float64)),
        kind=StrategyKind.QUEUE,
        delay_s=0.3,
    )
    assert result.errors().mean.min() > 0.08


def test_holes_are_refused_not_filled() -> None:
    result = replay(
        FunctionPolicy(expert),
        recording(120, hole=range(40, 110)),
        fps=30.0,
        actions=PlainActions(lambda raw: raw.astype(np.float64)),
        kind=StrategyKind.QUEUE,
        delay_s=0.05,
    )
    assert result.refusals == 70
    assert np.isnan(result.executed[100]).all(), "no plan reaches so far"


def test_the_plot_is_a_image(tmp_path: Path) -> None:
    result = replay(
        FunctionPolicy(expert),
        recording(60),
        fps=30.0,
        actions=PlainActions(lambda raw: raw.astype(np.float64)),
        kind=StrategyKind.BLEND,
    )
    plot(result, tmp_path / "deep" / "replay.png", "test")
    assert (tmp_path / "deep" / "replay.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_shadow_errors_are_per_joint_at_the_same_tick() -> None:
    actions = StreamBuffer("follower/joint_command", 64, 0.1)
    meter = ShadowMeter(CommandedActions(ONE_ARM, {"follower": actions}))
    for tick in range(30):
        at = T0 + tick * 33_333_333
        meter.predicted(at, np.full(J, 0.1))
        actions.push(at + 5_000_000, NamedValues(KOCH_V1_1.joints, [0.1, 0.2, 0.1, 0.1, 0.1, 0.1]))
    meter.settle(T0)
    assert meter.summary().count == 0  # the human's action may still come
    assert "no action" in str(meter.summary())
    meter.settle(T0 + 2_000_000_000)
    summary = meter.summary()
    assert summary.count == 30
    assert meter.unmatched == 0
    np.testing.assert_allclose(summary.mean, [0, 0.1, 0, 0, 0, 0], atol=1e-9)
    assert "shoulder_lift 5.7" in str(summary)
    assert summary.to_dict()["joints"]["shoulder_lift"]["max_rad"] == pytest.approx(0.1)


def test_shadow_skips_ticks_without_a_human_action() -> None:
    meter = ShadowMeter(CommandedActions(ONE_ARM, {"follower": StreamBuffer("a", 8, 0.1)}))
    meter.predicted(T0, np.zeros(J))
    meter.settle(T0 + 10**9)
    assert (meter.summary().count, meter.unmatched) == (0, 1)


def test_summary_by_hand() -> None:
    summary = summarize(np.array([[0.1] * J, [-0.3] * J]), KOCH_V1_1.joints)
    np.testing.assert_allclose(summary.mean, 0.2)
    np.testing.assert_allclose(summary.largest, 0.3)


def test_the_command_line_becomes_node_parameters(tmp_path: Path) -> None:
    options = parse(
        ["--policy", str(tmp_path), "--rig", "r.yaml", "--strategy", "rtc", "--shadow",
         "--set", "fade_steps=7", "--set", "guidance=pull"]
    )  # fmt: skip
    parameters = node_parameters(options)
    assert parameters["checkpoint"] == str(tmp_path)
    assert parameters["shadow"] is True
    assert parameters["fade_steps"] == 7
    assert parameters["guidance"] == "pull"
    assert Path(parameters["rig"]).is_absolute()


def test_the_rig_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KOCH_RIG", str(tmp_path / "mine.yaml"))
    assert chosen_rig(None) == tmp_path / "mine.yaml"
    monkeypatch.delenv("KOCH_RIG")
    assert chosen_rig(None).name == "rig.yaml"


def test_settings_of_a_replay_are_those_that_need_no_node() -> None:
    found = replay_settings(["precision=bf16", "execution_steps=7", "calibration=a/b"])
    assert found == {"precision": "bf16", "execution_steps": 7, "calibration": "a/b"}
    with pytest.raises(UnknownKeysError, match=r"(?s)fade_steps.*execution_steps"):
        replay_settings(["fade_steps=7"])


@pytest.mark.parametrize(
    "argv", [["--replay", "bag"], ["--max-duration", "-1"], ["--strategie", "x"]]
)
def test_a_bad_command_line_ends_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2


@pytest.mark.ros
def test_what_the_camera_called_frozen_is_missing_in_a_bag_as_it_is_live(tmp_path: Path) -> None:
    """The sample episode, in which its camera says that it is frozen from 4 s to 6 s."""
    serialize = pytest.importorskip("rclpy.serialization").serialize_message
    from koch_interfaces.msg import StreamState

    topic = "/cameras/above/state"
    rig = load_rig(SAMPLE / "rig.yaml")
    with open_bag(SAMPLE / "episode_000000") as bag:
        messages = list(bag.messages(list(bag.topics)))
        begin_ns = min(message.log_ns for message in messages)
        writer = BagWriter(tmp_path / "bag", bag.custom)
        numbers = {name: writer.add_topic(found) for name, found in bag.topics.items()}
        words = []
        for at_s, usable in ((4.0, False), (6.0, True)):
            since_ns = begin_ns + int(at_s * 1e9)
            word = StreamState(
                stream="cameras/above", usable=usable, reason="frozen" * (not usable)
            )
            for stamp in (word.since, word.header.stamp):
                stamp.sec, stamp.nanosec = divmod(since_ns, 10**9)
            words.append((since_ns + 50_000_000, topic, serialize(word)))
        everything = [*((m.log_ns, m.topic, m.data) for m in messages), *words]
        for order, (log_ns, name, data) in enumerate(sorted(everything, key=lambda m: m[0])):
            writer.write(numbers[name], bytes(data), log_ns, log_ns, order)
        path = writer.finish(bag.custom)
    above = PolicyFeature(FeatureType.VISUAL, (3, 240, 320))
    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (J,))}
    policy = FunctionPolicy(expert, inputs={**inputs, "observation.images.above": above})
    missing = [
        place / 15
        for place, tick in enumerate(bag_ticks(path, rig, policy, joint_units(rig)))
        if "frozen" in tick.missing
    ]
    assert 26 <= len(missing) <= 34
    assert 3.5 < missing[0] < 4.5
    assert 5.5 < missing[-1] < 6.5
