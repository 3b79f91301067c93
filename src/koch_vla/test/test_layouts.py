# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The layouts for Foxglove, RViz and PlotJuggler name topics and joints that the graph has."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
import yaml

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig


@pytest.fixture
def topics(repository):
    rig = load_rig(repository / "config" / "rig.yaml")
    arms = {f"/{arm}/{name}" for arm in rig.arms for name in ("joint_states", "joint_command")}
    cameras = {
        f"/cameras/{camera}/{name}"
        for camera in rig.cameras
        for name in ("image_raw/compressed", "camera_info")
    }
    nodes = {"/robot_description", "/policy/ghost/path", "/diagnostics", "/episodes/status"}
    return arms | cameras | nodes


def texts(value):
    """All texts in a JSON value, keys of objects included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def test_foxglove_shows_topics_of_the_shipped_rig(repository, topics):
    layout = json.loads((repository / "config/foxglove/koch.json").read_text(encoding="utf-8"))
    named = {text.partition(".")[0] for text in texts(layout) if text.startswith("/")}
    assert named <= topics, named - topics
    assert {"/follower/joint_states", "/cameras/above/image_raw/compressed"} <= named


def test_foxglove_lays_out_each_panel_once(repository):
    layout = json.loads((repository / "config/foxglove/koch.json").read_text(encoding="utf-8"))
    placed = [text for text in texts(layout["layout"]) if "!" in text]
    assert sorted(placed) == sorted(layout["configById"])


def test_foxglove_labels_joints_by_their_place_in_the_message(repository):
    text = (repository / "config/foxglove/koch.json").read_text(encoding="utf-8")
    pairs = re.findall(r'joint_states\.position\[(\d)\]".*?"label": "(\w+)"', text, re.DOTALL)
    assert [name for _, name in pairs] == [KOCH_V1_1.joints[int(place)] for place, _ in pairs]
    assert len(pairs) == len(KOCH_V1_1.joints)


def test_rviz_shows_topics_and_frames_of_the_shipped_rigs(repository, topics):
    layout = yaml.safe_load((repository / "config/rviz/koch.rviz").read_text(encoding="utf-8"))
    shown = layout["Visualization Manager"]
    rig = load_rig(repository / "config" / "rig.sim.yaml")  # it has all cameras
    # The raw topic is published while somebody reads it; RViz decodes no JPEG without a plug-in.
    images = {f"/cameras/{camera}/image_raw" for camera in rig.cameras}
    descriptions = {f"/{arm}/robot_description" for arm in rig.arms}
    named = {text for text in texts(shown) if text.startswith("/")}
    assert named <= topics | images | descriptions, named - topics
    assert {"/robot_description", "/policy/ghost/path"} | images <= named
    assert shown["Global Options"]["Fixed Frame"] == "world"


def test_plotjuggler_plots_joints_of_the_shipped_rig(repository, topics):
    root = ElementTree.parse(repository / "config/plotjuggler/koch.xml").getroot()
    curves = [curve.get("name") for curve in root.iter("curve")]
    for name in curves:
        topic, joint, field = name.rsplit("/", 2)
        assert topic in topics
        assert joint in KOCH_V1_1.joints
        assert field in ("position", "velocity", "effort")
    assert len(curves) == len(set(curves)) == 4 * len(KOCH_V1_1.joints)
