# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine itself: Python, compiler, processor, memory, clock, disk, extras."""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from koch_vla.doctor.finding import Finding, fail, ok, warn

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 14)
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
EARLIEST_YEAR = 2025
WRITE_BYTES = 48 * 2**20
# Two cameras' MJPEG at 30 Hz and joint states make 4 to 8 MB/s; the rest is room for video.
FAST_MB_S, SLOW_MB_S = 50.0, 15.0
ROOMY_GB, TIGHT_GB = 10.0, 2.0


def check_python() -> Iterator[Finding]:
    """The interpreter that runs this."""
    version = sys.version_info[:3]
    text = f"{platform.python_version()} ({sys.executable})"
    if version[:2] < OLDEST_PYTHON:
        yield fail("python", text, "Install Python 3.10 or newer, then run ./koch setup again.")
    elif version[:2] > NEWEST_PYTHON:
        yield warn("python", f"{text}: not tried with this suite", "Use Python 3.10 to 3.14.")
    else:
        yield ok("python", text)


def check_compiler() -> Iterator[Finding]:
    """The C++ compiler that builds the messages."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path is None:
            continue
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        yield ok("compiler", (answer.stdout.splitlines() or [path])[0])
        return
    yield warn(
        "compiler",
        "no C++ compiler; ./koch setup needs one to build the messages",
        "sudo apt install g++",
    )


def check_processor() -> Iterator[Finding]:
    """Vector instructions, cores and memory."""
    cores = len(os.sched_getaffinity(0))
    flags = _cpu_flags()
    vector = [name for name in ("avx2", "fma", "avx512f", "amx_tile", "asimd") if name in flags]
    text = f"{platform.machine()}, {cores} cores, {' '.join(vector) or 'no vector extensions'}"
    if cores < 2:
        yield warn(
            "processor", text, "Use two cores or more: cameras and policy run side by side."
        )
    elif platform.machine() == "x86_64" and "avx2" not in flags:
        yield warn(
            "processor", text, "Expect slow policies: no AVX2. Let another machine run them."
        )
    else:
        yield ok("processor", text)
    total_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if total_gb < 3.5:
        yield warn("memory", f"{total_gb:.1f} GB", "Train on a machine with 4 GB or more.")
    else:
        yield ok("memory", f"{total_gb:.1f} GB")


def check_fastconv() -> Iterator[Finding]:
    """The extra for camera images on this processor; its absence is no fault."""
    try:
        module = importlib.import_module("koch_fastconv")
    except ImportError:
        yield ok("fastconv", "absent: OpenVINO computes all of a policy")
        return
    try:
        yield ok("fastconv", str(module.load()))
    except (ImportError, OSError) as error:
        yield warn(
            "fastconv",
            f"cannot be loaded ({error}): OpenVINO does its work, slower",
            "./koch setup --force, or delete src/koch_fastconv",
        )


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    for line in text.splitlines():
        if line.lower().startswith(("flags", "features")):
            return set(line.partition(":")[2].split())
    return set()


def check_clock() -> Iterator[Finding]:
    """Is the wall clock right and disciplined? Else stamps of two machines cannot be compared."""
    year = time.gmtime().tm_year
    if year < EARLIEST_YEAR:
        yield fail(
            "clock", f"it is said to be {year}", "Set the time: sudo timedatectl set-ntp true"
        )
        return
    library = ctypes.CDLL(None, use_errno=True)
    # struct timex is 208 bytes long on 64-bit Linux; modes = 0 only reads.
    state = library.adjtimex(ctypes.create_string_buffer(512))
    if state == TIME_ERROR:
        yield warn(
            "clock",
            "not synchronised; enough for one machine, not for two",
            "sudo timedatectl set-ntp true   (or install chrony)",
        )
    elif state < 0:
        yield warn(
            "clock",
            "the kernel does not say whether it is synchronised",
            "Compare with another clock before you join two machines.",
        )
    else:
        yield ok("clock", "synchronised")


def check_disk(folder: Path) -> Iterator[Finding]:
    """Free room and writing speed where episodes go."""
    try:
        free_gb = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        yield fail(
            "disk room", f"{folder}: {error.strerror}", "Make the folder, or name another: --root."
        )
        return
    text = f"{free_gb:.1f} GB free in {folder}"
    advice = "Free some room, or record to another disk: koch record --root DIR."
    yield _graded("disk room", text, advice, free_gb, TIGHT_GB, ROOMY_GB)
    try:
        speed = write_speed(folder)
    except OSError as error:
        yield fail("disk speed", f"cannot write to {folder}: {error.strerror}", advice)
        return
    text = f"{speed:.0f} MB/s into {folder}"
    advice = "Record to a faster disk (an SSD), or with fewer or smaller cameras."
    yield _graded("disk speed", text, advice, speed, SLOW_MB_S, FAST_MB_S)


def _graded(
    check: str, text: str, advice: str, value: float, least: float, enough: float
) -> Finding:
    """A finding by a value: too little, little, or enough."""
    if value >= enough:
        return ok(check, text)
    return fail(check, text, advice) if value < least else warn(check, text, advice)


def write_speed(folder: Path, size_bytes: int = WRITE_BYTES) -> float:
    """Write a file through to the disk and return the speed in [MB/s].

    Raises:
        OSError: The folder cannot be written to.
    """
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(max(1, size_bytes // len(block))):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return size_bytes / 1e6 / (time.perf_counter() - started)
