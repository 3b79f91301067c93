# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch up` and bringup.launch.py start the same processes with the same arguments.

Each executable of the graph is replaced by a script that writes down what it was started with:
what is compared has gone through the supervisor's and launch's own ways of starting a process.
Launch is not on PyPI, so that half runs where ROS's launch can be imported; what the launch file
hands to launch_ros is compared everywhere.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from koch_rig.load import load_rig
from koch_vla.executables import parameter_text
from koch_vla.graph import GraphOptions, build_graph
from koch_vla.launch_nodes import LAUNCH_ARGUMENTS, graph_from_launch, node_arguments
from koch_vla.settings import Setting

SPY = """#!{python}
import json, os, signal, sys, time, yaml
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
words, found = sys.argv[1:], {{"program": sys.argv[0], "files": [], "remap": {{}}, "plain": []}}
found["level"] = ""
while words:
    word = words.pop(0)
    if word == "-r":
        name, _, value = words.pop(0).partition(":=")
        found["remap"][name] = value
    elif word == "--params-file":
        found["files"].append(yaml.safe_load(open(words.pop(0))))
    elif word == "--log-level":
        found["level"] = words.pop(0)
    elif word != "--ros-args":
        found["plain"].append(word)
path = os.path.join({folder!r}, str(os.getpid()))
with open(path + ".part", "w") as file:
    json.dump(found, file)
os.rename(path + ".part", path + ".json")
time.sleep(60)
"""
# No policy runs here; what is not there is refused before anything starts.
CHECKPOINT = tempfile.mkdtemp(prefix="koch_checkpoint_")
Path(CHECKPOINT, "config.json").write_text("{}", encoding="utf-8")
CASES = {
    "real": ({}, GraphOptions()),
    "recording": (
        {"record": "true", "record_root": "/data"},
        GraphOptions(record=True, record_root="/data"),
    ),
    "policy": (
        {"policy": CHECKPOINT, "teleop": "false"},
        GraphOptions(policy=CHECKPOINT, teleop=False),
    ),
    "shadow": (
        {"policy": CHECKPOINT, "shadow": "true", "strategy": "queue"},
        GraphOptions(policy=CHECKPOINT, shadow=True, strategy="queue"),
    ),
    "settings": (
        {"set": "driver.allow_drift=true; teleop.threshold=0.5"},
        GraphOptions(
            settings=(Setting("driver", "allow_drift", True), Setting("teleop", "threshold", 0.5))
        ),
    ),
}
SIM_CASES = {
    "ros2_control": (
        {"ros2_control": "true", "log_level": "warn"},
        GraphOptions(ros_state_publisher=True, ros2_control=True, log_level="warn"),
    ),
    "fast": ({"speed": "2.5", "expert": "true"}, GraphOptions(speed=2.5, expert=True)),
    "ros": ({}, GraphOptions(ros_state_publisher=True)),
}
CASES["namespace"] = ({"namespace": "left_table"}, GraphOptions(namespace="left_table"))
MUJOCO = "simulation: {physics: mujoco, seed: 5}"


@pytest.fixture(params=[*CASES, *SIM_CASES])
def case(request, calibrated):
    """Return (rig, launch arguments, the same as options)."""
    simulated = request.param in SIM_CASES
    words, options = {**CASES, **SIM_CASES}[request.param]
    rig = load_rig(calibrated(MUJOCO if simulated else ""))
    return rig, {"rig": str(rig.path), **words}, options


@pytest.fixture
def spies(case, tmp_path, monkeypatch):
    """Install a spy for each executable of the graph; yields the folder of their notes."""
    rig, _, options = case
    notes, prefix = tmp_path / "notes", tmp_path / "prefix"
    notes.mkdir()
    packages = prefix / "share/ament_index/resource_index/packages"
    packages.mkdir(parents=True)
    for spec in build_graph(rig, options):
        (packages / spec.package).touch()
        program = prefix / "lib" / spec.package / spec.executable
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(SPY.format(python=sys.executable, folder=str(notes)))
        program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return notes


def noted(folder, count, process, timeout_s=30.0):
    """Wait until so many spies have written, end the process, return the notes by node name."""
    deadline = time.monotonic() + timeout_s
    while len(list(folder.glob("*.json"))) < count:
        assert time.monotonic() < deadline, f"{list(folder.iterdir())}: too few nodes"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, output
    nodes = {}
    for path in folder.glob("*.json"):
        note = json.loads(path.read_text())
        remap = note.pop("remap")
        name = f"{remap.pop('__ns').rstrip('/')}/{remap.pop('__node')}"
        parameters = {}
        for tree in note.pop("files"):
            for key, value in tree.items():
                # As rcl does: /** stands for any number of names, also none.
                if re.fullmatch(key.replace("/**", r"(/\w+)*"), name):
                    parameters.update(value["ros__parameters"])
        assert name not in nodes
        nodes[name] = {**note, "remap": remap, "parameters": parameters}
    return nodes


def from_files(spec):
    """What a node's parameter files say to it; they name it by its last word here."""
    trees = [yaml.safe_load(Path(path).read_text()) for path in spec.parameter_files]
    key = f"/**/{spec.name}"
    return {k: v for tree in trees if key in tree for k, v in tree[key]["ros__parameters"].items()}


def expected(specs, prefix):
    """What the spies of a graph must have noted."""
    return {
        spec.full_name: {
            "program": str(prefix / "lib" / spec.package / spec.executable),
            "plain": list(spec.arguments),
            "remap": dict(spec.remappings),
            "parameters": {**spec.parameters, **from_files(spec)},
            "level": spec.log_level,
        }
        for spec in specs
    }


