# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who may ask for what."""

import socket

import pytest

from koch_console.access import OPERATE_TOKEN, READ_TOKEN, Access, AccessError, PageRole

SECRET, LOOK = "operate-secret", "looking-secret"


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.168.1.7", "robot.local", ""])
def test_other_computers_need_a_token(bind):
    with pytest.raises(AccessError, match=r"a token is needed.*--token"):
        Access(bind)
    assert Access(bind, SECRET).role_of("") is None


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_this_computer_needs_none(bind):
    assert Access(bind).role_of("") is PageRole.OPERATE


def test_short_tokens_and_lone_read_tokens_are_refused():
    with pytest.raises(AccessError, match="got 3 characters, expected 8"):
        Access("0.0.0.0", "abc")
    with pytest.raises(AccessError, match=f"{READ_TOKEN} is set and {OPERATE_TOKEN} is not"):
        Access(read_token=LOOK)


def test_each_token_has_its_role():
    access = Access("0.0.0.0", SECRET, LOOK)
    assert access.role_of(SECRET) is PageRole.OPERATE
    assert access.role_of(LOOK) is PageRole.READ
    for wrong in ("", "operate-secreT", SECRET + "x", "ä", SECRET[:-1]):
        assert access.role_of(wrong) is None
    assert Access("0.0.0.0", SECRET).role_of("") is None, "an absent read token lets nobody in"


@pytest.mark.parametrize(
    ("host", "local", "anywhere"),
    [
        ("127.0.0.1:8765", True, True),
        ("localhost", True, True),
        ("[::1]:8765", True, True),
        ("LOCALHOST:1", True, True),
        ("192.168.1.7:8765", False, True),
        ("bench:8765", False, True),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("", False, False),
        ("[::1", False, False),
    ],
)
def test_only_our_own_names_are_known(host, local, anywhere):
    assert Access("127.0.0.1").knows_host(host) is local
    assert Access("0.0.0.0", SECRET, names=("bench",)).knows_host(host) is anywhere


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:8765"}, True),
        ({"Origin": "http://127.0.0.1:80"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://[bad"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True),
    ],
)
def test_only_our_own_pages_may_ask(headers, known):
    assert Access.knows_origin({"Host": "127.0.0.1:8765", **headers}) is known


@pytest.mark.ros
def test_bytes_that_are_no_http_are_answered_and_leave_no_traceback(bench, caplog):
    _, _, port = bench().url.rpartition(":")
    for sent in (b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n"):
        with socket.create_connection(("127.0.0.1", int(port)), 5.0) as connection:
            connection.settimeout(5.0)
            connection.sendall(sent)
            assert b" 400 Bad Request" in connection.recv(1000)
    assert not [record for record in caplog.records if record.exc_info]
