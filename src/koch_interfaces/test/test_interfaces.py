# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The interface files say what a reader needs, and the build knows all of them."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for kind in ("msg", "srv", "action") for path in (PACKAGE / kind).glob(f"*.{kind}")
)
# A field or a constant: type, name, and the comment behind it.
LINE = re.compile(
    r"^(?P<type>[\w/]+(\[\d*\])?)\s+(?P<name>\w+)(?P<constant>=\S+)?\s*(#\s*(?P<note>.+))?$"
)


def entries(path: Path) -> list[re.Match[str]]:
    """Return the fields and constants of an interface file."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [match for line in lines if (match := LINE.match(line))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_field_is_explained(path: Path) -> None:
    bare = [match["name"] for match in entries(path) if not match["note"]]
    assert not bare, f"{path.name}: no comment behind {bare}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_number_names_a_unit_or_a_count(path: Path) -> None:
    for match in entries(path):
        if match["type"].startswith("float") and not match["constant"]:
            assert re.search(r"\[[^\]]+\]|SI units", match["note"]), f"{path.name} {match['name']}"


def test_the_build_knows_every_file() -> None:
    text = (PACKAGE / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = set(re.findall(r'"((?:msg|srv|action)/[^"]+)"', text))
    assert listed == {f"{path.parent.name}/{path.name}" for path in FILES}


def test_no_message_is_without_a_stamp() -> None:
    # What travels inside another message is dated by that one's header.
    messages = [path for path in FILES if path.suffix == ".msg"]
    inside = {
        match["type"].partition("[")[0].rpartition("/")[2]
        for path in messages
        for match in entries(path)
    }
    for path in messages:
        if path.stem not in inside:
            types = [match["type"] for match in entries(path) if not match["constant"]]
            assert types[0] == "std_msgs/Header", path.name


@pytest.mark.ros
def test_built_messages_have_these_fields() -> None:
    from koch_interfaces.action import RunPolicy
    from koch_interfaces.msg import EpisodeStatus, StreamHealth

    path = PACKAGE / "msg" / "EpisodeStatus.msg"
    fields = [match["name"] for match in entries(path) if not match["constant"]]
    assert list(EpisodeStatus.get_fields_and_field_types()) == fields
    assert (StreamHealth.GREEN, StreamHealth.AMBER, StreamHealth.RED) == (0, 1, 2)
    assert RunPolicy.Result.FINISHED == 0
