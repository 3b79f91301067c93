# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Holds the borders between the packages: dependencies point downwards, heavy ones stay put."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest
from repository import (
    PACKAGES,
    ROOT,
    imported_modules,
    package_of,
    python_files,
    tree,
    where,
)

BASE = ("koch_core", "koch_ros")
# The table of the design: a package may import itself and these.
MAY_IMPORT = {
    "koch_vla": set(PACKAGES),
    "koch_console": {"koch_episodes", "koch_rig", *BASE},
    "koch_moveit_config": {"koch_rig"},
    "koch_ros2_control": {"koch_rig"},
    "koch_sim": {"koch_driver", "koch_episodes", "koch_policy", "koch_rig", *BASE},
    "koch_policy": {"koch_episodes", "koch_rig", *BASE},
    "koch_fastconv": set(),  # an extra: koch_policy finds it by its entry point
    "koch_episodes": {"koch_rig", *BASE},
    "koch_cameras": {"koch_rig", *BASE},
    "koch_driver": {"koch_rig", *BASE},
    "koch_rig": {"koch_core"},
    "koch_ros": {"koch_core"},
    "koch_core": set(),
    "koch_interfaces": set(),
}
# The arm computer installs neither; nobody else may need them.
ONLY_IN = {"torch": "koch_policy", "openvino": "koch_policy", "mujoco": "koch_sim"}
# Register addresses and motor constants stand once, in the driver. The simulated rig must not
# reach for its bus or nodes, which it is there to test; lockstep takes what decides.
SIMULATION_MAY_USE = (
    "koch_driver.arm.connect",
    "koch_driver.arm.follower_controller",
    "koch_driver.guard",
    "koch_driver.arm.teleop_map",
    "koch_driver.bus.control_table",
    "koch_driver.emulator",
    "koch_driver.bus.motors",
    "koch_driver.arm.register_profile",
    "koch_ros.node",  # the life of a node process, nothing of the arm
    "koch_core.realtime",
)
ROS_MODULES = {"rclpy", "launch", "launch_ros", "ament_index_python", "tf2_ros", "rosbag2_py"}
# Back ends that a ROS installation brings; their modules are imported by name where it is there.
BACK_ENDS = {"rosbag2.py"}
INTERFACE_ENDINGS = ("_msgs", "_srvs", "_interfaces")


def is_ros(module: str) -> bool:
    """Say whether a module exists only where ROS does."""
    top = module.split(".")[0]
    return top in ROS_MODULES or top.endswith(INTERFACE_ENDINGS)


def may_use_ros(path: Path) -> bool:
    """Nodes and launch files may; what decides stays free of ROS."""
    parts = path.relative_to(ROOT).parts
    return (
        "nodes" in parts
        or "koch_ros" in parts
        or path.stem == "node"
        or path.name in BACK_ENDS
        or path.name.endswith(".launch.py")
    )


def serves_launch(path: Path) -> bool:
    """MoveIt and ros2_control exist in a sourced ROS only, and so does what configures them."""
    return package_of(path) in ("koch_moveit_config", "koch_ros2_control")


def sources() -> list[Path]:
    """Files that a user's machine runs."""
    return [
        path for path in python_files(tests=False) if package_of(path) or "launch" in path.parts
    ]


def test_table_names_every_package() -> None:
    assert set(PACKAGES) <= set(MAY_IMPORT)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_lies_below(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package, "koch_interfaces"}
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources()
        if package_of(path) == package
        for module, line in imported_modules(path)
        if module.startswith("koch_") and module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_simulation_sees_of_the_driver_the_emulator_and_vendor_data_only() -> None:
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources()
        if package_of(path) == "koch_sim"
        for module, line in imported_modules(path)
        if module.startswith("koch_driver") and not module.startswith(SIMULATION_MAY_USE)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", sorted(ONLY_IN))
def test_heavy_module_stays_in_its_package(module: str) -> None:
    wrong = [
        where(path, line)
        for path in sources()
        if package_of(path) != ONLY_IN[module]
        for name, line in imported_modules(path)
        if name.split(".")[0] == module
    ]
    assert not wrong, f"{module} outside {ONLY_IN[module]}:\n" + "\n".join(wrong)


def test_ros_is_imported_by_nodes_and_launch_files_only() -> None:
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources()
        if not may_use_ros(path) and not serves_launch(path)
        for module, line in imported_modules(path)
        if is_ros(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_launch_is_imported_by_launch_files_only() -> None:
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources()
        if not path.name.endswith(".launch.py")
        for module, line in imported_modules(path)
        if module.split(".")[0] in ("launch", "launch_ros")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_package_starts_the_command_of_one_above() -> None:
    """`python -m koch_vla ...` is a dependency too; messages for people may name `koch eval`."""
    wrong = [
        f"{where(path, node.lineno)} starts {name}"
        for path in sources()
        if (package := package_of(path)) in MAY_IMPORT
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.List, ast.Tuple))
        for name in started(node)
        if name.partition(".")[0] in set(PACKAGES) - MAY_IMPORT[package] - {package}
    ]
    assert not wrong, "\n".join(wrong)


def started(node: ast.List | ast.Tuple) -> list[str]:
    """The modules that a list of words has behind `-m`, as a command line does."""
    words = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
    return [str(name) for flag, name in pairwise(words) if flag == "-m"]


def test_a_command_of_another_package_is_seen() -> None:
    words = ast.parse("[sys.executable, '-m', 'koch_vla', 'eval']", mode="eval").body
    assert isinstance(words, ast.List)
    assert started(words) == ["koch_vla"]


def test_a_border_crossing_is_seen(tmp_path: Path) -> None:
    # The negative control: the reader of imports finds the ones inside functions too.
    file = tmp_path / "crossing.py"
    file.write_text("def late():\n    import torch.nn\n    from rclpy.node import Node\n")
    found = {module for module, _ in imported_modules(file)}
    assert found == {"torch.nn", "rclpy.node"}
    assert is_ros("rclpy.node")
    assert is_ros("sensor_msgs.msg")
    assert not is_ros("rosbags.rosbag2")


def _file_of(module: str) -> Path | None:
    """The file of a module of ours; None for a package, which only shows what others hold."""
    top, *rest = module.split(".")
    path = (ROOT / "src" / top / top).joinpath(*rest).with_suffix(".py")
    return path if rest and path.is_file() else None


def test_no_modules_import_each_other_not_even_for_types() -> None:
    """Anyone who reads one of a circle must read all of it."""
    reads: dict[Path, set[Path]] = {
        path: {file for module, _ in imported_modules(path) if (file := _file_of(module))} - {path}
        for path in sources()
    }
    while True:  # who imports nobody that is left, or is imported by none, is in no circle
        imported = set().union(*reads.values())
        left = {
            path: files & reads.keys()
            for path, files in reads.items()
            if path in imported and files & reads.keys()
        }
        if left == reads:
            break
        reads = left
    told = [
        f"{where(path)} imports {', '.join(sorted(map(where, files)))}"
        for path, files in sorted(reads.items())
    ]
    assert not told, "\n".join(told)


def test_each_class_has_a_name_of_its_own() -> None:
    """Who searches for a name finds one thing."""
    places: dict[str, list[str]] = {}
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(where(path, node.lineno))
    twice = [f"{name}: {', '.join(at)}" for name, at in sorted(places.items()) if len(at) > 1]
    assert not twice, "\n".join(twice)
