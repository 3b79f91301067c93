# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What is well, what is not, and what has not been heard of for too long."""

from pathlib import Path

from koch_console.health import StreamLights
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
