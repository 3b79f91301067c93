# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of graphics: a GPU for training, EGL for the simulated cameras."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from koch_vla.doctor import egl_probe
from koch_vla.doctor.finding import Finding, ok, warn

EGL_FIX = "sudo apt install libegl1 libgl1-mesa-dri   (or set MUJOCO_GL=osmesa with libosmesa6)"
DRIVER_TIMEOUT_S = 20.0


def check_gpu() -> Iterator[Finding]:
    """An NVIDIA device, which training uses; everything also runs without one."""
    driver = Path("/proc/driver/nvidia/version")
    if not driver.is_file():
        yield ok("gpu", "none; training and policies run on the processor")
        return
    version = driver.read_text().splitlines()[0].partition("Module")[2].split() or ["?"]
    names = []
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = dict(
            line.split(":", 1) for line in information.read_text().splitlines() if ":" in line
        )
        names.append(lines.get("Model", "?").strip())
    yield ok("gpu", f"{', '.join(names) or 'NVIDIA'}, driver {version[0]}")


def check_egl() -> Iterator[Finding]:
    """Can images be drawn without a screen? In a process of its own: drivers may crash."""
    try:
        answer = subprocess.run(
            [sys.executable, "-I", egl_probe.__file__],
            capture_output=True,
            text=True,
            timeout=DRIVER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield warn("egl", f"the driver hung for {DRIVER_TIMEOUT_S:.0f} s", EGL_FIX)
        return
    if answer.returncode == 0:
        yield ok("egl", answer.stdout.strip())
        return
    reason = (answer.stderr.strip().splitlines() or [f"ended with {answer.returncode}"])[-1]
    yield warn("egl", f"simulated cameras cannot draw: {reason}", EGL_FIX)
