# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs inside LeRobot's own environment: its Koch classes against our emulated ports.

Usage: python lerobot_session.py FOLLOWER_PORT LEADER_PORT CALIBRATION_DIR
Calibrates both arms (prompts on stdout, answers on stdin), then teleoperates, then prints JSON.
"""

import json
import sys
import time
from pathlib import Path

from lerobot.robots.koch_follower import KochFollower, KochFollowerConfig
from lerobot.teleoperators.koch_leader import KochLeader, KochLeaderConfig


def say(line: str) -> None:
    """Tell the test where we are."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Connect, calibrate, teleoperate and report."""
    follower_port, leader_port, folder = sys.argv[1:]
    follower = KochFollower(
        KochFollowerConfig(port=follower_port, id="f", calibration_dir=Path(folder) / "robots")
    )
    leader = KochLeader(
        KochLeaderConfig(port=leader_port, id="l", calibration_dir=Path(folder) / "teleoperators")
    )
    say("PHASE follower")
    follower.connect()
    say("PHASE leader")
    leader.connect()
    assert follower.is_calibrated
    assert leader.is_calibrated
    say("PHASE teleop")
    times = []
    for _ in range(60):
        start = time.perf_counter()
        follower.get_observation()
        action = leader.get_action()
        follower.send_action(action)
        times.append(time.perf_counter() - start)
        time.sleep(max(0.0, 1 / 60 - times[-1]))
    time.sleep(0.5)
    report = {
        "observation": follower.get_observation(),
        "action": leader.get_action(),
        "median_s": sorted(times)[len(times) // 2],
    }
    follower.disconnect()
    leader.disconnect()
    say("REPORT " + json.dumps(report))


if __name__ == "__main__":
    main()
