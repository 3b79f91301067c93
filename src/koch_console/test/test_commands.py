# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How the messages of a browser are read."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koch_console.commands import COMMANDS, PadWord, WrongRequest, read_request


def test_a_request_is_read_with_its_defaults():
    request = read_request('{"id": 3, "do": "record.start", "with": {"duration_s": 20}}')
    assert (request.number, request.name) == (3, "record.start")
    assert request.values == {"task": "", "duration_s": 20.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("[" * 2000, "no JSON"),
        ("7", "got int"),
        ('{"do": "stop"}', "id: got None"),
        ('{"id": true, "do": "stop"}', "id: got True"),
        ('{"id": 1, "do": "drive"}', "do: got 'drive', expected one of stop"),
        ('{"id": 1, "do": ["stop"]}', "do: got"),
        ('{"id": 1, "do": "stop", "with": []}', "with: got list"),
        ('{"id": 1, "do": "stop", "with": {"arm": "x"}}', "stop has no 'arm'"),
        ('{"id": 1, "do": "torque", "with": {"arm": "follower"}}', "on is missing"),
        ('{"id": 1, "do": "torque", "with": {"arm": 1, "on": true}}', "arm: got 1, expected str"),
        ('{"id": 1, "do": "torque", "with": {"arm": "a", "on": 1}}', "on: got 1, expected bool"),
        ('{"id": 1, "do": "record.start", "with": {"duration_s": NaN}}', "expected 0 to"),
        ('{"id": 1, "do": "record.start", "with": {"duration_s": -1}}', "expected 0 to"),
        ('{"id": 1, "do": "record.start", "with": {"duration_s": true}}', "expected float"),
        (json.dumps({"id": 1, "do": "policy.run", "with": {"task": "x" * 501}}), "501 characters"),
        (
            '{"id": 1, "do": "policy.run", "with": {"task": "\\ud800"}}',
            "expected whole characters",
        ),
        ('{"id": 1, "do": "record.start", "with": {"duration_s": 1' + 400 * "0" + "}}", "0 to"),
    ],
)
def test_anything_else_is_refused_with_its_place(text, said):
    with pytest.raises(WrongRequest, match=re.escape(said)):
        read_request(text)


def test_a_word_of_the_pad_is_read():
    word = read_request('{"pad": {"arm": "follower", "x": -0.5, "gripper": 1}}')
    assert word == PadWord("follower", {"x": -0.5, "gripper": 1.0})
    assert read_request('{"pad": {"arm": "follower"}}') == PadWord("follower", {})


@pytest.mark.parametrize(
    ("pad", "said"),
    [
        ("null", "pad: got NoneType"),
        ("{}", "arm is missing"),
        ('{"x": 1}', "arm is missing"),
        ('{"arm": 1}', "arm: got 1, expected str"),
        ('{"arm": "a", "shoulder_pan": 1}', "got 'shoulder_pan', expected some of x, y, z"),
        ('{"arm": "a", "x": NaN}', "x: got nan, expected -1 to 1"),
        ('{"arm": "a", "x": -Infinity}', "x: got -inf"),
        ('{"arm": "a", "x": 1.01}', "x: got 1.01"),
        ('{"arm": "a", "x": 1' + 400 * "0" + "}", "expected -1 to 1"),
        ('{"arm": "a", "x": true}', "x: got True"),
        ('{"arm": "a", "x": null}', "x: got None"),
        ('{"arm": "a", "x": [1]}', "x: got [1]"),
    ],
)
def test_any_other_word_of_the_pad_is_refused(pad, said):
    with pytest.raises(WrongRequest, match=re.escape(said)):
        read_request(f'{{"pad": {pad}}}')


@settings(max_examples=60, deadline=None)
@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_text_raises_anything_else(text):
    try:
        read_request(text)
    except WrongRequest:
        return


def test_nothing_on_the_page_is_a_joint_goal():
    fields = {key for values in COMMANDS.values() for key in values}
    assert fields == {"arm", "on", "task", "duration_s", "max_duration_s", "outcome"}
