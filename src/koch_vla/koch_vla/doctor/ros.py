# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of ROS 2: which home, which distribution, middleware, domain, discovery, messages."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from importlib import metadata

from koch_vla.doctor.finding import Finding, fail, ok, warn

SETUP = "Run ./koch setup, or source your ROS 2 and this workspace: . install/local_setup.bash"
# Version of rclpy by distribution. Source: the distribution files of github.com/ros/rosdistro.
DISTRIBUTIONS = {"7.1": "jazzy", "9.1": "kilted", "10.": "lyrical or rolling"}
NEEDED_MESSAGES = ("std_msgs", "sensor_msgs", "geometry_msgs", "tf2_msgs", "koch_interfaces")
OPTIONAL_PACKAGES = ("launch_ros", "rosbag2_py", "rviz2", "robot_state_publisher", "moveit")
# Above this the ports of Fast DDS and Cyclone DDS reach Linux's ephemeral range.
# Source: https://docs.ros.org/en/kilted/Concepts/Intermediate/About-Domain-ID.html
HIGHEST_DOMAIN = 101
SHARED_MEMORY_MB = 64.0


def check_home() -> Iterator[Finding]:
    """Which ROS 2 there is: a sourced one, the wheels of the bare home, or none."""
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        yield fail("ros", f"rclpy cannot be imported ({error})", SETUP)
        return
    try:
        wheel = metadata.version("ros-rclpy")
    except metadata.PackageNotFoundError:
        distribution = os.environ.get("ROS_DISTRO", "")
        if distribution:
            yield ok("ros", f"ROS home, {distribution}")
        else:
            yield warn("ros", "rclpy without ROS_DISTRO", "Source your ROS 2's setup.bash.")
        return
    name = next((d for v, d in DISTRIBUTIONS.items() if wheel.startswith(v)), "unknown")
    yield ok("ros", f"bare home, rclpy {wheel} ({name}) from wheels")


def check_middleware() -> Iterator[Finding]:
    """The RMW that rclpy loads."""
    try:
        rclpy = importlib.import_module("rclpy")
        name = str(rclpy.get_rmw_implementation_identifier())
    except ImportError:
        return  # check_home has said it
    except RuntimeError as error:
        asked = os.environ.get("RMW_IMPLEMENTATION", "")
        yield fail("rmw", f"RMW_IMPLEMENTATION={asked}: {error}", "unset RMW_IMPLEMENTATION")
        return
    yield ok("rmw", name)


def check_domain() -> Iterator[Finding]:
    """Domain number and how far discovery reaches."""
    text = os.environ.get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdigit() or int(text) > 232:
        yield fail("domain", f"ROS_DOMAIN_ID={text}", "Choose one from 0 to 101.")
    elif int(text) > HIGHEST_DOMAIN:
        yield warn("domain", f"ROS_DOMAIN_ID={text}: ports may clash", "Choose one from 0 to 101.")
    else:
        yield ok("domain", f"ROS_DOMAIN_ID={text}")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET").upper()
    local = os.environ.get("ROS_LOCALHOST_ONLY", "0") == "1"
    if reach not in ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT"):
        yield fail(
            "discovery",
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach}",
            "Choose SUBNET, LOCALHOST, OFF or SYSTEM_DEFAULT.",
        )
    elif local or reach in ("LOCALHOST", "OFF"):
        yield ok("discovery", "this machine only" if reach != "OFF" else "off, static peers only")
    else:
        yield warn(
            "discovery",
            "every machine of the subnet hears, and can command, this robot",
            "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST unless you want that.",
        )


def check_shared_memory() -> Iterator[Finding]:
    """Room in /dev/shm, through which Fast DDS moves images."""
    try:
        free_mb = shutil.disk_usage("/dev/shm").free / 1e6
    except OSError:
        yield warn("shared memory", "no /dev/shm", "Mount a tmpfs there, or expect slow images.")
        return
    text = f"{free_mb:.0f} MB free in /dev/shm"
    if free_mb < SHARED_MEMORY_MB:
        yield warn("shared memory", text, "docker run --shm-size 512m, or remove old files there.")
    else:
        yield ok("shared memory", text)


def check_messages() -> Iterator[Finding]:
    """Can the messages be imported?"""
    missing = []
    for name in NEEDED_MESSAGES:
        try:
            importlib.import_module(f"{name}.msg")
        except ImportError:
            missing.append(name)
    if missing:
        yield fail("messages", f"missing: {', '.join(missing)}", SETUP)
    else:
        yield ok("messages", ", ".join(NEEDED_MESSAGES))


def check_companions() -> Iterator[Finding]:
    """ROS packages that the suite uses where they are present; their absence is no fault."""
    from koch_vla.paths import package_prefix

    present = [name for name in OPTIONAL_PACKAGES if package_prefix(name) is not None]
    absent = [name for name in OPTIONAL_PACKAGES if name not in present]
    parts = [f"present: {', '.join(present)}"] if present else []
    parts += [f"absent, own means used: {', '.join(absent)}"] if absent else []
    yield ok("companions", "; ".join(parts))
