# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The pad over the WebSocket: what a follower's jog node hears of it, and when no more."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from koch_console import pad
from koch_ros.qos import STATE

pytestmark = pytest.mark.ros
SECRET, LOOK = "operate-secret", "looking-secret"
FORWARD = {"x": 0.5}
REST = (0.0,) * 6


class Listener:
    """Hears what a jog node hears, under its name."""

    def __init__(self) -> None:
        self.node = Node("teleop", namespace="/follower")
        self.heard: list[tuple[float, ...]] = []
        self.delays_s: list[float] = []
        self._grip = 0.0
        topic = "/follower/teleop"
        self.node.create_subscription(TwistStamped, f"{topic}/twist", self._on_twist, STATE)
        self.node.create_subscription(JointState, f"{topic}/joint_speeds", self._on_grip, STATE)
        self.grips: list[tuple[str, float]] = []

    def _on_twist(self, message: TwistStamped) -> None:
        stamp = message.header.stamp
        self.delays_s.append(time.time() - stamp.sec - 1e-9 * stamp.nanosec)
        line, turn = message.twist.linear, message.twist.angular
        self.heard.append((line.x, line.y, line.z, turn.x, turn.y, turn.z))

    def _on_grip(self, message: JointState) -> None:
        self.grips.append((message.name[0], message.velocity[0]))


@pytest.fixture
def listener(bench: Callable[..., Any]) -> Callable[..., tuple[Any, Listener]]:
    """A bench with a listener beside it."""

    def make(*tokens: str) -> tuple[Any, Listener]:
        robot, found = bench(*tokens), Listener()
        robot.spin(found.node)
        return robot, found

    return make


