# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""No container engine runs here, so the container files are linted and read."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from repository import ROOT

DOCKER = ROOT / "docker"


def compose() -> dict[str, Any]:
    """Return the compose file with its merge keys resolved."""
    content: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    return content


def test_hadolint_has_nothing_to_say() -> None:
    program = Path(sys.executable).with_name("hadolint")
    command = [str(program), str(DOCKER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_distribution_is_an_argument_of_the_base_image() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG ROS_DISTRO=jazzy$", text, re.MULTILINE)
    assert "FROM ros:${ROS_DISTRO}-ros-base" in text


def test_services_build_from_that_file_and_run_known_verbs() -> None:
    services = compose()["services"]
    assert set(services) == {"sim", "robot", "test"}
    for service in services.values():
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["build"]["args"]["ROS_DISTRO"] == "${ROS_DISTRO:-jazzy}"
        assert service["command"][0] in {"up", "test"}


def test_files_that_the_image_names_exist() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    for name in re.findall(r'"/koch_vla/([\w./]+)"', text):
        assert (ROOT / name).is_file()
    assert (DOCKER / "entrypoint.sh").stat().st_mode & 0o111
    assert (ROOT / ".dockerignore").is_file()


def test_entrypoint_is_valid_shell() -> None:
    for path in (DOCKER / "entrypoint.sh", ROOT / "koch", ROOT / ".ci" / "run"):
        subprocess.run(["sh", "-n", str(path)], check=True, timeout=10)
