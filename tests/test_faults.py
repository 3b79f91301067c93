# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Faults in the whole running graph: the arm holds, the cause is named, nothing is lost."""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")

from goal_bounds import Goals, violations
from koch_interfaces.msg import EpisodeStatus

from koch_episodes.bag import open_bag
from koch_rig.arm_model import KOCH_V1_1
from koch_vla.nodes.running_graph import by_name, seconds_of, wait_for

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph

J = len(KOCH_V1_1.joints)
pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(240),
]

HOLDS_RAD = 0.03  # no joint moves farther in half a second that counts as holding
STILL_S = 0.5
GRIPPER = 5


def digests(folder: Path) -> dict[str, str]:
    """The finished episodes' files and what stands in them."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("episode_*/*"))
        if not path.parent.name.endswith(".partial")
    }


def goals_of(graph: RunningGraph, first: int) -> Goals:
    heard = graph.watcher.goals[first:]
    return Goals(
        np.array([number for number, _ in heard]),
        np.array([seconds_of(message) for _, message in heard]),
        np.array([by_name(message) for _, message in heard]).reshape(-1, J),
        np.array([list(message.velocity) for _, message in heard]).reshape(-1, J),
    )


@pytest.fixture(scope="module")
def finished(graph: RunningGraph) -> dict[str, str]:
    """An episode, recorded while nothing was wrong."""
    graph.demonstrate(seed=1)
    started = graph.start_episode()
    assert started.success, started.message
    time.sleep(2.0)
    stopped = graph.stop_episode()
    assert stopped.success, stopped.message
    return digests(graph.episodes)


def listening(pids: set[int]) -> dict[int, list[str]]:
    """TCP addresses on which these processes accept connections, as Linux lists them."""
    sockets = {}
    for table, length in (("tcp", 8), ("tcp6", 32)):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                sockets[f"socket:[{fields[9]}]"] = fields[1][:length]
    found: dict[int, list[str]] = {}
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed since it was listed
                if (name := str(file.readlink())) in sockets:
                    found.setdefault(pid, []).append(sockets[name])
    return found


@pytest.fixture(autouse=True)
def promises(graph: RunningGraph, finished: dict[str, str]) -> Iterator[None]:
    """Around each fault: all other nodes live on, goals keep their bounds, episodes stay."""
    first, pids = len(graph.watcher.goals), graph.pids()
    graph.broken.clear()
    yield
    graph.wait_healthy(seconds=90.0)
    changed = {node for node, pid in graph.pids().items() if pids.get(node) != pid}
    assert changed == graph.broken, f"started again: {changed}\n{graph.log.read_text()[-4000:]}"
    assert violations(graph.rig, goals_of(graph, first)) == []
    kept = digests(graph.episodes)
    assert {name: kept.get(name) for name in finished} == finished


def wait_still(graph: RunningGraph, since_s: float, seconds: float = 3.0) -> None:
    """Wait until the arm has held for STILL_S, by stamps; it may brake before.

    A restarted node may move it again before a busy machine has told us that it stood.
    """

    def stood() -> bool:
        after = [item for item in list(graph.watcher.states) if seconds_of(item) >= since_s]
        stamps = np.array([seconds_of(item) for item in after])
        angles = np.array([by_name(item) for item in after])
        begins = stamps[
            (stamps <= since_s + seconds - STILL_S) & (stamps <= stamps[-1:] - STILL_S)
        ]
        windows = (angles[(stamps >= t) & (stamps <= t + STILL_S)] for t in begins)
        return any(len(w) > 10 and np.ptp(w, axis=0).max() < HOLDS_RAD for w in windows)

    wait_for(stood, f"an arm that holds within {seconds:.0f} s")


def test_nothing_listens_beyond_this_computer(graph: RunningGraph) -> None:
    """The one TCP port of a simulated rig is that of its cameras; DDS is kept to this computer."""
    found = listening(set(graph.pids().values()))
    assert found, "the camera server was not seen"
    loopback = "0100007F"  # 127.0.0.1, as the kernel writes it
    assert all(address == loopback for rows in found.values() for address in rows), found


def kill(graph: RunningGraph, *nodes: str) -> float:
    """SIGKILL nodes, one after the other; when that was."""
    now_s = time.monotonic()
    graph.broken |= set(nodes)
    for node in nodes:
        pid = graph.kill(node)
        name = node.lstrip("/")
        graph.wait_diagnosed(now_s, f"koch up: {name}", "SIGKILL", level=2)
        graph.wait_respawned(node, pid)
    return now_s


def test_graph_records_a_whole_episode(graph: RunningGraph, finished: dict[str, str]) -> None:
    """What the faults below must not destroy is there at all."""
    assert any(name.endswith(".mcap") for name in finished)


def test_killed_teleop_lets_the_arm_hold(graph: RunningGraph) -> None:
    graph.demonstrate(seed=2)
    since_s = time.time()
    pid = graph.kill("/follower/teleop")
    graph.broken.add("/follower/teleop")
    wait_still(graph, since_s)
    graph.wait_respawned("/follower/teleop", pid)


@pytest.mark.parametrize(
    ("node", "status", "cause"),
    [("/follower/teleop", "follower: guard", "teleop"), ("/leader/driver", "teleop", "leader")],
)
def test_hung_command_lets_the_arm_hold(
    graph: RunningGraph, node: str, status: str, cause: str
) -> None:
    graph.demonstrate(seed=8)
    since_s, began_s = time.monotonic(), time.time()
    with graph.hung(node):
        wait_still(graph, began_s)
        graph.wait_diagnosed(since_s, status, cause)
    wait_for(lambda: graph.hand() != "moving" or graph.speed() > 0.05, "an arm that goes on")


def test_hung_follower_driver_goes_on_from_its_last_goal(graph: RunningGraph) -> None:
    graph.demonstrate(seed=9)
    with graph.hung("/follower/driver"):
        time.sleep(1.0)  # what was under way has arrived
        first = len(graph.watcher.goals) - 1
        time.sleep(1.0)
        assert len(graph.watcher.goals) == first + 1, "goals without a driver"
    wait_for(lambda: len(graph.watcher.goals) > first + 100, "goals")
    goals = goals_of(graph, first)
    assert np.diff(goals.stamps_s).max() > 1.0
    # One cycle's step, however long the driver was away: `promises` checks the rest.
    period_s = 1.0 / graph.rig.follower.rate_hz
    steps = np.abs(np.diff(goals.positions, axis=0)).max()
    assert steps <= graph.rig.limits.max_speed * period_s + 1e-6


def test_killed_leader_lets_the_arm_hold(graph: RunningGraph) -> None:
    graph.demonstrate(seed=3)
    killed_s = time.time()
    since_s = kill(graph, "/leader/driver")
    wait_still(graph, killed_s)
    graph.wait_diagnosed(since_s, "teleop", "leader")


def test_killed_follower_driver_leaves_the_arm_where_it_is(graph: RunningGraph) -> None:
    graph.demonstrate(seed=4)
    count = len(graph.watcher.goals)
    kill(graph, "/follower/driver")
    wait_for(lambda: graph.watcher.goals[-1][0] < graph.watcher.goals[count - 1][0], "new goals")
    numbers = [number for number, _ in graph.watcher.goals]
    first = next(i for i in range(count, len(numbers)) if numbers[i] < numbers[i - 1])
    again = graph.watcher.goals[first][1]
    when = seconds_of(again)
    nearest = min(graph.watcher.states, key=lambda state: abs(seconds_of(state) - when))
    # The servos kept the last goal that they were given; the driver goes on where the arm is.
    assert np.abs(by_name(again) - by_name(nearest))[:GRIPPER].max() < 0.1


def test_killed_cameras_and_state_publisher_come_back(graph: RunningGraph) -> None:
    cameras = [f"/cameras/{name}" for name in graph.rig.cameras]
    kill(graph, *cameras, "/robot_state_publisher")


def test_killed_recorder_saves_what_it_had(graph: RunningGraph) -> None:
    started = graph.start_episode()
    assert started.success, started.message
    time.sleep(1.5)
    kill(graph, "/recorder")
    episode = Path(started.path.removesuffix(".partial"))
    wait_for((episode / "metadata.yaml").is_file, "the repaired episode")
    with open_bag(episode) as bag:
        assert sum(1 for _ in bag.messages(["/follower/joint_states"])) > 20


def test_stalled_camera_is_named_and_stops_nobody(graph: RunningGraph) -> None:
    graph.demonstrate(seed=5)
    since_s = time.monotonic()
    graph.switch("cameras/left/run", works=False)
    try:
        graph.wait_diagnosed(since_s, "/cameras/left: stream", "", level=2)
        graph.wait_diagnosed(since_s, "recorder", "cameras/left: no message", level=2)
        refused = graph.start_episode(patience_s=0.5)
        assert not refused.success
        assert "cameras/left" in refused.message
    finally:
        graph.switch("cameras/left/run", works=True)


def test_unplugged_follower_holds_and_starts_softly(graph: RunningGraph) -> None:
    graph.demonstrate(seed=6)
    since_s = time.monotonic()
    graph.switch("follower/plug", works=False)
    try:
        time.sleep(3.0)
        graph.wait_diagnosed(since_s, "follower: bus", "", level=2)
        assert not graph.states_flow()
        first = len(graph.watcher.goals) - 1  # the last before the gap
    finally:
        graph.switch("follower/plug", works=True)
    wait_for(graph.states_flow, "joint states")
    wait_for(lambda: len(goals_of(graph, first)) > 100, "goals")
    goals = goals_of(graph, first)
    assert np.diff(goals.stamps_s).max() > 2.0, "goals were written without a bus"
    first_after = int(np.diff(goals.stamps_s).argmax()) + 1
    assert goals.numbers[first_after] == goals.numbers[first_after - 1] + 1


def test_power_cut_is_named_and_the_arm_is_not_thrown_back(graph: RunningGraph) -> None:
    graph.demonstrate(seed=7)
    since_s = time.monotonic()
    graph.switch("follower/power", works=False)
    try:
        # The simulated rig has no supply to advise about: the silent motors are what it can name.
        graph.wait_diagnosed(since_s, "follower: bus", "motors 1, 2, 3, 4, 5, 6", level=2)
        time.sleep(0.5)
        count = len(graph.watcher.goals)
        time.sleep(0.5)
        assert len(graph.watcher.goals) == count, "goals were written without power"
    finally:
        graph.switch("follower/power", works=True)
    wait_for(graph.states_flow, "joint states")
    # The arm has sunk, and lies there until a person asks for torque.
    time.sleep(1.0)
    assert len(graph.watcher.goals) == count, "goals were written before torque was asked for"
    graph.take_up(engage=False)
    wait_for(lambda: len(graph.watcher.goals) > count, "goals")
    lying, goal = graph.pose(), by_name(graph.watcher.goals[count][1])
    assert np.abs(goal - lying).max() < 0.1


def test_full_disk_ends_the_episode_but_loses_none(graph: RunningGraph) -> None:
    """A limit on the recorder's files fails its writes as a full disk does."""
    since_s = time.monotonic()
    pid = graph.pids()["/recorder"]
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    started = graph.start_episode()
    assert started.success, started.message
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        graph.wait_diagnosed(since_s, "recorder", "cannot write", level=2)
        wait_for(lambda: graph.recorder_phase() == EpisodeStatus.IDLE, "an idle recorder")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert graph.start_episode().success
    time.sleep(1.0)
    stopped = graph.stop_episode()
    assert stopped.success, stopped.message


def test_killed_world_is_a_fault_that_passes(graph: RunningGraph) -> None:
    since_s = kill(graph, "/world")
    graph.wait_diagnosed(since_s, "follower: bus", "", level=2)
    graph.wait_diagnosed(since_s, "leader: bus", "", level=2)
