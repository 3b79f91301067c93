# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Builds the workspace with colcon, as a ROS user would."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .digest import source_roots
from .environment import build_environment, in_virtual_environment
from .errors import SetupError
from .options import Options
from .run import quiet_output, run, say

_LAYOUT = "merged"
_CHECK = "import rclpy, koch_interfaces.msg, control_msgs.action, tf2_msgs.msg"


def build(root: Path, options: Options, python: Path) -> None:
    """Build every package below src/, and the overlay where ROS does not bring it.

    Raises:
        SetupError: colcon is missing.
        CommandFailedError: A package does not build.
    """
    _drop_other_layout(root)
    environment = build_environment(root, options.home, os.environ)
    colcon = root / ".venv" / "bin" / "colcon"
    if options.home == "ros":
        found = shutil.which("colcon", path=environment["PATH"])
        # Our interpreter runs it, which does not see the packages of another environment.
        if found is None or in_virtual_environment(Path(found)):
            raise SetupError(
                "colcon is missing beside the sourced ROS; install it:\n"
                "  sudo apt-get install -y python3-colcon-common-extensions"
            )
        colcon = Path(found)
    # Run by our interpreter, so that the executables' first lines name it.
    command = [str(python), str(colcon), "build", "--symlink-install", "--merge-install"]
    command += ["--base-paths", *(str(path) for path in source_roots(root, options))]
    command += ["--metas", str(root / "colcon.meta")]
    command += ["--event-handlers", "console_direct-", "console_cohesion+"]
    if options.skipped_packages:
        command += ["--packages-skip", *options.skipped_packages]
    command += ["--cmake-args", f"-DPython3_EXECUTABLE={python}", "-DBUILD_TESTING=OFF"]
    command += ["--no-warn-unused-cli"]
    run(
        "colcon build",
        command,
        log=root / "log" / "setup" / "colcon.log",
        environment=environment,
        cwd=root,
        show=_colcon_progress,
    )
    make_importable(root, site_folder(python))


def site_folder(python: Path) -> Path:
    """Where the environment of an interpreter keeps its packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(quiet_output([str(python), "-c", code]) or "")


def make_importable(root: Path, site: Path) -> Path:
    """Let `.venv/bin/python` import the workspace by itself, for notebooks and editors.

    Args:
        root: The checkout.
        site: `site-packages` of the environment.

    Returns:
        The file that Python reads at its start.
    """
    installed = root / "install" / "/".join(site.parts[-3:])  # lib/python3.x/site-packages
    # With --symlink-install a package stays in its build folder, and a link tells where.
    links = sorted(installed.glob("*.egg-link"))
    folders = [link.read_text(encoding="utf-8").splitlines()[0].strip() for link in links]
    path = site / "koch_workspace.pth"
    path.write_text("".join(f"{folder}\n" for folder in [*folders, installed]), encoding="utf-8")
    return path


def check(root: Path, options: Options, python: Path) -> None:
    """Import what was built, in the environment that ./koch gives to the nodes.

    Raises:
        CommandFailedError: An import failed.
    """
    code = _CHECK if options.home == "bare" else "import rclpy, koch_interfaces.msg"
    environment = build_environment(root, options.home, os.environ)
    site = "lib/python{}.{}/site-packages".format(*sys.version_info[:2])
    folders = {"PYTHONPATH": site, "LD_LIBRARY_PATH": "lib", "AMENT_PREFIX_PATH": ""}
    for name, folder in folders.items():
        before = environment.get(name)
        paths = [str(root / "install" / folder), *([before] if before else [])]
        environment[name] = os.pathsep.join(paths)
    log = root / "log" / "setup" / "check.log"
    command = [str(python), "-c", code]
    run("importing rclpy and the messages", command, log=log, environment=environment)


def _drop_other_layout(root: Path) -> None:
    """Remove a build of the other layout, which colcon refuses to continue."""
    marker = root / "install" / ".colcon_install_layout"
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() != _LAYOUT:
        say("      removing build and install: made with another install layout")
        for name in ("build", "install"):
            shutil.rmtree(root / name)


def _colcon_progress(line: str) -> str | None:
    shown = ("Starting >>>", "Finished <<<", "Failed   <<<", "Aborted  <<<", "Summary:")
    return line if line.startswith(shown) else None
