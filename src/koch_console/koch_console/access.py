# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Who may do what: addresses, names of the host, origins and tokens. No ROS, no HTTP library."""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from koch_core.errors import KochError
from koch_core.listening import SHORTEST_TOKEN, is_local, is_short, same_token

#: Environment variables with the tokens. ROS parameters would show them to the whole graph.
OPERATE_TOKEN = "KOCH_CONSOLE_TOKEN"
READ_TOKEN = "KOCH_CONSOLE_READ_TOKEN"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::\d+)?", re.ASCII)
# Sites that a browser says a request comes from, which are no other site's page.
_OWN_SITES = frozenset({"same-origin", "none"})


class AccessError(KochError):
    """The console would be open to people whom no one let in."""


class PageRole(enum.IntEnum):
    """What someone may do; each role may do what is below it."""

    READ = 1
    OPERATE = 2


@dataclass(frozen=True)
class Access:
    """The door of one console.

    Attributes:
        bind: Address on which it listens.
        operate_token: Lets in who may operate; empty: everyone on this computer may.
        read_token: Lets in who may only look; empty: no one has one.
        names: Names of this computer besides localhost, under which a browser may ask for it.
    """

    bind: str = "127.0.0.1"
    operate_token: str = ""
    read_token: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would leave the arm to strangers.

        Raises:
            AccessError: Other computers reach it and no token is set, or a token is too short.
        """
        if not self.is_local and not self.operate_token:
            raise AccessError(
                f"--bind {self.bind}: other computers would reach the arm, so a token is needed. "
                f"Give --token TEXT or set {OPERATE_TOKEN}; without --bind the page is for this "
                "computer alone."
            )
        for name, token in ((OPERATE_TOKEN, self.operate_token), (READ_TOKEN, self.read_token)):
            if is_short(token):
                raise AccessError(
                    f"{name}: got {len(token)} characters, expected {SHORTEST_TOKEN} or more. "
                    "`openssl rand -hex 16` makes one."
                )
        if self.read_token and not self.operate_token:
            raise AccessError(
                f"{READ_TOKEN} is set and {OPERATE_TOKEN} is not, so that anybody may operate. "
                "Set both."
            )

    @classmethod
    def of(cls, bind: str, environment: Mapping[str, str], names: Sequence[str] = ()) -> Access:
        """The access that an environment's tokens make; names are those besides its own.

        Raises:
            AccessError: See above.
        """
        name = socket.gethostname().lower()
        return cls(
            bind,
            environment.get(OPERATE_TOKEN, ""),
            environment.get(READ_TOKEN, ""),
            (name, f"{name}.local", *(word.lower() for word in names)),
        )

    @property
    def is_local(self) -> bool:
        """Only this computer reaches it."""
        return is_local(self.bind)

    def knows_host(self, host: str) -> bool:
        """Whether a Host header names this computer.

        A foreign page whose name is made to resolve to this computer (DNS rebinding) is the
        browser's "same origin"; the name in the Host header gives it away. Other computers may use
        an address, which no one can rebind, or this computer's own name.
        """
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match.group(1).strip("[]")
        if name in _LOCAL_NAMES:
            return True
        if name in (*self.names, self.bind.lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not self.is_local

    @staticmethod
    def knows_origin(headers: Mapping[str, str]) -> bool:
        """Whether the browser says that a page of ours asks; programs say nothing.

        A link on a foreign page may open ours (a navigation), and nothing else may.
        """
        origin = headers.get("Origin")
        host = headers.get("Host", "").lower()
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return False
        site = headers.get("Sec-Fetch-Site")
        return (
            site is None or site in _OWN_SITES or headers.get("Sec-Fetch-Mode", "") == "navigate"
        )

    def role_of(self, token: str) -> PageRole | None:
        """What a token lets its bearer do; None for nothing."""
        if not self.operate_token:
            return PageRole.OPERATE
        if same_token(token, self.operate_token):
            return PageRole.OPERATE
        if self.read_token and same_token(token, self.read_token):
            return PageRole.READ
        return None
