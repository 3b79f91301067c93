# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Edits that are killed leave the old dataset or the new one, and can be repeated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset import (
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    Version,
    validate_dataset,
)
from koch_episodes.dataset.edit.cli import main

CAMERA = "observation.images.front"
FEATURES = {
    "action": FeatureSpec("float32", (2,), ("a", "b")),
    CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
    "next.reward": FeatureSpec("float32", (1,)),
}


def write(root: Path, version: str) -> None:
    """Four episodes that differ in each value."""
    with DatasetWriter(root, FEATURES, fps=10, robot_type="r", version=version) as writer:
        for episode, length in enumerate((15, 9, 24, 12)):
            steps = np.arange(length)
            shades = [np.full((32, 48, 3), 20 + 50 * episode + k, np.uint8) for k in steps]
            writer.add_episode(
                {
                    "action": np.stack([steps, steps + 100.0 * episode], 1),
                    "next.reward": steps / 10,
                },
                {CAMERA: shades},
                f"task {episode % 2}",
                "success",
            )


def run(*words: object) -> int:
    return main([str(word) for word in words])


KILLED = """
import os, shutil, signal, sys
from koch_episodes.dataset.edit.cli import main

WATCHED = ("make.py", "writer.py", "files.py", "v30.py", "v21.py")
words = sys.argv[1:]
target = "data" if "--in-place" in words else "out"
count = 0

def attempt(limit):
    def trace(frame, event, arg):
        global count
        if not frame.f_code.co_filename.endswith(WATCHED):
            return None
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    sys.settrace(trace)
    main(words)
    sys.settrace(None)
    open("count", "w").write(str(count))
    os._exit(0)

shutil.copytree("original", "data")
assert attempt(0) == 0
steps = int(open("count").read())
places = [steps // 3, steps * 2 // 3, steps - 9, steps - 5, steps - 2]
os.rename(target, "whole")
shutil.rmtree("data", ignore_errors=True)
for place in places:
    shutil.copytree("original", "data")
    assert attempt(place) == signal.SIGKILL
    os.makedirs(f"killed_{place}")
    for name in os.listdir("."):
        if name == target or name.startswith(f".{target}"):
            os.rename(name, f"killed_{place}/{name}")
    shutil.rmtree("data", ignore_errors=True)
"""


def kill_edits(folder: Path, *words: str) -> list[Path]:
    """Run an edit of a copy of `original`, whole and killed; return folders of what is left."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return sorted(folder.glob("killed_*"))


@pytest.mark.slow
@pytest.mark.parametrize("version", list(Version), ids=lambda v: v.value)
def test_a_killed_edit_leaves_the_old_or_the_new_dataset(tmp_path: Path, version: str) -> None:
    """Killed at places all over its run; what stands there is whole, and repeating works."""
    write(tmp_path / "original", version)
    old = content(tmp_path / "original")
    killed = kill_edits(tmp_path, "delete", "data", "--in-place", "--episodes", "1")
    new = content(tmp_path / "whole")
    assert len(killed) == 5
    for folder in killed:
        root = folder / "data"
        if len(LeRobotDatasetReader(root).episodes) == 4:
            assert content(root) == old
            assert run("delete", root, "--in-place", "--episodes", "1") == 0
        assert content(root) == new
        assert run("relabel", root, "--in-place", "--task", "One.") == 0
        assert [path.name for path in folder.iterdir()] == ["data"]


def content(root: Path) -> list[Any]:
    """What tells one state of a dataset from another."""
    assert not validate_dataset(root).errors
    reader = LeRobotDatasetReader(root)
    facts = [[e.length, e.tasks, e.outcome] for e in reader.episodes]
    videos = [path.read_bytes() for path in sorted(root.rglob("*.mp4"))]
    return [facts, sorted(reader.features), reader.column("action").tolist(), videos]


EVERY_EDIT = [
    ("trim", "data", "--in-place", "--start", "0.3"),
    ("relabel", "data", "--in-place", "--task", "One."),
    ("drop-feature", "data", "--in-place", "--feature", "next.reward"),
    ("reencode", "data", "--in-place", "--crf", "12"),
    ("recompute-stats", "data", "--in-place"),
    ("repair", "data", "--in-place"),
    ("merge", "data", "original", "--out", "out"),
]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("words", EVERY_EDIT, ids=lambda words: words[0])
def test_every_edit_that_is_killed_leaves_one_state(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    write(tmp_path / "original", Version.V30)
    old = content(tmp_path / "original")
    killed = kill_edits(tmp_path, *words)
    new = content(tmp_path / "whole")
    target = "data" if "--in-place" in words else "out"
    assert len(killed) == 5
    for folder in killed:
        root = folder / target
        if target == "data":
            assert content(root) in (old, new)
        elif root.exists():
            assert content(root) == new


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("version", list(Version), ids=lambda v: v.value)
def test_a_killed_split_leaves_whole_parts(tmp_path: Path, version: str) -> None:
    """Its parts come one after the other; each is whole or not there, and repeating works."""
    write(tmp_path / "original", version)
    words = ("--into", "a=0.5", "--into", "b=0.5")
    killed = kill_edits(tmp_path, "split", "data", *words, "--out", "out")
    wanted = {name: content(tmp_path / "whole" / name) for name in "ab"}
    assert len(killed) == 5
    for folder in killed:
        out = folder / "out"
        for name, new in wanted.items():
            if (out / name).exists():
                assert content(out / name) == new
                assert run("split", tmp_path / "original", *words, "--out", out) == 2
                shutil.rmtree(out / name)
        assert run("split", tmp_path / "original", *words, "--out", out) == 0
        assert {path.name: content(path) for path in out.iterdir()} == wanted
