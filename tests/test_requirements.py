# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Every requirement is pinned, and everything named is pinned somewhere."""

import re
from pathlib import Path

import pytest
from repository import ROOT

FOLDER = ROOT / "requirements"
PARTS = sorted(path.stem for path in FOLDER.glob("*.in"))
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[\w.!]+)( ; (?P<marker>.+))?$")


def lines(path: Path) -> list[str]:
    """Return the lines of a requirement file without comments."""
    text = path.read_text(encoding="utf-8")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


def pins(part: str) -> list[re.Match[str]]:
    """Return the pins of one part."""
    found = [(line, PIN.match(line)) for line in lines(FOLDER / f"{part}.txt")]
    assert all(match for _, match in found), [line for line, match in found if not match]
    return [match for _, match in found if match]


@pytest.mark.parametrize("part", PARTS)
def test_every_line_is_an_exact_pin(part: str) -> None:
    assert pins(part)


@pytest.mark.parametrize("part", PARTS)
def test_every_named_requirement_is_pinned(part: str) -> None:
    pinned = {match["name"] for match in pins(part)}
    named = lines(FOLDER / f"{part}.in")
    names = {re.split(r"[ <=\[]", line)[0].replace("_", "-") for line in named}
    assert names <= pinned, names - pinned


@pytest.mark.parametrize("ros", ["ros-kilted", "ros-jazzy"])
def test_parts_that_meet_agree_on_versions(ros: str) -> None:
    versions: dict[tuple[str, str], str] = {}
    for part in [part for part in PARTS if not part.startswith("ros-")] + [ros]:
        for match in pins(part):
            key = (match["name"], match["marker"] or "")
            assert versions.setdefault(key, match["version"]) == match["version"], key


def test_versions_that_the_design_fixes() -> None:
    def version(part: str, name: str) -> set[str]:
        return {match["version"] for match in pins(part) if match["name"] == name}

    assert version("policy", "torch") == {"2.13.0"}
    assert version("ros-kilted", "ros-rclpy") == {"9.1.2"}
    assert version("ros-jazzy", "ros-rclpy") == {"7.1.6"}
    assert version("ros-jazzy", "ros-sensor-msgs") == {"5.3.6"}


def test_heavy_packages_stand_in_their_own_part() -> None:
    for part in ("base", "build", "dev"):
        names = {match["name"] for match in pins(part)}
        assert not names & {"torch", "openvino", "mujoco"}, part
