# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from koch_core.files import write_atomically


def test_folders_are_made_and_old_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomically(path, "first")
    write_atomically(path, "zweite Fassung, länger")
    assert path.read_text(encoding="utf-8") == "zweite Fassung, länger"
    assert list(path.parent.iterdir()) == [path]


def test_another_link_keeps_the_old_content(tmp_path: Path) -> None:
    path, link = tmp_path / "new.txt", tmp_path / "old.txt"
    write_atomically(path, "old")
    os.link(path, link)
    write_atomically(path, "new")
    assert (path.read_text(), link.read_text()) == ("new", "old")


def test_what_cannot_be_written_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half a pair: \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
