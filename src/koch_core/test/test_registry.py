# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One registry for each kind: own things at import, those of other packages by entry point."""

import sys

import pytest

from koch_core.registry import Registry


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A registry, and an installed package that offers `hammer` to it."""
    info = tmp_path / "toolbox-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toolbox\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tools.of.test]\nhammer = toolbox_hammer\n")
    (tmp_path / "toolbox_hammer.py").write_text(
        "from toolbox_registry import TOOLS\nTOOLS.add('hammer', 'nails')\n"
    )
    registry: Registry[str] = Registry("tool", "tools.of.test")
    home = type(sys)("toolbox_registry")
    home.TOOLS = registry
    monkeypatch.setitem(sys.modules, "toolbox_registry", home)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield registry
    sys.modules.pop("toolbox_hammer", None)


def test_another_package_is_loaded_only_when_its_name_is_asked_for(tools):
    tools.add("saw", "boards")
    assert tools.names() == ["hammer", "saw"]
    assert tools.loaded() == ("boards",)
    assert tools.find("hammer") == "nails"
    assert tools.loaded() == ("boards", "nails")
    assert tools.find("axe") is None


def test_a_name_that_is_taken_is_refused_but_the_same_thing_may_come_twice(tools):
    tools.add("saw", "boards")
    tools.add("saw", "boards")
    with pytest.raises(ValueError, match="tool 'saw' is registered already"):
        tools.add("saw", "branches")


def test_a_decorator_registers_under_several_names(tools):
    @tools.register("plane", "rasp")
    def smooth():
        return "wood"

    assert tools.find("plane") is tools.find("rasp") is smooth
