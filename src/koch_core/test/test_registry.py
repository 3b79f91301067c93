# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Kinds are found by name, also those that another package promises in its metadata."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from koch_core.registry import Registry, UnknownKindError

GROUP = "koch_test.kinds"


@pytest.fixture
def promising(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that promises the kinds `blue`, which its module registers, and `grey`."""
    info = tmp_path / "colours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nblue = colours\ngrey = colours\n")
    (tmp_path / "colours.py").write_text("import paints\npaints.KINDS.register('blue')('BLUE')\n")
    (tmp_path / "paints.py").write_text(
        f"from koch_core.registry import Registry\n"
        f"KINDS = Registry('colour', {GROUP!r}, {{'red': 'own_paints'}})\n"
    )
    (tmp_path / "own_paints.py").write_text("import paints\npaints.KINDS.add('RED', 'red')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("colours", "paints", "own_paints"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_kind_is_found_under_each_of_its_names() -> None:
    kinds: Registry[type] = Registry("animal", GROUP)

    @kinds.register("dog", "hound")
    class Dog: ...

    assert kinds.find("dog") is kinds.find("hound") is Dog
    assert kinds.find("cat") is None
    assert kinds.names() == list(kinds) == ["dog", "hound"]
    assert ("dog" in kinds, "cat" in kinds, len(kinds)) == (True, False, 2)


def test_a_name_that_is_taken_is_refused_and_the_same_kind_is_not() -> None:
    kinds: Registry[str] = Registry("animal", GROUP)
    kinds.add("Dog", "dog")
    kinds.add("Dog", "dog")
    with pytest.raises(ValueError, match="animal 'dog' is registered already"):
        kinds.add("Cat", "dog")


def test_promised_kinds_are_listed_unimported_and_imported_when_asked_for(promising: Path) -> None:
    import paints  # type: ignore[import-not-found]

    assert paints.KINDS.names() == ["blue", "grey", "red"]
    assert ("blue" in paints.KINDS, "red" in paints.KINDS, "pink" in paints.KINDS) == (
        True,
        True,
        False,
    )
    assert "colours" not in sys.modules
    assert "own_paints" not in sys.modules
    assert paints.KINDS.find("red") == "RED"
    assert paints.KINDS.find("blue") == "BLUE"
    assert paints.KINDS.find("grey") is None  # promised, not kept


def test_a_kind_that_nothing_registers_is_told_with_what_to_run() -> None:
    kinds: Registry[str] = Registry("animal", GROUP)
    kinds.add("Dog", "dog")
    with pytest.raises(UnknownKindError, match=r"^animal 'cat': .* known are dog\. .*koch setup"):
        kinds["cat"]
    assert kinds.get("cat") is None  # a mapping all the same


def test_what_a_broken_package_raises_is_not_hidden(promising: Path) -> None:
    import paints

    (promising / "colours.py").write_text("raise ImportError('no paint')\n")
    with pytest.raises(ImportError, match="no paint"):
        paints.KINDS.find("blue")
