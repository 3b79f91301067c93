# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Motions from bags and datasets, and their way to the arm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_core.errors import KochError
from koch_episodes.bag.storage import Topic
from koch_episodes.bag.writer import BagWriter
from koch_episodes.errors import EpisodeError
from koch_episodes.replay.motion import Motion, load_motion
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

NS = 1_000_000_000
START_NS = 1_760_000_000 * NS


@pytest.fixture
def bag(tmp_path: Path, joint_topic: Any, joint_state: Any) -> Callable[..., Path]:
    """Write a bag of a command topic: one position [rad] for each time [s]."""

    def write(
        times_s: list[float],
        positions: list[float],
        names: tuple[str, ...] = KOCH_V1_1.joints,
        topic: str = "/follower/joint_command",
        broken_log_ns: int = 0,
    ) -> Path:
        writer = BagWriter(tmp_path / "episode_000000", {})
        kind: Topic = joint_topic[0]
        number = writer.add_topic(Topic(topic, kind.type, kind.definition, kind.form))
        for index, (time_s, position) in enumerate(zip(times_s, positions, strict=True)):
            stamp, log_ns = START_NS + round(time_s * NS), START_NS + index
            log_ns = broken_log_ns if index == 5 and broken_log_ns else log_ns
            writer.write(number, joint_state(stamp, position, names), log_ns, log_ns)
        return writer.finish({})

    return write


def test_bag_is_read_by_name_with_exact_times(bag: Any) -> None:
    path = bag([0.0, 0.1, 0.2], [0.0, 0.1, 0.2], names=tuple(reversed(KOCH_V1_1.joints)))
    arm, motion = load_motion(path)
    assert arm == "follower"
    np.testing.assert_allclose(motion.times_s, [0.0, 0.1, 0.2], atol=1e-9)
    np.testing.assert_allclose(motion.at(0.15), np.full(J, 0.15), atol=1e-9)


def test_pose_outside_is_the_nearest_end(bag: Any) -> None:
    _, motion = load_motion(bag([0.0, 0.1], [0.3, 0.4]))
    np.testing.assert_allclose(motion.at(-1.0), np.full(J, 0.3))
    np.testing.assert_allclose(motion.at(9.0), np.full(J, 0.4))


def test_stamps_that_do_not_increase_are_left_out(bag: Any) -> None:
    _, motion = load_motion(bag([0.0, 0.1, 0.05, 0.2], [0.0, 0.1, 9.0, 0.2]))
    assert motion.positions_rad.max() == pytest.approx(0.2)


def test_hole_is_refused_and_a_part_can_be_chosen(bag: Any) -> None:
    times = [0.0, 0.1, 0.2, 1.2, 1.3]
    path = bag(times, times)
    with pytest.raises(EpisodeError, match=r"hole of 1.00 s at 0.20 s.*--from-s"):
        load_motion(path)
    _, motion = load_motion(path, from_s=1.0)
    assert motion.duration_s == pytest.approx(0.1)


@pytest.mark.parametrize("place", [0, 1, 7, 38, 39])
@pytest.mark.parametrize("stamp_s", [None, 3600.0 * 24 * 365, -3600.0])
def test_one_bad_stamp_is_one_sample_left_out(bag: Any, place: int, stamp_s: float | None) -> None:
    """Zero, a year ahead, an hour behind: none of them sets the beginning or the end."""
    times = [0.05 * k for k in range(40)]
    bad = -START_NS / NS if stamp_s is None else stamp_s
    path = bag([*times[:place], bad, *times[place + 1 :]], times)
    _, motion = load_motion(path)
    assert len(motion.times_s) == 39
    assert motion.duration_s == pytest.approx(1.95, abs=0.051)
    assert len(motion.notes) == 1
    assert "1 of 40 stamps" in motion.notes[0]


