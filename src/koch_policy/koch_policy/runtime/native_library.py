# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles `resnet.c` at the first use and describes its structures.

The library is kept in the user's cache folder, under a hash of the source and of the processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger(__name__)
_SOURCE = Path(__file__).with_name("resnet.c")
_HEADERS = [_SOURCE.with_name(name) for name in ("resnet.h", "direct.h", "winograd.h")]
_FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC", "-pthread",
)  # fmt: skip

_Pointer = ctypes.c_void_p


class MapDescription(ctypes.Structure):
    """`Map` of the C file."""

    _fields_ = (
        ("data", _Pointer),
        *((name, ctypes.c_long) for name in (
            "height", "width", "channels", "border", "rows", "columns")),
    )  # fmt: skip


class LayerDescription(ctypes.Structure):
    """`Layer` of the C file."""

    _fields_ = (
        ("kind", ctypes.c_long),
        *((name, _Pointer) for name in (
            "input", "output", "residual", "weight", "bias", "scale", "moments")),
        *((name, ctypes.c_long) for name in ("side", "stride", "pad", "relu", "pooled")),
    )  # fmt: skip


class Program(ctypes.Structure):
    """`Program` of the C file."""

    _fields_ = (
        ("layers", _Pointer),
        *((name, ctypes.c_long) for name in ("count", "images", "threads", "scratch_size")),
        ("scratch", _Pointer), ("taken", _Pointer), ("arrived", ctypes.c_long),
    )  # fmt: skip


@functools.lru_cache(maxsize=2)
def native_library(precision: str) -> Any | None:
    """Return the library compiled for "f32" or "bf16", or None where it cannot be had."""
    if platform.system() != "Linux":
        return None
    compiler = shutil.which("cc")
    if compiler is None:
        _warn("there is no C compiler `cc`")
        return None
    flags = [*_FLAGS, *(["-DBF16"] if precision == "bf16" else [])]
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "koch_policy"
    target = home / f"resnet-{_machine_key(flags)}.so"
    try:
        if not target.is_file():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home) as folder:
                made = Path(folder) / "resnet.so"
                command = [compiler, *flags, str(_SOURCE), "-o", str(made)]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                made.replace(target)
        library = ctypes.CDLL(str(target))
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.decode(errors="replace").strip()
        if "#error" not in said:  # the source itself refuses processors that gain nothing
            _warn(f"`cc` cannot compile {_SOURCE.name} ({said[:300] or 'it says nothing'})")
        return None
    except (OSError, subprocess.SubprocessError) as exc:
        _warn(f"{_SOURCE.name} cannot be compiled and loaded ({exc})")
        return None
    library.koch_panel.restype = library.koch_has_bytes.restype = ctypes.c_long
    library.koch_run.restype = None
    return library


@functools.lru_cache
def _warn(reason: str) -> None:
    """Say once why cameras take longer than they need to."""
    _LOGGER.warning(
        "Camera networks run in OpenVINO, slower than they could: %s. "
        "Install a C compiler, on Debian and Ubuntu by `sudo apt install g++`.",
        reason,
    )


def _machine_key(flags: Sequence[str]) -> str:
    """Return a hash of the source, the flags and what the processor can do."""
    digest = hashlib.sha256(repr(flags).encode())
    for file in (_SOURCE, *_HEADERS):
        digest.update(file.read_bytes())
    digest.update(platform.machine().encode())
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    able = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    digest.update("".join(able[:2]).encode())
    return digest.hexdigest()[:16]
