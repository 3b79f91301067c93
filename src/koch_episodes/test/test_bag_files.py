# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which files make up a bag, in which order, and which folders are bags: nothing counts twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
import zstandard
from rosbags.rosbag2 import StoragePlugin

from koch_episodes.bag import find_bags, open_bag
from koch_episodes.bag.order import clock_was_set_back
from koch_episodes.errors import BagError

WriteBag = Callable[..., Path]
NS = 1_000_000_000


def count(path: Path) -> int:
    with open_bag(path) as bag:
        return sum(1 for _ in bag.messages(bag.topics))


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_files_that_metadata_does_not_name_are_passed_over(
    write_bag: WriteBag, storage: StoragePlugin
) -> None:
    path = write_bag(seconds=0.5, storage=storage)
    whole = count(path)
    file = next(p for p in path.iterdir() if p.suffix != ".yaml")
    shutil.copy(file, path / f"sorted{file.suffix}")
    (path / f"{file.name}.zstd").write_bytes(
        zstandard.ZstdCompressor().compress(file.read_bytes())
    )
    assert count(path) == whole
    with open_bag(path) as bag:
        assert len(bag.passed_over) == 2
        assert all("metadata.yaml does not name it" in line for line in bag.passed_over)


def test_metadata_that_names_a_part_of_the_files_is_obeyed(write_bag: WriteBag) -> None:
    path = write_bag(seconds=0.5)
    shutil.copy(path / f"{path.name}.mcap", path / "other.mcap")
    listed = {"relative_file_paths": ["other.mcap", "gone.mcap"]}
    (path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": listed}))
    with open_bag(path) as bag:
        assert bag.damage == ["gone.mcap is missing"]
        assert bag.passed_over == [f"{path.name}.mcap: metadata.yaml does not name it"]


@pytest.mark.parametrize("kind", ["packed", "copy", "link"])
def test_of_twins_without_metadata_one_counts(write_bag: WriteBag, kind: str) -> None:
    path = write_bag(seconds=0.5)
    whole = count(path)
    (path / "metadata.yaml").unlink()
    file = path / f"{path.name}.mcap"
    if kind == "packed":
        packed = zstandard.ZstdCompressor().compress(file.read_bytes())
        (path / f"{file.name}.zstd").write_bytes(packed)
    elif kind == "copy":
        shutil.copy(file, path / "zz.mcap")
    else:
        (path / "zz.mcap").symlink_to(file)
    assert count(path) == whole
    with open_bag(path) as bag:
        assert [f"the same as {file.name}" in line for line in bag.passed_over] == [True]


def test_files_that_overlap_in_time_are_refused_without_metadata(write_bag: WriteBag) -> None:
    path = write_bag(seconds=3.0, start_ns=NS)
    other = write_bag("other", seconds=2.0, start_ns=NS)
    (path / "metadata.yaml").unlink()
    shutil.copy(other / "other.mcap", path / "recovered.mcap")
    with pytest.raises(BagError, match=r"recovered\.mcap hold the same stretch of time"):
        open_bag(path)


def test_links_to_bags_are_followed_once_and_what_is_left_out_is_named(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bags = [write_bag(f"disk/ep_{k}", seconds=0.1) for k in range(3)]
    write_bag("folder/ep_9.partial", seconds=0.1)
    write_bag("folder/trash/ep_8", seconds=0.1)
    folder = tmp_path / "folder"
    (folder / "ep_0").symlink_to(bags[0])
    (folder / "again").symlink_to(bags[0])
    (folder / "more").symlink_to(tmp_path / "disk")
    (folder / "round").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    left_out: list[str] = []
    found = find_bags([folder], left_out)
    assert sorted(path.resolve() for path in found) == sorted(bags)
    told = " ".join(left_out)
    for words in ("the same as", "never finished", "1 discarded bag", "leads nowhere"):
        assert words in told


def test_loose_files_hide_no_bag_beside_them(write_bag: WriteBag, tmp_path: Path) -> None:
    """A recording that was put beside others made all of them its own, unread."""
    bags = [write_bag(f"all/ep_{k}", seconds=0.1) for k in range(2)]
    loose = write_bag("loose", seconds=0.1)
    shutil.copy(loose / "loose.mcap", tmp_path / "all" / "loose.mcap")
    assert sorted(find_bags([tmp_path / "all"])) == [tmp_path / "all", *bags]
    assert count(tmp_path / "all") == count(loose)


def test_bags_inside_a_bag_are_named_and_not_read(write_bag: WriteBag) -> None:
    whole = write_bag("ep", seconds=0.1)
    write_bag("ep/backup", seconds=0.1)
    left_out: list[str] = []
    assert find_bags([whole], left_out) == [whole]
    assert left_out == [f"{whole / 'backup'}: inside the bag {whole}"]


def in_ns(seconds: object) -> np.ndarray:
    return np.round(np.asarray(seconds) * 1e9).astype(np.int64)


def test_pieces_in_disorder_fit_together_and_runs_of_a_clock_do_not() -> None:
    line = np.arange(400) / 100 + 5
    blocks = np.split(line, 10)
    rng = np.random.default_rng(1)
    for _ in range(20):
        shuffled = np.concatenate([blocks[k] for k in rng.permutation(10)])
        assert not clock_was_set_back([in_ns(shuffled)])
    assert not clock_was_set_back([in_ns(line + rng.normal(0, 0.05, 400))])
    for begin in (-2.0, 0.0, 1.5):  # reset to before, to the same, to within
        run = np.concatenate([line, line[: 200 if begin < 0 else 400] + begin - (begin < 0)])
        assert clock_was_set_back([in_ns(run)])
    gaps = np.delete(line, np.s_[::7])
    assert clock_was_set_back([in_ns(np.concatenate([gaps, gaps]))])
    assert not clock_was_set_back([in_ns(line), in_ns(line)])  # one topic after the other
