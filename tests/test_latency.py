# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch calibrate latency` finds delays that were hidden in recordings of the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_rig.load import load_rig
from koch_rig.stream import camera_stream
from koch_sim.lockstep import Lockstep
from koch_sim.recording import LockstepRecorder
from koch_vla.latency_cli import main
from koch_vla.nodes.wiggle import wiggle

RIG = Path(__file__).parents[1] / "config/rig.sim.yaml"
MOST_MS = 5.0
SECONDS = 8.0


def record(
    folder: Path, stamped_late_ms: Mapping[str, float], delay_ms: float, joint: int, seed: int
) -> Path:
    """An episode in which the arm wiggles; each camera stamps late, the servos begin late."""
    rig = load_rig(RIG)
    arm = replace(rig.follower, delay_s=delay_ms / 1e3)
    rig = replace(rig, arms={**rig.arms, arm.name: arm})
    world = Lockstep(rig, seed=seed)
    recorder = LockstepRecorder(rig)
    late_ns = {camera_stream(name): round(1e6 * ms) for name, ms in stamped_late_ms.items()}

    def hear(stream: str, stamp_ns: int, value: Any) -> None:
        recorder.hear(stream, stamp_ns + late_ns.get(stream, 0), value)

    arms = [f"{arm.name}/joint_states", f"{arm.name}/joint_command"]
    world.listen(hear, [*arms, *late_ns])
    try:
        motion = wiggle(world.joints(), joint, 0.12 if joint == 0 else 0.08, SECONDS)
        begin_ns = world.time_ns
        while (passed_s := (world.time_ns - begin_ns) / 1e9) < SECONDS + 0.6:
            world.command("replay", motion.at(passed_s - 0.3).tolist(), world.time_ns)
            world.run(0.01)
        return recorder.write(folder, "wiggle", 0, "success")
    finally:
        world.close()


def rig_file(folder: Path) -> Path:
    text = RIG.read_text(encoding="utf-8")
    for part in ("calibration/", "cameras/sim"):
        text = text.replace(f": {part}", f": {RIG.parent}/{part}")
    path = folder / "rig.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("above_ms", "left_ms", "wrist_ms", "delay_ms", "joint", "seed"),
    [
        (40.0, 0.0, 85.0, 0.0, 0, 3),
        (-30.0, 12.0, 33.0, 60.0, 0, 4),
        (110.0, 7.0, 61.0, 24.0, 0, 5),
    ],
)
def test_hidden_delays_are_found_within_five_milliseconds(
    tmp_path: Path, above_ms: float, left_ms: float, wrist_ms: float, delay_ms: float, joint: int,
    seed: int,
) -> None:  # fmt: skip
    late_ms = {"above": above_ms, "left": left_ms, "wrist": wrist_ms}
    bag = record(tmp_path / "episode_000000", late_ms, delay_ms, joint, seed)
    path = rig_file(tmp_path)
    before = path.read_text("utf-8").splitlines()
    assert main([str(bag), "--rig", str(path), "--dry-run"]) == 0
    assert path.read_text("utf-8").splitlines() == before
    assert main([str(bag), "--rig", str(path)]) == 0
    rig = load_rig(path)
    for camera, ms in late_ms.items():
        found_ms = 1e3 * rig.streams[camera_stream(camera)].offset_s
        assert found_ms == pytest.approx(-ms, abs=MOST_MS), camera
    assert 1e3 * rig.follower.delay_s == pytest.approx(delay_ms, abs=MOST_MS)
    changed = set(path.read_text("utf-8").splitlines()) - set(before)
    assert all("offset_ms" in line or "delay_ms" in line for line in changed)
    assert len(changed) == len(late_ms) + 1


def test_a_camera_that_sees_too_little_of_it_is_named_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late_ms = {"above": 110.0, "wrist": 61.0}  # the wrist rises, and the table hardly moves
    bag = record(tmp_path / "episode_000000", late_ms, 24.0, joint=1, seed=5)
    path = rig_file(tmp_path)
    assert main([str(bag), "--rig", str(path)]) == 1
    assert "wrist: " in capsys.readouterr().err
    rig = load_rig(path)
    assert rig.streams["cameras/wrist"].offset_s == 0.0
    assert 1e3 * rig.streams["cameras/above"].offset_s == pytest.approx(-110.0, abs=MOST_MS)
    assert 1e3 * rig.follower.delay_s == pytest.approx(24.0, abs=MOST_MS)


def test_an_arm_at_rest_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = record(tmp_path / "episode_000000", {"above": 0.0}, 0.0, 0, 0)
    still = tmp_path / "still"
    rig = load_rig(RIG)
    world, recorder = Lockstep(rig, seed=0), LockstepRecorder(rig)
    world.listen(
        recorder.hear, ["follower/joint_states", "follower/joint_command", "cameras/above"]
    )
    try:
        pose = world.joints().tolist()
        for _ in range(500):
            world.command("replay", pose, world.time_ns)
            world.run(0.01)
        recorder.write(still, "rest", 0, "success")
    finally:
        world.close()
    path = rig_file(tmp_path)
    text = path.read_text("utf-8")
    assert main([str(still), "--rig", str(path)]) == 1
    assert path.read_text("utf-8") == text
    told = capsys.readouterr().err
    assert "above: no joint moved by 0.05 rad" in told
    assert "follower: no joint was told to move" in told
    assert main([str(bag), "--rig", str(path), "--joint", "thumb"]) == 2
    assert "--joint thumb: expected one of shoulder_pan" in capsys.readouterr().err


def test_a_wiggle_begins_and_ends_where_it_was() -> None:
    pose = np.arange(6.0)
    motion = wiggle(pose, 2, 0.1, 5.0)
    np.testing.assert_allclose(motion.positions_rad[[0, -1]], [pose, pose])
    assert 0.06 < np.abs(motion.positions_rad[:, 2] - 2.0).max() < 0.1 + 1e-9
    assert np.ptp(motion.positions_rad[:, [0, 1, 3, 4, 5]], axis=0).max() == 0.0
