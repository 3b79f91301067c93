# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of what is plugged in: serial adapters of the arms, and cameras."""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Iterator
from pathlib import Path

from koch_vla.doctor.finding import Finding, fail, ok, warn
from koch_vla.paths import find_shared

RULES = "99-koch.rules"
RULE_FOLDERS = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d")
FAST_LATENCY_MS = 1


def serial_ports(root: Path = Path("/")) -> list[Path]:
    """List the devices of USB serial adapters."""
    devices = root / "dev"
    return sorted(p for kind in ("ttyACM", "ttyUSB") for p in devices.glob(f"{kind}*"))


def check_ports(root: Path = Path("/")) -> Iterator[Finding]:
    """Adapters, the right to open them, their stable names and their latency timers."""
    ports = serial_ports(root)
    if not ports:
        yield warn(
            "ports",
            "no USB serial adapter is plugged in",
            "Plug in the arms and their power supplies. The simulated rig needs none.",
        )
        return
    names = _stable_names(root)
    for port in ports:
        yield _check_port(port, names.get(port.name))
        latency = root / "sys/bus/usb-serial/devices" / port.name / "latency_timer"
        if latency.is_file():
            yield _check_latency(port, latency)
    yield _check_rules()


def _stable_names(root: Path) -> dict[str, Path]:
    return {
        Path(os.readlink(link)).name: link
        for link in sorted((root / "dev/serial/by-id").glob("*"))
        if link.is_symlink()
    }


def _check_port(port: Path, stable: Path | None) -> Finding:
    check = f"port {port.name}"
    if not os.access(port, os.R_OK | os.W_OK):
        group = _group_of(port)
        return fail(
            check,
            f"no permission to open {port}",
            f"sudo usermod -aG {group} $USER, then log out and in again",
        )
    if stable is None:
        return warn(
            check,
            f"{port} has no name under /dev/serial/by-id, so it may change at the next plug-in",
            f"Install the udev rules: {_install_rules()}",
        )
    return ok(check, f"{stable} can be opened")


def _group_of(port: Path) -> str:
    try:
        return grp.getgrgid(port.stat().st_gid).gr_name
    except KeyError:
        return "dialout"


def _check_latency(port: Path, latency: Path) -> Finding:
    """FTDI chips hold back short answers for this time, by default 16 ms: 60 cycles/s at most."""
    check = f"latency {port.name}"
    text = latency.read_text().strip()
    if text.isdigit() and int(text) <= FAST_LATENCY_MS:
        return ok(check, f"{text} ms")
    return fail(
        check,
        f"{text} ms: each bus cycle waits for so long",
        f"echo {FAST_LATENCY_MS} | sudo tee {latency}   (for good: {_install_rules()})",
    )


def _install_rules() -> str:
    source = find_shared(f"config/udev/{RULES}") or f"config/udev/{RULES}"
    return (
        f"sudo cp {source} /etc/udev/rules.d/ && sudo udevadm control --reload "
        "&& sudo udevadm trigger"
    )


def _check_rules() -> Finding:
    for folder in RULE_FOLDERS:
        if (Path(folder) / RULES).is_file():
            return ok("udev rules", f"{folder}/{RULES}")
    return warn("udev rules", f"{RULES} is not installed", _install_rules())


def check_cameras(root: Path = Path("/")) -> Iterator[Finding]:
    """Video devices, the right to open them, and their modes."""
    devices = sorted(
        (root / "dev").glob("video*"), key=lambda p: int(re.sub(r"\D", "", p.name) or 0)
    )
    if not devices:
        yield warn(
            "cameras",
            "no /dev/video*",
            "Plug in a USB camera. The simulated rig serves its own images.",
        )
        return
    for device in devices:
        if not os.access(device, os.R_OK | os.W_OK):
            yield fail(
                f"camera {device.name}",
                f"no permission to open {device}",
                f"sudo usermod -aG {_group_of(device)} $USER, then log out and in again",
            )
            continue
        yield _check_modes(device)


def _check_modes(device: Path) -> Finding:
    check = f"camera {device.name}"
    try:
        from koch_cameras.errors import CameraError
        from koch_cameras.v4l2.device import Device
        from koch_cameras.v4l2.kernel import LinuxKernel
    except ImportError as error:
        return warn(check, f"modes unknown: {error}", "Run ./koch setup with koch_cameras.")
    try:
        camera = Device(str(device), LinuxKernel())
        try:
            identity, modes = camera.identity(), camera.modes()
        finally:
            camera.close()
    except CameraError as error:
        return warn(check, str(error), "Close the program that uses it, or try another USB port.")
    if not identity.captures:
        return ok(check, f"{identity.card}: no images here (metadata or output device)")
    offered = "; ".join(str(mode) for mode in modes[:6]) + (" ..." if len(modes) > 6 else "")
    if all(mode.fourcc != "MJPG" for mode in modes):
        return warn(
            check,
            f"{identity.card}: {offered}",
            "No MJPG mode: images are encoded on the processor. Prefer a camera with MJPG.",
        )
    return ok(check, f"{identity.card}: {offered}")
