# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Isolates a test run: its own DDS domain on loopback, and no parts that this set-up left out."""

import itertools
import os
import random
from collections.abc import Iterator

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
if "KOCH_TEST_DOMAIN" not in os.environ:
    # Kept in the environment, so that child processes of the run share the domain.
    os.environ["KOCH_TEST_DOMAIN"] = str(random.SystemRandom().randint(1, 100))
    os.environ["ROS_DOMAIN_ID"] = os.environ["KOCH_TEST_DOMAIN"]

_domain_steps = itertools.count()

LEFT_OUT = [part for part in os.environ.get("KOCH_WITHOUT", "").split(",") if part]
collect_ignore = [f"src/koch_{part}" for part in LEFT_OUT]


def pytest_report_header() -> list[str]:
    """Say in which surroundings the run took place."""
    home = os.environ.get("KOCH_HOME", "none, PYTHONPATH of the checkout")
    distro = os.environ.get("ROS_DISTRO", "unknown distribution")
    lines = [f"koch: home {home}, ROS 2 {distro}, domain {os.environ.get('ROS_DOMAIN_ID')}"]
    if LEFT_OUT:
        lines.append(f"koch: not tested, left out of this set-up: {', '.join(LEFT_OUT)}")
    return lines


@pytest.fixture(autouse=True, scope="module")
def own_ros_domain() -> Iterator[None]:
    """Give each test module a DDS domain, so that it hears no node that another one left."""
    before = os.environ.get("ROS_DOMAIN_ID")
    # 0 to 101 are the domains whose ports do not clash on Linux; 0 is everybody's default.
    first = int(os.environ["KOCH_TEST_DOMAIN"])
    os.environ["ROS_DOMAIN_ID"] = str((first + next(_domain_steps)) % 101 + 1)
    yield
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before