@pytest.mark.parametrize("back_s", [1.5, 3600.0])
def test_a_clock_that_is_set_back_is_refused(bag: Any, back_s: float) -> None:
    first = [10_000.0 + 0.05 * k for k in range(60)]
    second = [time_s - back_s for time_s in first]
    with pytest.raises(EpisodeError, match=r"the clock jumps by -.*Convert it, which splits"):
        load_motion(bag(first + second, [0.0] * 120))


def test_a_log_time_that_rolled_over_costs_one_sample(bag: Any) -> None:
    times = [0.05 * k for k in range(40)]
    _, motion = load_motion(bag(times, times, broken_log_ns=(1 << 64) - 1))
    assert 39 <= len(motion.times_s) <= 40


def test_a_bag_without_stamps_says_so(bag: Any) -> None:
    with pytest.raises(EpisodeError, match="20 of 20 messages have no stamp"):
        load_motion(bag([-START_NS / NS] * 20, [0.0] * 20))


def test_measured_path_serves_where_no_command_was_recorded(bag: Any) -> None:
    path = bag([0.0, 0.1], [0.0, 0.1], topic="/left/joint_states")
    with pytest.raises(EpisodeError, match="holds no joint commands"):
        load_motion(path)
    assert load_motion(path, arm="left")[1].duration_s == pytest.approx(0.1)


def test_missing_joint_is_named(bag: Any) -> None:
    with pytest.raises(EpisodeError, match="gripper"):
        load_motion(bag([0.0, 0.1], [0.0, 0.1], names=KOCH_V1_1.joints[:5]))


def test_values_that_are_not_finite_are_refused(bag: Any) -> None:
    with pytest.raises(EpisodeError, match="finite"):
        load_motion(bag([0.0, 0.1], [0.0, float("nan")]))


def test_single_pose_is_no_motion(bag: Any) -> None:
    with pytest.raises(EpisodeError, match="holds 1 poses"):
        load_motion(bag([0.0], [0.0]))


def test_folder_that_is_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="neither a bag nor a LeRobot dataset"):
        load_motion(tmp_path)


