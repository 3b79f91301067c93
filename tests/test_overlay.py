# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The stand-ins of the overlay are the real types to everyone on the network."""

import json
import os
from pathlib import Path

import pytest
from repository import ROOT

# Hashes that ROS 2's own packages announce (REP-2016); a middleware refuses another one.
UPSTREAM = {
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
}


def announced(type_name: str) -> str:
    """Return the type hash that the build wrote beside an interface."""
    package, kind, name = type_name.split("/")
    for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep):
        path = Path(prefix) / "share" / package / kind / f"{name}.json"
        if path.is_file():
            hashes = json.loads(path.read_text(encoding="utf-8"))["type_hashes"]
            found = {entry["type_name"]: entry["hash_string"] for entry in hashes}
            return str(found[type_name])
    raise AssertionError(f"{type_name} is not in {os.environ['AMENT_PREFIX_PATH']}")


@pytest.mark.ros
@pytest.mark.parametrize("type_name", sorted(UPSTREAM))
def test_type_hash_is_upstreams(type_name: str) -> None:
    assert announced(type_name) == f"RIHS01_{UPSTREAM[type_name]}"


@pytest.mark.ros
def test_actions_have_their_names_and_codes() -> None:
    from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand

    assert FollowJointTrajectory.Result.GOAL_TOLERANCE_VIOLATED == -5
    assert FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED == -4
    assert list(GripperCommand.Goal.get_fields_and_field_types()) == ["command"]
    assert list(ParallelGripperCommand.Result.get_fields_and_field_types()) == [
        "state",
        "stalled",
        "reached_goal",
    ]


def test_a_colcon_crawl_does_not_see_the_overlay() -> None:
    # In a sourced ROS the real packages are there and must not be hidden.
    assert (ROOT / "overlay" / "COLCON_IGNORE").is_file()


def test_feedback_differs_between_jazzy_and_later_by_the_two_indices() -> None:
    name = "action/FollowJointTrajectory.action"
    newer = (ROOT / "overlay/control_msgs" / name).read_text(encoding="utf-8").splitlines()
    jazzy = (ROOT / "overlay/control_msgs/jazzy" / name).read_text(encoding="utf-8").splitlines()
    more = [line.split("#")[0].split() for line in newer if line not in jazzy]
    assert more == [["int32", "index"], ["int32", "multi_dof_index"]]
