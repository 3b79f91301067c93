# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From a node of the graph to its command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from koch_vla.errors import ExecutableNotFoundError
from koch_vla.executables import command, environment, find_executable, parameter_text
from koch_vla.node_spec import NodeSpec


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An installation with the executable `node` of package `koch_thing`."""
    marker = tmp_path / "share/ament_index/resource_index/packages/koch_thing"
    marker.parent.mkdir(parents=True)
    marker.touch()
    executable = tmp_path / "lib/koch_thing/node"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    return tmp_path


def test_an_installed_executable_is_preferred(prefix):
    spec = NodeSpec("koch_thing", "node", "n", module="koch_vla.guardian")
    assert find_executable(spec) == [str(prefix / "lib/koch_thing/node")]


def test_without_installation_the_module_is_run(monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    spec = NodeSpec("koch_vla", "guardian", "n", module="koch_vla.guardian")
    assert find_executable(spec) == [sys.executable, "-m", "koch_vla.guardian"]


def test_a_node_that_is_nowhere_says_how_to_get_it(prefix):
    spec = NodeSpec("koch_policy", "nothing", "n", module="koch_none.nodes.nothing")
    with pytest.raises(ExecutableNotFoundError, match=r"koch_policy/nothing.*leave policy out"):
        find_executable(spec)


def test_the_command_carries_name_namespace_remappings_and_parameters(prefix, tmp_path):
    spec = NodeSpec(
        "koch_thing", "node", "n", "/arm", {"rig": "/a b/rig.yaml"}, (("x", "/y"),), ("--fast",)
    )
    words = command(spec, tmp_path)
    assert words[1:-2] == [
        "--fast",
        "--ros-args",
        "-r",
        "__node:=n",
        "-r",
        "__ns:=/arm",
        "-r",
        "x:=/y",
    ]
    assert words[-2] == "--params-file"
    written = yaml.safe_load(Path(words[-1]).read_text(encoding="utf-8"))
    assert written == {"/**/arm/n": {"ros__parameters": {"rig": "/a b/rig.yaml"}}}


@pytest.mark.parametrize(
    "value",
    [
        True,
        3,
        1.0,
        "true",
        "1e3",
        "1.0",
        "null",
        "",
        " a: b # c",
        "<robot/>\n",
        "0x1f",
        "12:30:45",
    ],
)
def test_a_parameter_file_keeps_values_and_their_types(value):
    tree = yaml.safe_load(parameter_text({"p": value}))
    read = tree["/**"]["ros__parameters"]["p"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.ros
@pytest.mark.parametrize(
    "value", [True, 3, 1.0, "true", "1e3", "1.0", "", "off", "0x1f", "a: b", 'ä\n😀"', 1e-7]
)
def test_rcl_reads_the_parameter_file_as_it_was_meant(value, tmp_path):
    import rclpy
    from rclpy.node import Node

    path = tmp_path / "p.yaml"
    path.write_text(parameter_text({"p": value}))
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    node = Node("n", context=context, automatically_declare_parameters_from_overrides=True)
    try:
        read = node.get_parameter("p").value
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert read == value
    assert type(read) is type(value)


def test_a_module_that_only_this_process_finds_is_found_by_the_child(tmp_path, monkeypatch):
    (tmp_path / "koch_only_here.py").write_text("print('found')")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.syspath_prepend(tmp_path)
    words = find_executable(NodeSpec("koch_only_here", "x", "n", module="koch_only_here"))
    answer = subprocess.run(words, env=environment(words), capture_output=True, text=True)
    assert answer.stdout == "found\n", answer.stderr
