# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a set-up adds when asked: LeRobot in its own environment, packages, a torch for GPUs."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from .errors import NoCudaError, UnknownPartError, UnsupportedPythonError
from .run import quiet_output, run, say

# What --with adds, and the folder of its environment; `koch_policy.server.client` looks there.
EXTRAS = {"lerobot": ".venv-lerobot"}
# What --with adds to .venv, and the module by which it is known to work; requirements/extras.txt.
PACKAGES = {
    "hub": ("huggingface-hub", "huggingface_hub"),
    "rerun": ("rerun-sdk", "rerun"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
}
# Of PyTorch's index of processor wheels, which may be let known for a set-up without GPU.
_INDEX_VARIABLES = ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "UV_EXTRA_INDEX_URL")
_CUDA_OF_TORCH = "import torch; print(torch.version.cuda or '')"
# The newest LeRobot wants 3.12; 3.11 and 3.10 take the last one that supports them.
_PYTHONS = ("python3.12", "python3.13", "python3.11", "python3.10")


def parse_with(text: str) -> tuple[str, ...]:
    """Read "lerobot,hub" or "none".

    Raises:
        UnknownPartError: An extra has another name.
    """
    names = sorted({name.strip() for name in text.split(",") if name.strip() not in ("", "none")})
    known = sorted({*EXTRAS, *PACKAGES})
    for name in names:
        if name not in known:
            raise UnknownPartError(name, known, "--with")
    return tuple(names)


def provide(root: Path, name: str, *, force: bool) -> None:
    """Make an extra's environment, or add its package; keep what its requirements have made.

    Args:
        root: Of the repository.
        name: Of the extra.
        force: Make it again.

    Raises:
        UnsupportedPythonError: There is no Python that it could use.
        CommandFailedError: The environment cannot be made, or its packages not be installed.
    """
    if name in PACKAGES:
        _add_package(root, name)
        return
    wanted = root / "requirements" / f"{name}.txt"
    folder = root / EXTRAS[name]
    record, python = folder / "koch_setup", folder / "bin" / "python"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not force and record.is_file() and record.read_text(encoding="utf-8") == digest:
        say(f"koch setup: {name} is there ({folder.name})")
        return
    base = _python()
    say(f"koch setup: making {folder.name} with {base}")
    shutil.rmtree(folder, ignore_errors=True)
    logs = root / "log" / "setup"
    run("python -m venv", [base, "-m", "venv", str(folder)], log=logs / f"venv_{name}.log")
    say(f"      installing {name}: some gigabytes, as it brings a torch of its own")
    pip = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
    run("pip install", [*pip, "-r", str(wanted)], log=logs / f"pip_{name}.log")
    imports = [str(python), "-c", f"import {name}"]
    run(f"import {name}", imports, log=logs / f"import_{name}.log")
    record.write_text(digest, encoding="utf-8")
    say(f"      {name} is there: koch run --runtime {name} finds it")


def _pip(root: Path) -> list[str]:
    """The command that installs into .venv and moves none of the workspace's pins."""
    command = [str(root / ".venv/bin/python"), "-m", "pip", "install", "--progress-bar", "off"]
    for part in sorted((root / "requirements").glob("*.in")):
        if not part.stem.startswith("ros-"):
            command += ["-c", str(part.with_suffix(".txt"))]
    return [*command, "--no-input"]


def pinned(root: Path, package: str, file: str) -> str:
    """The line of a requirement file that pins a package."""
    text = (root / "requirements" / file).read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return next(line for line in lines if line.startswith(f"{package}=="))


def _add_package(root: Path, name: str) -> None:
    package, module = PACKAGES[name]
    requirement = pinned(root, package, "extras.txt")
    say(f"koch setup: adding {requirement}")
    logs = root / "log" / "setup"
    run("pip install", [*_pip(root), requirement], log=logs / f"pip_{name}.log")
    imports = [str(root / ".venv/bin/python"), "-c", f"import {module}"]
    run(f"import {module}", imports, log=logs / f"import_{name}.log")


def provide_gpu(root: Path) -> None:
    """Put the pinned torch with CUDA into .venv, where one for processors only may be.

    Both have the same version, so that pip takes either for the other. An index of processor
    wheels that the environment names is therefore left out of this one step.

    Raises:
        NoCudaError: The index that pip uses has no torch with CUDA, or torch was left out.
        CommandFailedError: pip failed.
    """
    python = str(root / ".venv/bin/python")
    cuda = quiet_output([python, "-c", _CUDA_OF_TORCH])
    if cuda is None:
        raise NoCudaError("torch is not installed; `./koch setup --without none` adds it")
    if not cuda.strip():
        requirement = pinned(root, "torch", "policy.txt")
        say(f"koch setup: installing {requirement} with CUDA: some gigabytes")
        environment = {k: v for k, v in os.environ.items() if k not in _INDEX_VARIABLES}
        logs = root / "log" / "setup"
        again = [*_pip(root), "--no-deps", "--force-reinstall", requirement]
        run("pip install", again, log=logs / "pip_gpu.log", environment=environment)
        needs = [*_pip(root), requirement]
        run("pip install", needs, log=logs / "pip_gpu_needs.log", environment=environment)
        cuda = quiet_output([python, "-c", _CUDA_OF_TORCH]) or ""
    if not cuda.strip():
        raise NoCudaError(
            "pip's configuration gives a torch for processors only; take PyTorch's index of "
            "processor wheels out of it (pip config list)"
        )
    say(f"koch setup: torch has CUDA {cuda.strip()}; koch train --device cuda uses it")
    if shutil.which("nvidia-smi") is None:
        say("      no nvidia-smi here: NVIDIA's driver is missing, or the card")


def _python() -> str:
    """Return the interpreter that gets the newest LeRobot."""
    for candidate in (*_PYTHONS, sys.executable):
        found = shutil.which(candidate)
        # A shim may stand for a version that is not installed.
        if found and quiet_output([found, "-c", "import ensurepip"]) is not None:
            return found
    raise UnsupportedPythonError("none with ensurepip", f"one of {', '.join(_PYTHONS)}")
