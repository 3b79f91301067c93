# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the page shows of the graph: subscriptions that are read when a page needs them.

Everything is polled from the server's event loop. Waking an executor for each message would cost
more than all the rest (see `koch_ros.polled`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from koch_interfaces.msg import EpisodeStatus, GuardStatus, PolicyStatus
from rcl_interfaces.msg import Log
from sensor_msgs.msg import CompressedImage, JointState

from koch_console.commands import PadWord, PageAnswer, PageRequest
from koch_console.health import StreamLights, checks_of_nodes
from koch_console.nodes.hands import Hands
from koch_console.nodes.requests import Requests
from koch_console.slot import LatestImage
from koch_core.errors import DecodeError
from koch_episodes.cdr import compressed_image
from koch_rig.joints import plain_joints
from koch_rig.rig import Arm, Rig, Role
from koch_rig.stream import image_topic
from koch_ros.polled import PolledGroup, ignore, take_all, take_newest
from koch_ros.qos import EVENTS, LATCHED, NEWEST, STATE

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile

_SILENT_S = 3.0  # who has said nothing for so long is gone; the slowest says something each second
_JOINTS_SILENT_S = 1.0  # joints come thirty times a second or more
_LEVELS = {10: "debug", 20: "info", 30: "warn", 40: "error", 50: "fatal"}
_PHASES = ("idle", "waiting", "recording", "saving", "resetting")
_LIGHTS = ("green", "amber", "red")
_STATES = ("loading", "idle", "running", "paused", "shadow", "aborted")
_MODES = ("disconnected", "off", "waiting", "holding", "blending", "driving", "stopped")


class _Heard:
    """One topic and its newest message."""

    def __init__(self, subscription: Any, silent_s: float) -> None:
        self.subscription = subscription
        self.silent_s = silent_s
        self.message: Any = None
        self.at_s = -math.inf

    def look(self) -> None:
        """Take what has come."""
        message = take_newest(self.subscription)
        if message is not None:
            self.message, self.at_s = message, time.monotonic()

    @property
    def fresh(self) -> Any:
        """The message, None when it is too old to be believed."""
        return self.message if time.monotonic() - self.at_s < self.silent_s else None


class RobotView:
    """The graph of one rig as the server sees it, see `koch_console.server.Robot`.

    Args:
        node: Owns subscriptions and clients. Its executor completes the requests.
        rig: What there is to be seen.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        self._node, self._rig = node, rig
        self._group = PolledGroup()
        self.requests = Requests(node, rig)
        self._hands = Hands(node, rig)
        self.images = {name: LatestImage() for name in rig.cameras}
        self._cameras: dict[str, Any] = {}  # subscriptions of cameras with a reader
        self._arms = {name: self._hear_arm(arm) for name, arm in rig.arms.items()}
        self._joints: dict[tuple[str, str], _Heard] = {}  # only while a page is open
        self._episodes = self._hear(EpisodeStatus, "episodes/status", LATCHED)
        self._policy = self._hear(PolicyStatus, "policy/status", STATE)
        self._ghost: _Heard | None = None
        self._diagnostics = self._subscribe(DiagnosticArray, "/diagnostics", _deep(EVENTS, 50))
        self._log = self._subscribe(Log, "/rosout", _deep(EVENTS, 200))
        self._lines: list[Mapping[str, Any]] = []
        self._health = StreamLights(rig)

    def _subscribe(self, kind: Any, topic: str, qos: QoSProfile, *, raw: bool = False) -> Any:
        return self._node.create_subscription(
            kind, topic, ignore, qos, callback_group=self._group, raw=raw
        )

    def _hear(self, kind: Any, topic: str, qos: QoSProfile, silent_s: float = _SILENT_S) -> _Heard:
        return _Heard(self._subscribe(kind, topic, qos), silent_s)

    def _hear_arm(self, arm: Arm) -> _Heard:
        return self._hear(GuardStatus, f"{arm.name}/guard_status", LATCHED)

    # -- what does not change -------------------------------------------------------------------

    def describe(self) -> Mapping[str, Any]:
        """See `Robot`."""
        rig = self._rig
        return {
            "rig": rig.name,
            "task": rig.task,
            "simulated": rig.has_simulated_table,
            "arms": [
                {
                    "name": arm.name,
                    "role": arm.role.value,
                    "drives": arm.drives,
                    "joints": [
                        {"name": joint, "low": low, "high": high}
                        for joint, (low, high) in rig.limits.joints.items()
                    ],
                }
                for arm in rig.arms.values()
            ],
            "cameras": [
                {"name": item.name, "width": item.width, "height": item.height, "fps": item.fps}
                for item in rig.cameras.values()
            ],
        }

    # -- images ---------------------------------------------------------------------------------

    def take_images(self) -> None:
        """See `Robot`. A camera is subscribed to while it has readers."""
        for name, slot in self.images.items():
            subscription = self._cameras.get(name)
            if not slot.readers:
                if subscription is not None:
                    self._node.destroy_subscription(self._cameras.pop(name))
                continue
            if subscription is None:
                topic = image_topic(name)
                subscription = self._subscribe(CompressedImage, topic, NEWEST, raw=True)
                self._cameras[name] = subscription
            data = take_newest(subscription)
            if data is not None:
                try:
                    slot.put(compressed_image(data))
                except DecodeError as exc:
                    self._node.get_logger().warning(f"{name}: {exc}", throttle_duration_sec=5.0)

    # -- state ----------------------------------------------------------------------------------

    def watch(self, *, seen: bool) -> None:
        """See `Robot`."""
        for heard in (*self._arms.values(), self._episodes, self._policy):
            heard.look()
        for message, _ in take_all(self._diagnostics):
            for status in message.status:
                values = {item.key: item.value for item in status.values}
                level = int.from_bytes(status.level, "little")
                self._health.hear(status.name, level, status.message, values, time.monotonic())
        for message, _ in take_all(self._log):
            if message.level >= 20:
                self._lines.append(_line(message))
        if seen and not self._joints:
            self._open_joints()
        elif not seen and self._joints:
            for heard in self._joints.values():
                self._node.destroy_subscription(heard.subscription)
            self._joints.clear()
            assert self._ghost is not None
            self._node.destroy_subscription(self._ghost.subscription)
            self._ghost = None
        for heard in (*self._joints.values(), *([self._ghost] if self._ghost else [])):
            heard.look()

    def _open_joints(self) -> None:
        for arm in self._rig.arms.values():
            for what in ("joint_states", "joint_command"):
                if what == "joint_states" or arm.role is Role.FOLLOWER:
                    topic = f"{arm.name}/{what}"
                    self._joints[arm.name, what] = self._hear_joints(topic)
        self._ghost = self._hear_joints("policy/ghost/joint_states")

    def _hear_joints(self, topic: str) -> _Heard:
        return self._hear(JointState, topic, NEWEST, _JOINTS_SILENT_S)

    def new_lines(self) -> list[Mapping[str, Any]]:
        """See `Robot`."""
        lines, self._lines = self._lines, []
        return lines

    def state(self) -> Mapping[str, Any]:
        """See `Robot`."""
        now_s = time.monotonic()
        episode, policy = _episode(self._episodes.fresh), _policy(self._policy.fresh)
        return {
            "joints": {name: self._arm_joints(arm) for name, arm in self._rig.arms.items()},
            "guards": {
                name: self._guard_of(self._rig.arms[name], heard, now_s)
                for name, heard in self._arms.items()
            },
            "ghost": self._ghost_joints(),
            "cameras": {name: self._camera(name) for name in self.images},
            "episode": episode,
            "policy": policy,
            "checks": [*self._health.checks(now_s), *checks_of_nodes(episode, policy)],
            "running": self.requests.running,
            "pads": {
                arm: self._health.said_of(f"teleop: {arm}", now_s) if is_there else None
                for arm, is_there in self._hands.listen().items()
            },
        }

    def _guard_of(self, arm: Arm, heard: _Heard, now_s: float) -> Mapping[str, Any] | None:
        """What an arm's guard says, None where it is gone. A leader says it when it changes."""
        lives = arm.role is Role.LEADER and self._health.hears(arm.name, now_s)
        message = heard.message if lives else heard.fresh
        return None if message is None else _guard(message)

    def _arm_joints(self, arm: Arm) -> Mapping[str, Any]:
        celsius = self._health.temperatures(arm.name, time.monotonic())
        found: dict[str, Any] = {"temperature": celsius}
        for what, key in (("joint_states", "measured"), ("joint_command", "goal")):
            heard = self._joints.get((arm.name, what))
            message = None if heard is None else heard.fresh
            if message is None:
                continue
            names = plain_joints(message.name, arm.joint_prefix)
            found[key] = _rounded(names, message.position)
            if key == "measured":
                found["current"] = _rounded(names, message.effort)
        return found

    def _ghost_joints(self) -> Mapping[str, float] | None:
        """Where the policy will have the arm, None where none says."""
        message = None if self._ghost is None else self._ghost.fresh
        return message and _rounded(plain_joints(message.name), message.position)

    def _camera(self, name: str) -> Mapping[str, Any]:
        slot = self.images[name]
        shown: dict[str, Any] = dict(self._health.camera(name, time.monotonic()))
        if slot.readers and slot.age_s is not None:
            shown |= {"rate_hz": round(slot.rate_hz, 1), "age_s": round(slot.age_s, 1)}
        return shown

    async def do(self, request: PageRequest) -> PageAnswer:
        """See `Robot`."""
        return await self.requests.do(request)

    def move(self, word: PadWord) -> str:
        """See `Robot`."""
        return self._hands.move(word)


def _deep(profile: QoSProfile, depth: int) -> QoSProfile:
    from rclpy.qos import QoSProfile as Profile

    return Profile(depth=depth, reliability=profile.reliability, durability=profile.durability)


def _rounded(names: Any, values: Any) -> Mapping[str, float]:
    """Values by joint; a tenth of a milliradian is finer than a servo's tick."""
    pairs = zip(names, values)  # noqa: B905  # a leader has no currents in its message
    return {name: round(value, 4) for name, value in pairs if math.isfinite(value)}


def _line(message: Any) -> Mapping[str, Any]:
    return {
        "time_s": message.stamp.sec + 1e-9 * message.stamp.nanosec,
        "level": _LEVELS.get(message.level, "info"),
        "node": message.name,
        "text": message.msg,
    }


def _word(words: tuple[str, ...], value: int) -> str:
    """The word for a constant of a message; a newer node may know more of them."""
    return words[value] if value < len(words) else "unknown"


def _guard(message: Any) -> Mapping[str, Any]:
    return {
        "mode": _word(_MODES, message.mode),
        "source": message.source,
        "torque": message.torque,
        "reason": message.reason,
        "stops": [{"joint": stop.joint, "text": stop.text} for stop in message.stops],
        "refusals": [
            {"source": item.source, "count": item.count, "text": item.text}
            for item in message.refusals
        ],
        "changes": [
            {"rule": item.rule, "joint": item.joint, "count": item.count}
            for item in message.changes
        ],
    }


def _episode(message: Any) -> Mapping[str, Any] | None:
    if message is None:
        return None
    return {
        "phase": _word(_PHASES, message.phase),
        "index": message.episode_index,
        "task": message.task,
        "elapsed_s": round(message.elapsed_s, 1),
        "remaining_s": round(message.remaining_s, 1),
        "light": _word(_LIGHTS, message.light),
        "reason": message.reason,
        "disk_minutes": round(message.disk_minutes_left),
        "saved": message.episodes_saved,
        "verdict": message.last_verdict,
        "path": message.path,
        "streams": [
            {
                "name": item.name,
                "rate_hz": round(item.rate_hz, 1),
                "light": _word(_LIGHTS, item.light),
                "reason": item.reason,
            }
            for item in message.streams
        ],
    }


def _policy(message: Any) -> Mapping[str, Any] | None:
    if message is None:
        return None
    return {
        "state": _word(_STATES, message.state),
        "task": message.task,
        "strategy": message.strategy,
        "runtime": message.runtime,
        "rate_hz": round(message.rate_hz, 1),
        "delay_ms": round(1e3 * message.delay_p50_s),
        "way": [
            {"stage": stage, "p50_ms": round(1e3 * p50_s, 1), "p95_ms": round(1e3 * p95_s, 1)}
            for stage, p50_s, p95_s in zip(
                message.way_stages, message.way_p50_s, message.way_p95_s, strict=False
            )
        ],
        "steps": message.steps_executed,
        "refusals": message.refusals,
        "reason": message.reason,
    }