def test_dataset_needs_a_rig(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{}")
    with pytest.raises(EpisodeError, match="Give --rig"):
        load_motion(tmp_path)


def test_dry_run_says_what_would_be_played(bag: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from koch_episodes.replay_cli import main

    assert main([str(bag([0.0, 0.1], [0.0, 0.1])), "--dry-run"]) == 0
    assert "2 poses, 0.1 s, arm follower" in capsys.readouterr().out


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Episodes 0, 1 and 2 of 10, 20 and 30 frames; the last two are successes."""
    from koch_episodes.dataset import DatasetWriter, FeatureSpec

    names = tuple(f"{joint}.pos" for joint in KOCH_V1_1.joints)
    keys = ("action", "observation.state")
    root = tmp_path / "data"
    features = {key: FeatureSpec("float32", (J,), names) for key in keys}
    with DatasetWriter(root, features, fps=10, robot_type="koch") as writer:
        for length, outcome in ((10, "failure"), (20, "success"), (30, "success")):
            values = np.zeros((length, J)) + length
            writer.add_episode(dict.fromkeys(keys, values), {}, "go", outcome)
    return root


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1", "data, episode 1: 20 poses, 1.9 s"),
        ("outcome == 'failure'", "data, episode 0: 10 poses, 0.9 s"),
        ("outcome == 'success' and length > 25", "data, episode 2: 30 poses, 2.9 s"),
    ],
)
def test_an_expression_chooses_the_episode(
    dataset: Path, rig_file: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from koch_episodes.replay_cli import main

    assert main([str(dataset), "--rig", str(rig_file), "--episodes", text, "--dry-run"]) == 0
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("outcome == 'success'", r"has 2 episodes that .* selects \(1, 2\).*'and index == N'"),
        ("0-1", "has 2 episodes"),
        ("outcome == 'lost'", "selects no episode"),
        ("0,99", "there is no episode 99. There are 0, 1, 2 in"),
        ("speed > 3", "'speed', which"),
    ],
)
def test_an_expression_that_chooses_none_or_several_is_refused(
    dataset: Path, rig_file: Path, text: str, told: str
) -> None:
    from koch_episodes.replay_cli import main

    with pytest.raises(KochError, match=told):
        main([str(dataset), "--rig", str(rig_file), "--episodes", text, "--dry-run"])


def test_a_bag_takes_no_expression(bag: Any) -> None:
    with pytest.raises(EpisodeError, match=r"is no dataset\. Leave --episodes out"):
        load_motion(bag([0.0, 0.1], [0.0, 0.1]), episode="index == 0")


class FakeArm:
    """A follower in the same process: obeys command/replay at once, publishes joint states.

    Args:
        name: Namespace.
        obeys: It goes where commands tell it.
        speed: With a number it lives by a /clock of that speed, which it publishes itself.
    """

    def __init__(self, name: str, *, obeys: bool, speed: float | None = None) -> None:
        import rclpy
        from koch_interfaces.msg import GuardStatus
        from rclpy.clock import Clock, ClockType
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from rosgraph_msgs.msg import Clock as Tick
        from sensor_msgs.msg import JointState

        from koch_ros.qos import LATCHED

        self._kind = JointState
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self._rclpy = rclpy
        self.node = rclpy.create_node(
            "driver",
            namespace=name,
            context=self.context,
            parameter_overrides=[Parameter("use_sim_time", value=speed is not None)],
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if speed is not None:
            self._speed, self._start_s, self._tick = speed, time.monotonic(), Tick
            self._ticks = self.node.create_publisher(Tick, "/clock", 5)
            self.node.create_timer(0.01, self._publish_clock, clock=steady)
        self.ages_s: list[float] = []
        self.obeys = obeys
        self.pose = [0.5] * J
        self.commands: list[list[float]] = []
        self._states = self.node.create_publisher(JointState, "joint_states", 5)
        self._guard = self.node.create_publisher(GuardStatus, "guard_status", LATCHED)
        self.node.create_subscription(JointState, "command/replay", self._on_command, 1)
        self.node.create_timer(0.01, self._publish, clock=steady)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def say_guard(self, mode: int, stop_count: int) -> None:
        """Publish a guard's status."""
        from koch_interfaces.msg import GuardStatus

        message = GuardStatus(mode=mode, stop_count=stop_count, reason="stopped: by hand")
        self._guard.publish(message)

    def _on_command(self, message: Any) -> None:
        assert list(message.name) == list(KOCH_V1_1.joints)
        stamp = message.header.stamp
        now = self.node.get_clock().now().nanoseconds
        self.ages_s.append((now - stamp.sec * NS - stamp.nanosec) / NS)
        self.commands.append(list(message.position))
        if self.obeys:
            self.pose = list(message.position)

    def _publish_clock(self) -> None:
        passed_ns = round(self._speed * (time.monotonic() - self._start_s) * NS)
        message = self._tick()
        message.clock.sec, message.clock.nanosec = divmod(100 * NS + passed_ns, NS)
        self._ticks.publish(message)

    def _publish(self) -> None:
        message = self._kind(name=list(KOCH_V1_1.joints), position=self.pose)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._states.publish(message)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(timeout=5.0)
        self.node.destroy_node()
        self._rclpy.shutdown(context=self.context)


@pytest.fixture
def make_arm() -> Iterator[Callable[..., FakeArm]]:
    """Build fake arms."""
    arms: list[FakeArm] = []

    def make(name: str, *, obeys: bool = True, speed: float | None = None) -> FakeArm:
        arms.append(FakeArm(name, obeys=obeys, speed=speed))
        return arms[-1]

    yield make
    for arm in arms:
        arm.close()


@pytest.fixture
def make_player() -> Iterator[Callable[..., Any]]:
    """Build players."""
    from koch_episodes.replay.nodes.player import Player

    players: list[Any] = []

    def make(arm: str) -> Any:
        players.append(Player(arm, KOCH_V1_1.joints, 50.0, lambda line: None))
        return players[-1]

    yield make
    for player in players:
        player.close()


def _motion() -> Motion:
    times = np.linspace(0.0, 0.5, 16)
    return Motion("test", times, np.outer(np.linspace(0.2, 0.4, 16), np.ones(J)), KOCH_V1_1.joints)


@pytest.mark.ros
def test_arm_is_led_slowly_to_the_start_and_then_played(make_arm: Any, make_player: Any) -> None:
    arm, player, motion = make_arm("replay_arm"), make_player("replay_arm"), _motion()
    player.wait_for_arm()
    player.approach(motion.at(0.0))
    led = np.array(arm.commands)
    assert abs(led[0] - 0.5).max() < 0.05, "the first command is where the arm is"
    assert abs(np.diff(led, axis=0)).max() < 0.05, "no jump on the way"
    tracking = player.play(motion, 1.0)
    assert tracking.max_rad.max() < 0.1
    deadline = time.monotonic() + 3.0
    while arm.commands[-1][0] < 0.4 - 1e-9 and time.monotonic() < deadline:
        time.sleep(0.02)  # the last command is still on its way
    np.testing.assert_allclose(arm.commands[-1], 0.4, atol=1e-9)


@pytest.mark.timing
@pytest.mark.ros
@pytest.mark.parametrize("speed", [None, 0.5, 2.0, 3.0])
def test_an_arm_without_teleop_is_played_in_the_time_that_it_lives_by(
    make_arm: Any, make_player: Any, speed: float | None
) -> None:
    arm, motion = make_arm("alone_arm", speed=speed), _motion()
    player = make_player("alone_arm")
    player.wait_for_arm()
    player.release_teleop()  # looks for a service that nobody offers
    player.approach(motion.at(0.0))
    begin = time.monotonic()
    player.play(motion, 1.0)
    took_s = (time.monotonic() - begin) * (speed or 1.0)
    assert motion.duration_s - 0.05 < took_s < 1.6 * motion.duration_s + 0.1
    assert np.abs(arm.ages_s).max() < 0.3, "stamps of another time"


@pytest.mark.ros
@pytest.mark.parametrize("resumed", [False, True])
def test_a_stop_ends_the_replay_also_where_a_resume_follows(
    make_arm: Any, make_player: Any, resumed: bool
) -> None:
    from koch_interfaces.msg import GuardStatus

    from koch_episodes.replay.nodes.player import ReplayError

    arm, player, motion = make_arm("stop_arm"), make_player("stop_arm"), _motion()
    arm.say_guard(GuardStatus.HOLDING, 3)
    player.wait_for_arm()
    player.approach(motion.at(0.0))
    if not resumed:
        arm.say_guard(GuardStatus.STOPPED, 4)
    else:
        arm.say_guard(GuardStatus.HOLDING, 4)
    with pytest.raises(ReplayError, match="stopped"):
        player.play(motion, 0.25)


@pytest.mark.ros
def test_arm_that_does_not_follow_is_not_played(make_arm: Any, make_player: Any) -> None:
    from koch_episodes.replay.nodes import player as module

    make_arm("stuck_arm", obeys=False)
    player = make_player("stuck_arm")
    player.wait_for_arm()
    settle, module._SETTLE_S = module._SETTLE_S, 0.2
    try:
        with pytest.raises(module.ReplayError, match=r"shoulder_pan stays 0.30 rad"):
            player.approach(np.full(J, 0.2))
    finally:
        module._SETTLE_S = settle


@pytest.mark.ros
def test_replay_without_a_driver_says_so(
    make_player: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koch_episodes.replay.nodes import player as module

    monkeypatch.setattr(module, "_STATE_TIMEOUT_S", 0.3)
    with pytest.raises(module.ReplayError, match=r"no joint states come.*koch up"):
        make_player("nobody").wait_for_arm()