def up_command(options, rig):
    words = [sys.executable, "-m", "koch_vla", "up", "--rig", str(rig.path)]
    words += ["--record", "--record-root", options.record_root] if options.record else []
    words += ["--policy", options.policy] if options.policy else []
    words += ["--strategy", options.strategy] if options.strategy else []
    words += ["--shadow"] if options.shadow else []
    for setting in options.settings:
        words += ["--set", f"{setting.node}.{setting.parameter}={json.dumps(setting.value)}"]
    words += [] if options.teleop else ["--no-teleop"]
    words += ["--namespace", options.namespace] if options.namespace else []
    words += ["--expert"] if options.expert else []
    words += ["--ros2-control"] if options.ros2_control else []
    words += ["--params-file", options.params_file] if options.params_file else []
    words += ["--log-level", options.log_level] if options.log_level else []
    return [*words, "--speed", str(options.speed)]


def test_koch_up_starts_the_nodes_of_the_graph(case, spies):
    rig, _, options = case
    specs = build_graph(rig, options)
    process = subprocess.Popen(
        up_command(options, rig), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    notes = noted(spies, len(specs), process)
    assert notes == expected(specs, spies.parent / "prefix")


def launched(repository, words):
    """Start the launch file in a process, with launch arguments."""
    runner = (
        "import sys; from launch import LaunchService\n"
        "from launch.actions import IncludeLaunchDescription as Include\n"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource as Source\n"
        "from launch import LaunchDescription\n"
        "words = [w.split(':=') for w in sys.argv[2:]]\n"
        "service = LaunchService(noninteractive=True)\n"
        "service.include_launch_description(LaunchDescription(\n"
        "    [Include(Source(sys.argv[1]), launch_arguments=words)]))\n"
        "sys.exit(service.run())"
    )
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            runner,
            str(repository / "launch/bringup.launch.py"),
            *(f"{key}:={value}" for key, value in words.items()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(not importlib.util.find_spec("launch_ros"), reason="needs ROS's launch")
def test_the_launch_file_starts_the_nodes_of_the_graph(case, spies, repository):
    rig, words, options = case
    specs = build_graph(rig, options)
    process = launched(repository, words)
    notes = noted(spies, len(specs), process)
    assert notes == expected(specs, spies.parent / "prefix")


LIVES = """#!{python}
import os, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
name = [w for w in sys.argv if w.startswith("__node:=")][0][8:]
with open({folder!r} + "/" + name, "a") as file:
    file.write("x")
time.sleep(0.1)
codes = {{"above": 2, "robot_state_publisher": 1, "wrist": 0}}
if name in codes:
    sys.exit(codes[name])
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("launch_ros"), reason="needs ROS's launch")
def test_under_launch_too_only_a_failed_node_starts_again(
    calibrated, tmp_path, monkeypatch, repository
):
    rig = load_rig(calibrated(""))
    specs = build_graph(rig, GraphOptions())
    folder = tmp_path / "notes"
    folder.mkdir()
    for spec in specs:
        package = tmp_path / "prefix/share/ament_index/resource_index/packages" / spec.package
        program = tmp_path / "prefix/lib" / spec.package / spec.executable
        for path in (package, program):
            path.parent.mkdir(parents=True, exist_ok=True)
        package.touch()
        program.write_text(LIVES.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    process = launched(repository, {"rig": str(rig.path)})
    lives = lambda name: len((folder / name).read_text())  # noqa: E731
    deadline = time.monotonic() + 30.0
    while not (folder / "robot_state_publisher").exists() or lives("robot_state_publisher") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = {path.name: lives(path.name) for path in folder.iterdir() if path.name != "driver"}
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert found.pop("robot_state_publisher") >= 3
    assert set(found.values()) == {1}, found


def test_launch_arguments_and_up_options_make_the_same_graph(case, monkeypatch, spies):
    rig, words, options = case
    values = {argument.name: argument.default for argument in LAUNCH_ARGUMENTS} | words
    assert graph_from_launch(values) == build_graph(rig, options)


def test_launch_gets_every_field_of_a_node(case):
    rig, _, options = case
    for spec in build_graph(rig, options):
        handed = node_arguments(spec)
        assert (handed["package"], handed["executable"]) == (spec.package, spec.executable)
        assert (handed["name"], handed["namespace"]) == (spec.name, spec.namespace)
        assert handed["arguments"] == list(spec.arguments)
        assert handed["remappings"] == list(spec.remappings)
        assert (handed["respawn"], handed["respawn_delay"]) == (spec.respawn, spec.respawn_delay_s)
        groups = [group for group in handed["parameters"] if isinstance(group, dict)]
        merged = {k: v for group in groups for k, v in group.items()}
        assert parameter_text(merged) == parameter_text(spec.parameters)
        assert handed["parameters"][len(groups) :] == list(spec.parameter_files)
        level = ["--log-level", spec.log_level] if spec.log_level else []
        assert handed["ros_arguments"] == level


def test_launch_files_only_wire(repository):
    """No node, topic or number is named in a launch file."""
    tree = ast.parse((repository / "launch/bringup.launch.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    nodes = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "Node"]
    assert len(nodes) == 1
    assert nodes[0].args == []
    assert [keyword.arg for keyword in nodes[0].keywords] == [None]
