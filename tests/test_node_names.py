# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A node's own attributes must not overwrite those of rclpy.Node, which has many private ones."""

import ast

import pytest
from repository import python_files, tree, where


def assigned(node: ast.ClassDef) -> dict[str, int]:
    """Return the names that a class assigns on self, and one line for each."""
    found: dict[str, int] = {}
    for statement in ast.walk(node):
        if not isinstance(statement, ast.Attribute) or not isinstance(statement.ctx, ast.Store):
            continue
        if isinstance(statement.value, ast.Name) and statement.value.id == "self":
            found[statement.attr] = statement.lineno
    return found


def node_classes(module: ast.Module) -> list[ast.ClassDef]:
    """Return the classes of a module that derive from rclpy's Node."""
    return [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Node" for base in node.bases)
    ]


@pytest.mark.ros
def test_nodes_leave_the_attributes_of_rclpy_alone() -> None:
    import rclpy
    from rclpy.node import Node

    context = rclpy.Context()  # of its own: other tests of the run use the default one
    rclpy.init(context=context)
    try:
        plain = Node("attribute_probe", context=context)
        taken = set(vars(plain)) | set(dir(Node))
        plain.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert "_parameters" in taken
    wrong = [
        f"{where(path, line)} self.{name}"
        for path in python_files(tests=False)
        for node in node_classes(tree(path))
        for name, line in assigned(node).items()
        if name in taken
    ]
    assert not wrong, "rclpy.Node owns these names:\n" + "\n".join(wrong)


def test_an_assignment_is_seen() -> None:
    sample = ast.parse(
        "class A(Node):\n    def f(self):\n        self._parameters = 1\n        self.a.b = 2\n"
    )
    assert [assigned(node) for node in node_classes(sample)] == [{"_parameters": 3}]
