# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of talking to a running graph; every leaf builds its own message."""

from __future__ import annotations

from koch_core.errors import KochError


class NoAnswerError(KochError):
    """A service or action of a running graph does not answer."""

    def __init__(self, what: str, waited_s: float) -> None:
        super().__init__(
            f"{what} did not answer within {waited_s:.0f} s. Does its node run (koch up --list "
            "names them), and on the same ROS_DOMAIN_ID?"
        )


class ClockSilentError(KochError):
    """The nodes of the graph live by /clock, which stands still."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"The nodes of this graph follow /clock, but nothing was published there for "
            f"{waited_s:.0f} s. Does the simulation run that gives them their time?"
        )


class RefusedError(KochError):
    """A service of a running graph answered that it could not."""

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(f"service {service} refused: {message}")
