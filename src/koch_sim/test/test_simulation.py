# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The running simulation looks like hardware: ptys that answer, streams with stamps."""

import os
import time
import urllib.request
from pathlib import Path

import pytest
import simplejpeg

from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_rig.rig import Role
from koch_sim.camera_server import CameraServer, EncodedFrame
from koch_sim.errors import SimulationError
from koch_sim.simulation import Simulation, camera_port

pytestmark = pytest.mark.alone


@pytest.fixture
def port(monkeypatch):
    """A free TCP port, for rigs loaded after this."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    monkeypatch.setenv("KOCH_SIM_PORT", str(number))
    return number


def _parts(port, camera, count):
    """Read some parts of a stream: (stamp in seconds, image)."""
    parts = []
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{camera}.mjpeg", timeout=20) as stream:
        while len(parts) < count:
            head = {}
            while (line := stream.readline().strip()) or not head:
                key, _, value = line.decode().partition(":")
                head[key.lower()] = value.strip()
            parts.append((float(head["x-timestamp"]), stream.read(int(head["content-length"]))))
    return parts


@pytest.mark.slow
def test_servos_answer_and_cameras_stream_with_the_time_of_the_image(port, rig):
    with Simulation(rig, seed=0) as simulation:
        for name, role in (("follower", Role.FOLLOWER), ("leader", Role.LEADER)):
            with DynamixelBus(rig.arms[name].port, motors_for(role)) as bus:
                states = [bus.sync_read_state(budget_s=0.1) for _ in range(20)]
            assert sum(state.ok for state in states) >= 18
        parts = _parts(port, "above", 8)
        stamps = [stamp for stamp, _ in parts]
        assert stamps == sorted(set(stamps))
        assert abs(stamps[-1] - time.time()) < 1.0
        height, width, _ = simplejpeg.decode_jpeg(parts[-1][1]).shape
        assert (height, width) == (480, 640)
        simulation.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a thread's priority")
@pytest.mark.slow
def test_no_thread_of_a_world_that_draws_may_starve(port, rig):
    """A killed process is over with its last thread; Mesa's shader cache is one of nice 19."""
    with Simulation(rig, seed=0):
        _parts(port, "above", 1)
        threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
        nice = {number: os.getpriority(os.PRIO_PROCESS, number) for number in threads}
    assert max(nice.values()) <= nice[os.getpid()], nice


@pytest.mark.slow
def test_an_unplugged_arm_is_gone_and_comes_back(port, rig):
    with Simulation(rig, seed=0) as simulation:
        from pathlib import Path

        link = Path(rig.arms["follower"].port)
        assert link.exists()
        simulation.servos["follower"].command("unplug")
        _wait(lambda: not link.exists())
        simulation.servos["follower"].command("replug")
        _wait(link.exists)


def _wait(holds):
    end = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_stalled_camera_sends_nothing(port):
    server = CameraServer(["above"], port)
    server.start()
    try:
        server.stalled.add("above")
        server.put("above", EncodedFrame(b"x", 1, 1))
        assert server.slots["above"].next_after(-1, timeout_s=0.05) is None
        server.stalled.clear()
        server.put("above", EncodedFrame(b"y", 2, 2))
        assert server.slots["above"].next_after(-1, timeout_s=0.05).jpeg == b"y"
    finally:
        server.close()


def test_taken_port_is_named(port):
    server = CameraServer(["above"], port)
    try:
        with pytest.raises(SimulationError, match=f"cannot listen on 127.0.0.1:{port}"):
            CameraServer(["above"], port)
    finally:
        server.close()


def test_camera_that_is_no_loopback_url_is_refused(rig):
    from dataclasses import replace

    cameras = {**rig.cameras, "above": replace(rig.cameras["above"], source="/dev/video0")}
    with pytest.raises(SimulationError, match=r"cameras\.above\.source is '/dev/video0'"):
        camera_port(replace(rig, cameras=cameras))


def test_the_page_of_the_server_shows_every_stream(port):
    server = CameraServer(["above", "wrist"], port)
    server.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
            text = page.read().decode()
        assert 'src="/above.mjpeg"' in text
        assert 'src="/wrist.mjpeg"' in text
        assert 'name="viewport"' in text
    finally:
        server.close()
