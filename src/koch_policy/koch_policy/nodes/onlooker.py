# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a person who judges runs needs beside them: the table's image, the guard, arms at home."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from koch_interfaces.msg import GuardStatus
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger

from koch_core.terminal import say
from koch_rig.arm_model import Role
from koch_rig.stream import image_topic
from koch_ros.qos import LATCHED, STATE

if TYPE_CHECKING:
    from koch_rig.rig import Rig
    from koch_ros.session import GraphSession

_IMAGE_S = 2.0  # older, an image does not show what is there now
_RELEASED_S = 2.0
_BEGIN_S = 1.0  # by when a motion home has begun
_HOME_S = 15.0


class Onlooker:
    """Listens while a session spins.

    Args:
        session: Whose node subscribes.
        rig: Names the followers and the cameras.
        camera: Whose image is kept; None for the rig's first.
    """

    def __init__(self, session: GraphSession, rig: Rig, camera: str | None) -> None:
        self._image: tuple[bytes, float] | None = None
        self._session = session
        self._guards: dict[str, GuardStatus] = {}
        self._before: Counter[str] = Counter()
        node = session.node
        chosen = camera or next(iter(rig.cameras), None)
        if chosen is not None:
            node.create_subscription(CompressedImage, image_topic(chosen), self._on_image, STATE)
        followers = [arm.name for arm in rig.arms.values() if arm.role is Role.FOLLOWER]
        for arm in followers:
            node.create_subscription(
                GuardStatus, f"{arm}/guard_status", self._guard_of(arm), LATCHED
            )
        self._homes = {arm: node.create_client(Trigger, f"{arm}/home") for arm in followers}

    def _on_image(self, message: CompressedImage) -> None:
        self._image = bytes(message.data), time.monotonic()

    @property
    def image(self) -> bytes | None:
        """The newest image as a JPEG; None without a camera, and where it shows none any more."""
        if self._image is None or time.monotonic() - self._image[1] > _IMAGE_S:
            return None
        return self._image[0]

    def _guard_of(self, arm: str) -> Callable[[GuardStatus], None]:
        def on_status(message: GuardStatus) -> None:
            self._guards[arm] = message

        return on_status

    def begin(self) -> None:
        """Count the guard's changes from here."""
        self._before = self._counts()

    def changes(self) -> dict[str, int]:
        """Bus cycles in which a command was changed since `begin`, by rule and joint."""
        return dict(self._counts() - self._before)

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for status in self._guards.values():
            counts.update(
                {f"{item.rule}/{item.joint}": int(item.count) for item in status.changes}
            )
        return counts

    def go_home(self) -> None:
        """Move all arms to their home poses and wait until they are there; say who does not go.

        Raises:
            NoAnswerError: A driver does not answer.
        """
        moving = []
        for arm, home in self._homes.items():
            # The guard lets the last source go a moment after its last command.
            end_s = time.monotonic() + _RELEASED_S
            while not (answer := self._session.call(home, Trigger.Request())).success:
                if time.monotonic() > end_s:
                    say(f"{arm} does not go home: {answer.message}")
                    break
                self._session.spin(0.1)
            else:
                moving.append(arm)

        def goes(arm: str) -> bool:
            return arm in self._guards and self._guards[arm].source == "trajectory"

        self._session.spin_until(lambda: all(map(goes, moving)), _BEGIN_S)
        if not self._session.spin_until(lambda: not any(map(goes, moving)), _HOME_S):
            late = ", ".join(filter(goes, moving))
            say(f"{late} is not at home after {_HOME_S:.0f} s")
