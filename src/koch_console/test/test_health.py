# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is well, what is not, and what has not been heard of for too long."""

from pathlib import Path

from koch_console.health import StreamLights, checks_of_nodes
from koch_rig.load import load_rig

SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample"


def lights() -> StreamLights:
    return StreamLights(load_rig(SAMPLE / "rig.yaml"))


def test_temperatures_that_are_unknown_or_old_are_not_shown():
    health = lights()
    health.hear("follower: motor elbow_flex", 0, "ok", {"temperature_c": "31.0"}, 10.0)
    health.hear("follower: motor gripper", 1, "no answer", {"temperature_c": "nan"}, 10.0)
    assert health.temperatures("follower", 11.0) == {"elbow_flex": 31.0}
    assert health.temperatures("follower", 16.0) == {}


def test_a_camera_that_has_no_image_yet_has_no_age():
    health = lights()
    values = {"rate [Hz]": "0.00", "age [ms]": "inf"}
    health.hear("/koch/cameras/above: stream", 2, "no image", values, 10.0)
    assert health.camera("above", 11.0) == {"light": "red", "text": "no image", "rate_hz": 0.0}
    assert health.camera("above", 16.0)["text"] == "its node says nothing"


def test_an_arm_is_heard_while_its_bus_is():
    health = lights()
    assert not health.hears("leader", 10.0)
    health.hear("/koch/leader: bus", 0, "running", {}, 10.0)
    assert health.hears("leader", 11.0)
    assert not health.hears("follower", 11.0)
    assert not health.hears("leader", 16.0)


def test_recorder_and_policy_may_be_absent_and_say_what_is_wrong_when_they_are_there():
    lights_of = {item["what"]: item["light"] for item in checks_of_nodes(None, None)}
    assert lights_of == {"recorder": "", "policy": ""}
    for minutes, light in ((300, "green"), (20, "amber"), (1, "red"), (-1, "green")):
        disk = checks_of_nodes({"disk_minutes": minutes}, None)[0]
        assert (disk["what"], disk["light"]) == ("disk", light)
        assert bool(disk["fix"]) is (light != "green")
    for state, light in (("idle", "green"), ("running", "green"), ("aborted", "amber")):
        policy = checks_of_nodes(None, {"state": state, "reason": "stale"})[1]
        assert (policy["light"], policy["text"]) == (light, f"{state}: stale")
