# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Counts the messages of a running teleoperation for the status line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray
from koch_interfaces.msg import GuardStatus
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState

from koch_core.terminal import LinePart
from koch_rig.joints import plain_joints
from koch_ros.qos import DIAGNOSTICS, LATCHED, NEWEST
from koch_ros.session import GraphSession
from koch_vla.teleop_figures import ArmFigures, status_line

PERIOD_S = 1.0


class TeleopWatch:
    """Listens to arms and makes a status line each second.

    Messages are counted unread; only the newest of each second is parsed.

    Args:
        arms: Arm names.
        show: Receives the line.
    """

    def __init__(self, arms: Iterable[str], show: Callable[[Sequence[LinePart]], None]) -> None:
        self._show = show
        self._arms = {name: ArmFigures() for name in arms}
        self._newest: dict[tuple[str, str], bytes] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="teleop watch", daemon=True)

    def __enter__(self) -> TeleopWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        with GraphSession("koch_teleop") as opened:
            self._subscribe(opened.node)
            last_s = time.monotonic()
            while not self._over.is_set():
                opened.spin_until(self._over.is_set, PERIOD_S)
                now_s = time.monotonic()
                self._read_newest()
                self._show(status_line(self._arms, now_s - last_s))
                last_s = now_s
        self._show(())

    def _subscribe(self, node: Node) -> None:
        for arm, figures in self._arms.items():
            for topic in ("joint_states", "joint_command"):
                hear = self._count(arm, topic, figures)
                node.create_subscription(JointState, f"{arm}/{topic}", hear, NEWEST, raw=True)
            node.create_subscription(
                GuardStatus, f"{arm}/guard_status", partial(self._on_guard, figures), LATCHED
            )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, DIAGNOSTICS
        )

    def _count(self, arm: str, topic: str, figures: ArmFigures) -> Callable[[bytes], None]:
        def hear(data: bytes) -> None:
            self._newest[arm, topic] = data
            if topic == "joint_states":
                figures.states += 1
            else:
                figures.commands += 1

        return hear

    def _read_newest(self) -> None:
        for (arm, topic), data in self._newest.items():
            message = deserialize_message(data, JointState)
            values = dict(zip(plain_joints(message.name), message.position, strict=False))
            if topic == "joint_states":
                self._arms[arm].positions = values
            else:
                self._arms[arm].goals = values
        self._newest.clear()

    def _on_guard(self, figures: ArmFigures, message: GuardStatus) -> None:
        if message.changes:  # a leader that is not driven back has none
            figures.guard_changes = sum(item.count for item in message.changes)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            arm, _, kind = status.name.partition(": ")
            if arm in self._arms:
                level = int.from_bytes(status.level, "little")
                self._arms[arm].take_status(kind, level, status.message)
