# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The virtual environment: made, filled with the pinned wheels, and its wheels repaired."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .digest import data_requirements, requirement_files
from .errors import UnsupportedPythonError
from .options import Options, Record
from .repair import repair_wheels
from .run import quiet_output, run, say

# The ROS wheels exist for these; a sourced ROS brings its own Python, which may be newer.
_BARE_PYTHONS = ((3, 10), (3, 13))
# Requirements that ROS packages satisfy, and the module that shows it.
_ROS_CARRIES = {
    "dynamixel-sdk": "dynamixel_sdk",
    "opencv-python-headless": "cv2",
    "pin": "pinocchio",
    "pyserial": "serial",
    "xacro": "xacro",
}
_INCLUDES = (
    "import numpy, sysconfig; "
    "print(sysconfig.get_paths()['include'], numpy.get_include(), sep='\\n')"
)


def check_python(options: Options) -> None:
    """Refuse a Python that the ROS wheels do not exist for.

    Raises:
        UnsupportedPythonError: This interpreter is outside the range.
    """
    version = sys.version_info[:2]
    low, high = _BARE_PYTHONS
    if options.home == "bare" and not low <= version <= high:
        raise UnsupportedPythonError(
            "{}.{}".format(*version), "{}.{} to {}.{}".format(*low, *high)
        )


def make_environment(root: Path, options: Options, record: Record | None) -> Path:
    """Make .venv, or keep the present one where it still fits.

    Returns:
        The environment's interpreter.
    """
    folder = root / ".venv"
    python = folder / "bin" / "python"
    version = "{}.{}".format(*sys.version_info[:2])
    code = "import sys; print('{}.{}'.format(*sys.version_info[:2]))"
    found = quiet_output([str(python), "-c", code])
    old = record.options if record is not None else None
    other = old is not None and (old.home, old.distro) != (options.home, options.distro)
    if found == version and not other:
        say(f"      .venv with Python {version} is there")
        return python
    if folder.exists():
        say("      removing .venv, build and install: made for another Python or ROS")
        for name in (".venv", "build", "install"):
            shutil.rmtree(root / name, ignore_errors=True)
    say(f"      making .venv with Python {version}")
    command = [sys.executable, "-m", "venv", str(folder)]
    if options.home == "ros":
        command.append("--system-site-packages")
    run("python -m venv", command, log=root / "log" / "setup" / "venv.log")
    return python


def install_wheels(root: Path, options: Options, python: Path) -> None:
    """Install the requirements of these options.

    Raises:
        CommandFailedError: pip failed.
    """
    files = requirement_files(root, options)
    say(f"      installing {', '.join(path.stem for path in files)}")
    pip = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
    command = list(pip)
    if options.home == "ros":
        command += beside_ros(root, files, python)
    else:
        for path in files:
            command += ["-r", str(path)]
    run("pip install", command, log=root / "log" / "setup" / "pip.log", show=_pip_progress)
    for path in data_requirements(root, options):
        say(f"      installing {path.stem}")
        command = [*pip, "--no-deps", "-r", str(path)]
        run("pip install", command, log=root / "log" / "setup" / "pip_data.log")


def repair(root: Path, python: Path) -> None:
    """Repair the CMake files of the ROS wheels; they need this machine's include folders."""
    output = quiet_output([str(python), "-c", _INCLUDES])
    if output is None:
        raise UnsupportedPythonError("without numpy", "the numpy of requirements/base.txt")
    python_include, numpy_include = output.splitlines()
    changed = repair_wheels(root / ".venv", python_include, numpy_include)
    say(f"      {len(changed)} CMake files of the ROS wheels repaired")


def beside_ros(root: Path, files: list[Path], python: Path) -> list[str]:
    """Return pip's arguments for the packages that a sourced ROS does not bring.

    numpy stays at the version that ROS was compiled against; what ROS packages carry without
    telling pip (Pinocchio, the servo SDK) is left out where it can be imported.
    """
    names = []
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        names += [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    modules = {name: _ROS_CARRIES[name] for name in names if name in _ROS_CARRIES}
    carried = {name for name, module in modules.items() if _importable(python, module)}
    folder = root / "log" / "setup"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    text = "".join(f"{name}\n" for name in names if name not in carried)
    wanted.write_text(text, encoding="utf-8")
    version = quiet_output([str(python), "-c", "import numpy; print(numpy.__version__)"])
    held = folder / "constraints.txt"
    held.write_text(f"numpy=={version}\n" if version else "", encoding="utf-8")
    return ["-r", str(wanted), "-c", str(held)]


def _importable(python: Path, module: str) -> bool:
    return quiet_output([str(python), "-c", f"import {module}"]) is not None


def _pip_progress(line: str) -> str | None:
    if line.startswith("Installing collected packages:"):
        return f"unpacking {line.count(',') + 1} packages"
    return None
