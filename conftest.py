# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Isolates a test run: its own DDS domain on loopback, and no parts that this set-up left out."""

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
# In the environment, so that the workers of a run share the first domain.
os.environ.setdefault("KOCH_TEST_DOMAIN", str(random.SystemRandom().randrange(101)))

# The workers of a run take turns.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_modules = itertools.count()


# Above 101 the ports of a domain may clash with those that Linux gives to clients; 0 is
# everybody's default. Runs at the same time have their own, see tests/everything.py.
_FIRST, _LAST = map(int, os.environ.get("KOCH_TEST_DOMAINS", "1-101").split("-"))


def _next_domain() -> str:
    """A DDS domain that no test module near this one has."""
    place = int(os.environ["KOCH_TEST_DOMAIN"]) + next(_modules) * _WORKERS + _WORKER
    return str(_FIRST + place % (_LAST - _FIRST + 1))


os.environ["ROS_DOMAIN_ID"] = _next_domain()

LEFT_OUT = [part for part in os.environ.get("KOCH_WITHOUT", "").split(",") if part]
collect_ignore = [f"src/koch_{part}" for part in LEFT_OUT]


# Pythons that have lerobot, separated as in PATH. LeRobot is never a dependency.
LEROBOTS = [path for path in os.environ.get("KOCH_LEROBOT_PYTHON", "").split(os.pathsep) if path]


@pytest.fixture(scope="session", params=LEROBOTS or [""])
def lerobot_python(request: pytest.FixtureRequest) -> str:
    """Each Python that KOCH_LEROBOT_PYTHON names, one after the other."""
    python = str(request.param)
    if not python:
        pytest.skip("KOCH_LEROBOT_PYTHON names no Python with lerobot")
    if not Path(python).exists():
        pytest.fail(f"KOCH_LEROBOT_PYTHON names {python!r}, which is not there")
    return python


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
    before = os.environ["ROS_DOMAIN_ID"]
    os.environ["ROS_DOMAIN_ID"] = _next_domain()
    yield
    os.environ["ROS_DOMAIN_ID"] = before


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Leave the environment as it was: a namespace that one test chose deafens all after it."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


def pytest_collection_finish() -> None:
    """Spare what collecting made from the garbage collector.

    Its rounds over 500 000 objects stop all threads for up to a second; emulated servos that live
    in this process then miss a hundred cycles.
    """
    from koch_core.realtime import spare_from_collection

    spare_from_collection()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the checkers: one of them takes longest of all."""
    items.sort(key=lambda item: item.path.name != "test_checks.py")