@asynccontextmanager
async def page_of(robot: Any, token: str = "") -> AsyncIterator[ClientWebSocketResponse]:
    """An open page that has seen the pad."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        ClientSession(headers=headers) as session,
        session.ws_connect(f"{robot.url}/socket") as page,
    ):
        while (await read(page, "pads"))["follower"] is None:
            continue
        yield page


async def read(page: ClientWebSocketResponse, key: str) -> Any:
    """The next value of a section, or text of an answer, that comes to a page."""
    while True:
        message = await asyncio.wait_for(page.receive(), 10.0)
        assert message.type is WSMsgType.TEXT, message
        value = json.loads(message.data)
        if key in value:
            return value["text"] if key == "answer" else value[key]


async def press(page: ClientWebSocketResponse, arm: str = "follower", **shares: Any) -> None:
    """Send a word of the pad; without shares let go."""
    await page.send_str(json.dumps({"pad": {"arm": arm, **shares}}))


async def hold(page: ClientWebSocketResponse, seconds: float = 0.3) -> None:
    """Press as the page does."""
    for _ in range(round(seconds / 0.06)):
        await press(page, **FORWARD)
        await asyncio.sleep(0.06)


async def rests(hand: Listener, within_s: float = 5.0) -> None:
    """Wait until rest was the last that was heard."""
    end_s = time.monotonic() + within_s
    while not hand.heard or hand.heard[-1] != REST:
        assert time.monotonic() < end_s, hand.heard[-1:]
        await asyncio.sleep(0.01)


def run(work: Awaitable[None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(work, 30.0))


def test_words_arrive_with_the_stamp_of_their_receipt_and_rest_is_said_once(listener):
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page:
            await press(page, x=0.5, y=-1, z=0.25, pitch=0.5, roll=-0.5, gripper=-1)
            await asyncio.sleep(0.1)
            await press(page)
            await rests(hand)
            await asyncio.sleep(0.2)

    run(work())
    assert len(hand.heard) == 2
    assert hand.heard[0] == pytest.approx((0.05, -0.1, 0.025, -0.4, 0.4, 0.0))
    assert [name for name, _ in hand.grips] == ["gripper", "gripper"]
    assert [speed for _, speed in hand.grips] == pytest.approx([-1.2, 0.0])
    assert all(0.0 <= delay_s < 1.0 for delay_s in hand.delays_s)


def test_a_silent_page_moves_nothing_more_until_it_has_let_go(listener):
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page:
            await hold(page)
            last_s = time.monotonic()
            assert "so the hand rests" in await read(page, "answer")
            assert time.monotonic() - last_s < pad.SILENT_S + 2.0  # the machine may be busy
            await rests(hand)
            count = len(hand.heard)
            await press(page, **FORWARD)  # late words of the old press
            assert "let go and press again" in await read(page, "answer")
            assert len(hand.heard) == count
            await press(page)
            await hold(page)
            assert hand.heard[-1] != REST

    run(work())


def test_a_page_that_goes_lets_go_at_once(listener, monkeypatch):
    monkeypatch.setattr(pad, "SILENT_S", 60.0)  # nor is it silence that does
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page:
            await hold(page)
            assert hand.heard[-1] != REST
        await rests(hand)

    run(work())


def test_one_page_holds_the_pad_and_the_other_sees_who(listener):
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page, page_of(robot) as other:
            holding = asyncio.ensure_future(hold(page, 1.0))
            while await read(other, "holder") != "127.0.0.1":
                continue
            await press(other, y=1.0)
            assert "Another page holds the pad" in await read(other, "answer")
            await press(other)  # nor does its letting go end the press
            await holding
            assert {word[1] for word in hand.heard} == {0.0}
            assert hand.heard[-1] != REST
            await press(page)
            while await read(other, "holder") != "":
                continue
            await press(other, y=1.0)
            while hand.heard[-1][1] != pytest.approx(0.1):  # `run` ends what takes too long
                await asyncio.sleep(0.01)

    run(work())


def test_a_stop_of_any_page_ends_the_press(listener):
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page, page_of(robot) as other:
            await hold(page)
            await other.send_str('{"id": 1, "do": "stop"}')
            assert "somebody pressed STOP" in await read(page, "answer")
            await rests(hand)
            count = len(hand.heard)
            await hold(page)
            assert len(hand.heard) == count

    run(work())


def test_who_looks_only_moves_nothing_and_ends_nothing(listener):
    robot, hand = listener(SECRET, LOOK)

    async def work() -> None:
        async with page_of(robot, SECRET) as page, page_of(robot, LOOK) as other:
            await press(other, y=1.0)
            assert "look only" in await read(other, "answer")
            holding = asyncio.ensure_future(hold(page, 0.6))
            await asyncio.sleep(0.1)
            await press(other)
            await other.send_str('{"id": 1, "do": "stop"}')
            await holding
            assert hand.heard[-1] != REST

    run(work())
    assert {word[1] for word in hand.heard} == {0.0}


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"x": math.nan}, "expected -1 to 1"),
        ({"x": 1e300}, "expected -1 to 1"),
        ({"x": None}, "expected -1 to 1"),
        ({"elbow": 0.1}, "expected some of"),
        ({"arm": None, "x": 0.1}, "arm is missing"),
        ({"arm": "leader", "x": 0.1}, "One arm at a time"),
    ],
)
def test_a_bad_word_ends_the_press(listener, shares, said):
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page:
            await hold(page)
            await press(page, **shares)
            assert said in await read(page, "answer")
            await rests(hand)
            await press(page, **FORWARD)
            assert "press again" in await read(page, "answer")

    run(work())
    assert all(abs(value) <= 0.05 for word in hand.heard for value in word)


def test_a_flood_of_words_is_not_passed_on(listener):
    robot, hand = listener()

    async def work() -> None:
        async with page_of(robot) as page:
            began_s = time.monotonic()
            for _ in range(2000):
                await press(page, **FORWARD)
            await press(page)
            await rests(hand)
            assert len(hand.heard) <= 3 + (time.monotonic() - began_s) / 0.02

    run(work())


def test_without_a_jog_node_there_is_no_pad(bench):
    robot = bench()

    async def work() -> None:
        async with (
            ClientSession() as session,
            session.ws_connect(f"{robot.url}/socket") as page,
        ):
            assert await read(page, "pads") == {"follower": None}
            await press(page, **FORWARD)
            assert "koch up --jog" in await read(page, "answer")
            await press(page, arm="leader", **FORWARD)
            assert "'leader' is no follower of this rig" in await read(page, "answer")

    run(work())
