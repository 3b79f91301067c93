# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor: findings with fixes, on this machine and on made-up ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from koch_vla.doctor import check_rig, devices, main, ros, system
from koch_vla.doctor.finding import Finding, Status


def test_a_finding_that_is_not_ok_must_name_a_fix():
    with pytest.raises(ValueError, match="names no fix"):
        Finding("x", Status.WARN, "bad")


def test_json_holds_every_check_and_the_exit_code_follows_it(capsys, tmp_path):
    code = main(["--json", "--root", str(tmp_path)])
    findings = json.loads(capsys.readouterr().out)
    assert {
        "python",
        "compiler",
        "processor",
        "fastconv",
        "clock",
        "disk speed",
        "ros",
        "domain",
        "discovery",
        "ports",
        "cameras",
        "gpu",
        "egl",
    } <= {f["check"].split("/")[0] for f in findings}
    assert all(f["fix"] for f in findings if f["status"] != "OK")
    assert code == int(any(f["status"] == "FAIL" for f in findings))


def test_it_runs_without_ros_and_without_a_rig(tmp_path):
    """A Python that sees only our sources: no site-packages, no rclpy, no numpy."""
    ours = ("/src/koch_vla", "/src/koch_rig", "/src/koch_core", "/src/koch_ros")
    sources = [p for p in sys.path if p.endswith(ours)]
    answer = subprocess.run(
        [sys.executable, "-S", "-m", "koch_vla", "doctor"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sources)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1, answer.stderr
    assert "FAIL  ros " in answer.stdout
    assert "./koch setup" in answer.stdout
    assert answer.stderr == ""


def plug(root, name, latency_ms=None, stable=True, mode=0o666):
    """Make a serial adapter in a made-up file system."""
    device = root / "dev" / name
    device.parent.mkdir(parents=True, exist_ok=True)
    device.touch()
    device.chmod(mode)
    if stable:
        link = root / "dev/serial/by-id" / f"usb-FTDI-{name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../{name}")
    if latency_ms is not None:
        timer = root / "sys/bus/usb-serial/devices" / name / "latency_timer"
        timer.parent.mkdir(parents=True)
        timer.write_text(f"{latency_ms}\n")


def found(findings):
    return {f.check: f for f in findings}


def test_a_slow_ftdi_adapter_is_a_failure_with_the_command_that_mends_it(tmp_path):
    plug(tmp_path, "ttyUSB0", latency_ms=16)
    plug(tmp_path, "ttyUSB1", latency_ms=1)
    findings = found(devices.check_ports(tmp_path))
    assert findings["latency ttyUSB0"].status is Status.FAIL
    assert "16 ms" in findings["latency ttyUSB0"].message
    assert "latency_timer" in findings["latency ttyUSB0"].fix
    assert findings["latency ttyUSB1"].status is Status.OK
    assert findings["port ttyUSB0"].status is Status.OK
    assert "by-id/usb-FTDI-ttyUSB0" in findings["port ttyUSB0"].message


def test_an_adapter_without_a_stable_name_is_a_warning(tmp_path):
    plug(tmp_path, "ttyACM0", stable=False)
    finding = found(devices.check_ports(tmp_path))["port ttyACM0"]
    assert finding.status is Status.WARN
    assert "99-koch.rules" in finding.fix


def test_a_port_without_permission_is_a_failure(tmp_path, monkeypatch):
    plug(tmp_path, "ttyACM0", mode=0o000)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open everything
    finding = found(devices.check_ports(tmp_path))["port ttyACM0"]
    assert finding.status is Status.FAIL
    assert "usermod -aG" in finding.fix


def test_no_adapter_and_no_camera_are_warnings(tmp_path):
    for check in (devices.check_ports, devices.check_cameras):
        (finding,) = check(tmp_path)
        assert finding.status is Status.WARN


def test_the_extra_may_be_absent_and_a_broken_one_is_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "koch_fastconv", None)  # as if its folder were deleted
    (finding,) = system.check_fastconv()
    assert finding.status is Status.OK
    assert "absent" in finding.message

    def load():
        raise OSError("libkoch_fastconv.so: cannot open")

    monkeypatch.setitem(sys.modules, "koch_fastconv", SimpleNamespace(load=load))
    (finding,) = system.check_fastconv()
    assert finding.status is Status.WARN
    assert "cannot open" in finding.message
    assert "./koch setup --force" in finding.fix


@pytest.mark.parametrize(
    ("domain", "reach", "statuses"),
    [
        ("7", "LOCALHOST", [Status.OK, Status.OK]),
        ("", "", [Status.OK, Status.FAIL]),
        ("", "SUBNET", [Status.OK, Status.WARN]),
        ("150", "OFF", [Status.WARN, Status.OK]),
        ("233", "localhost", [Status.FAIL, Status.OK]),
        ("seven", "nearby", [Status.FAIL, Status.FAIL]),
    ],
)
def test_domain_and_discovery(monkeypatch, domain, reach, statuses):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", reach)
    monkeypatch.delenv("ROS_LOCALHOST_ONLY", raising=False)
    assert [finding.status for finding in ros.check_domain()] == statuses


def test_an_old_python_is_a_failure(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 1))
    (finding,) = system.check_python()
    assert finding.status is Status.FAIL


def test_write_speed_is_measured_and_leaves_nothing(tmp_path):
    assert system.write_speed(tmp_path, 2**21) > 0.1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_a_failure(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(system, "write_speed", refuse)
    findings = found(system.check_disk(tmp_path))
    assert findings["disk speed"].status is Status.FAIL
    assert "Read-only" in findings["disk speed"].message


def test_a_folder_that_is_missing_is_a_failure(tmp_path):
    findings = found(system.check_disk(tmp_path / "none"))
    assert findings["disk room"].status is Status.FAIL
    assert "none: No such file" in findings["disk room"].message


def test_a_rig_is_checked_when_given(write_rig):
    path = write_rig()
    findings = found(check_rig(path))
    assert findings["rig"].status is Status.OK
    assert findings["arm follower"].status is Status.FAIL  # it has no calibration
    assert "koch calibrate follower" in findings["arm follower"].fix
    path.write_text("rig: [")
    assert found(check_rig(path))["rig"].fix == f"Edit {path}."
    path.unlink()
    assert "--rig" in found(check_rig(path))["rig"].fix
