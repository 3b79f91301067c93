# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from koch_core.files import OutputBusyError, locked, sole_writer, write_atomically


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


def hold_elsewhere(path: Path) -> subprocess.Popen[bytes]:
    """Hold a lock file in another process, until that is killed."""
    holds = (
        "import sys, time; from pathlib import Path; from koch_core.files import locked\n"
        "with locked(Path(sys.argv[1]), wait=False): print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holds, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


def test_a_lock_keeps_others_out_until_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold_elsewhere(path) as holder:
        with pytest.raises(BlockingIOError), locked(path, wait=False):
            pass
        holder.kill()
    assert path.exists()  # left behind, and worth nothing
    with locked(path, wait=False):
        assert path.exists()
    assert not path.exists()


def test_who_waited_for_a_lock_keeps_later_ones_out(tmp_path: Path) -> None:
    """The file that it waited at is gone by then: it must hold the one that others find."""
    path = tmp_path / "lock"
    has_it, ends = threading.Event(), threading.Event()

    def second() -> None:
        with locked(path, wait=True):
            has_it.set()
            ends.wait(10.0)

    thread = threading.Thread(target=second)
    with locked(path, wait=False):
        thread.start()
        assert not has_it.wait(0.2)
    assert has_it.wait(10.0)
    with pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    ends.set()
    thread.join()
    assert list(tmp_path.iterdir()) == []


def test_one_program_writes_to_a_place_and_names_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "dataset"
    busy = pytest.raises(OutputBusyError, match=r"deep/dataset: another")
    with sole_writer(out), busy, sole_writer(out):
        pass
    with pytest.raises(BlockingIOError), sole_writer(out):  # an error of the work stays its own
        raise BlockingIOError
