# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Marks beside a bag: what converter, inspect and replay make of them, and what a crash leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.bag.marks import (
    FILE_NAME,
    Instant,
    Mark,
    add_marks,
    load_marks,
    marks_file,
    undo_marks,
)
from koch_episodes.convert import ConvertOptions, StampFrom, convert
from koch_episodes.convert.worker import bag_identity
from koch_episodes.dataset import LeRobotDatasetReader
from koch_episodes.dataset.edit.cli import main
from koch_episodes.errors import BagError, EpisodeError
from koch_episodes.inspect_bag import inspect_bag
from koch_episodes.replay.motion import load_motion

WriteBag = Callable[..., Path]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def frames(bags: list[Path], out: Path, **options: Any) -> LeRobotDatasetReader:
    convert(bags, out, ConvertOptions(**options))
    return LeRobotDatasetReader(out)


def test_what_marks_say_in_order_and_what_undo_leaves(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    add_marks(bag, "one", [Mark(task="a", begin=Instant(5, 6)), Mark(2, deleted=True)])
    found = add_marks(bag, "two", [Mark(2, task="b", deleted=False, end=Instant(8, 9))])
    assert found == load_marks(bag)
    assert found.of(0) == Mark(0, begin=Instant(5, 6), task="a")
    assert found.of(2) == Mark(2, Instant(5, 6), Instant(8, 9), False, "b")
    assert undo_marks(bag) == ["two"]
    assert load_marks(bag).of(2).deleted is True
    assert undo_marks(bag) == ["one"]
    assert undo_marks(bag) == []
    assert list(bag.iterdir()) == []


def test_trimmed_bag_gives_the_frames_of_the_untrimmed_one(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bag = write_bag(seconds=4.0)
    everything = frames([bag], tmp_path / "all")
    assert run("trim", bag, "--start", 1.0, "--end", 0.5) == 0
    kept = frames([bag], tmp_path / "kept")
    told = everything.column("action")
    first = int(np.flatnonzero((told == kept.column("action")[0]).all(axis=1))[0])
    assert first == pytest.approx(30, abs=1)
    assert len(kept) == pytest.approx(2.5 * 30, abs=2)
    for key in ("action", "observation.state"):
        np.testing.assert_array_equal(
            kept.column(key), everything.column(key)[first : first + len(kept)]
        )
    assert run("undo", bag) == 0
    again = frames([bag], tmp_path / "again")
    np.testing.assert_array_equal(again.column("action"), told)


def test_seconds_are_those_of_the_recording_whatever_earlier_marks_say(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=4.0)
    assert run("trim", bag, "--start", 1.0) == 0
    assert run("trim", bag, "--start", 0.5) == 0
    assert run("trim", bag, "--keep", "0:0.8-3") == 0
    capsys.readouterr()
    assert run("info", bag, "--json") == 0
    (episode,) = json.loads(capsys.readouterr().out)["episodes"]
    assert episode["keep"] == [0.8, 3.0]
    assert len(frames([bag], tmp_path / "d")) == pytest.approx(2.2 * 30, abs=1)


@pytest.mark.parametrize("stamps", list(StampFrom))
def test_cut_holds_for_each_clock(write_bag: WriteBag, tmp_path: Path, stamps: StampFrom) -> None:
    def far(messages: list[Any]) -> list[Any]:
        """A recorder whose own clock is two hours off, as with simulated stamps."""
        return [(t, k, log + 7_200_000_000_000, s, m) for t, k, log, s, m in messages]

    bag = write_bag(seconds=3.0, change=far)
    assert run("trim", bag, "--start", 1.0) == 0
    assert len(frames([bag], tmp_path / "d", stamps=stamps)) == pytest.approx(60, abs=3)


def test_deleted_bags_are_passed_over_and_named(write_bag: WriteBag, tmp_path: Path) -> None:
    bags = [write_bag(f"episode_{k:06d}", seconds=1.5) for k in range(2)]
    assert run("delete", bags[0]) == 0
    result = convert([tmp_path], tmp_path / "d", ConvertOptions())
    assert result.info.total_episodes == 1
    assert result.failed == {}
    assert f"{bags[0]}: marked as deleted" in result.passed_over
    assert run("delete", bags[1]) == 0
    with pytest.raises(EpisodeError, match="every bag is marked as deleted"):
        convert(bags, tmp_path / "e", ConvertOptions())
    with pytest.raises(EpisodeError, match="marked as deleted"):
        load_motion(bags[0])


def test_a_folder_of_bags_is_not_deleted_by_its_name_alone(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "all"
    write_bag("all/one", seconds=1.0)
    assert run("delete", folder) == 2
    assert "no episodes are named" in capsys.readouterr().err
    assert run("delete", folder, "--outcome", "success") == 0
    assert load_marks(folder / "one").delete_all


def test_words_of_marks_reach_dataset_inspect_and_list(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    bag = write_bag(seconds=1.5)
    assert run("relabel", bag, "--task", "Gib den Würfel 方块.", "--outcome", "failure") == 0
    reader = frames([bag], tmp_path / "d")
    assert list(reader.tasks) == ["Gib den Würfel 方块."]
    assert reader.episodes[0].outcome == "failure"
    facts = inspect_bag(bag)
    assert facts.custom["koch.outcome"] == "failure"
    assert facts.windows[0].task == "Gib den Würfel 方块."
    with pytest.raises(EpisodeError, match="no episode could be converted"):
        frames([bag], tmp_path / "e", outcomes=("success",))


def test_episodes_of_a_bag_are_marked_one_by_one(
    write_bag: WriteBag, tmp_path: Path, episode_event: Callable[..., Any], rig_file: Path
) -> None:
    kind = "koch_interfaces/msg/EpisodeEvent"

    def split(messages: list[Any]) -> list[Any]:
        begin = messages[0][3]
        said = [(0, 0.0, 0), (1, 2.0, 0), (0, 2.5, 1), (1, 4.5, 1), (0, 5.0, 2), (1, 7.0, 2)]
        for what, at_s, index in said:
            stamp = begin + round(at_s * 1e9)
            event = episode_event(stamp, what, index, "success" if what else "")
            messages.append(("/episodes/events", kind, stamp + 5_000_000, stamp, event))
        return sorted(messages, key=lambda message: message[2])

    bag = write_bag(seconds=7.5, change=split, custom={})
    before = frames([bag], tmp_path / "before", rig=rig_file)
    assert [e.length for e in before.episodes] == pytest.approx([60, 60, 60], abs=2)
    assert run("delete", bag, "--episodes", "1") == 0
    assert run("trim", bag, "--episodes", "2", "--start", 1) == 0
    assert run("relabel", bag, "--episodes", "0", "--task", "other") == 0
    after = frames([bag], tmp_path / "after", rig=rig_file)
    assert [e.length for e in after.episodes] == pytest.approx([60, 30], abs=2)
    assert [e.tasks[0] for e in after.episodes] == ["other", "Do it."]


def test_replay_obeys_the_cut(write_bag: WriteBag) -> None:
    bag = write_bag(seconds=4.0)
    _, whole = load_motion(bag)
    assert run("trim", bag, "--keep", "0:1-3") == 0
    _, kept = load_motion(bag)
    assert whole.duration_s == pytest.approx(4.0, abs=0.05)
    assert kept.duration_s == pytest.approx(2.0, abs=0.05)
    np.testing.assert_allclose(kept.positions_rad[0], whole.at(1.0), atol=0.01)
    assert any("trim" in note for note in kept.notes)


def test_rests_of_a_bag_are_cut(write_bag: WriteBag, tmp_path: Path) -> None:
    def still(messages: list[Any]) -> list[Any]:
        begin, first = messages[0][3], None
        for topic, _, _, stamp, message in messages:
            if topic == "/follower/joint_command" and stamp - begin < 2_000_000_000:
                first = message.position.copy() if first is None else first
                message.position[:] = first
        return messages

    bag = write_bag(seconds=4.0, change=still)
    assert run("trim", bag, "--idle") == 0
    assert len(frames([bag], tmp_path / "d")) == pytest.approx(30 * 2.2, abs=3)


def test_dry_run_writes_nothing(write_bag: WriteBag, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(seconds=2.0)
    for words in (["trim", bag, "--start", 1], ["delete", bag], ["relabel", bag, "--task", "x"]):
        assert run(*words, "--dry-run") == 0
        assert "would mark" in capsys.readouterr().out
    assert not (bag / FILE_NAME).exists()
    assert run("delete", bag) == 0
    assert run("undo", bag, "--dry-run") == 0
    assert load_marks(bag).delete_all


def test_nothing_left_and_wrong_episodes_are_refused(
    write_bag: WriteBag, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=2.0)
    assert run("trim", bag, "--start", 5) == 2
    assert "nothing is left" in capsys.readouterr().err
    assert run("trim", bag, "--keep", "3:0-1") == 2
    assert "there is no episode 3" in capsys.readouterr().err
    assert run("trim", bag, "--keep", "0:nan-1") == 2
    assert run("trim", bag, "--start", 1, "--out", "x") == 2
    assert "a bag is marked" in capsys.readouterr().err
    assert run("drop-feature", bag, "--feature", "x", "--in-place") == 2
    assert "trimmed, deleted and relabelled only" in capsys.readouterr().err
    assert not (bag / FILE_NAME).exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "edits": [{"told": "x"}]}',
             '{"version": 1, "edits": [{"told": "x", "marks": [{"delete": true}]}]}',
             '{"version": 1, "edits": [{"told": "x", "marks": [{"deleted": "no"}]}]}']
)  # fmt: skip
def test_damaged_marks_are_never_taken_for_none(
    write_bag: WriteBag, tmp_path: Path, text: str
) -> None:
    bag = write_bag(seconds=1.0)
    (bag / FILE_NAME).write_text(text)
    with pytest.raises(BagError, match="no marks that can be read"):
        convert([bag], tmp_path / "d", ConvertOptions())
    with pytest.raises(BagError, match="no marks"):
        inspect_bag(bag)
    with pytest.raises(BagError, match="no marks"):
        load_motion(bag)
    assert not (tmp_path / "d").exists()
    (bag / FILE_NAME).write_text('{"version": 2, "edits": []}')
    with pytest.raises(BagError, match="version 2"):
        load_marks(bag)


def test_marks_are_no_part_of_the_bag_itself(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=1.5)
    before = bag_identity(bag)
    frames([bag], tmp_path / "d")
    assert run("trim", bag, "--start", 0.2) == 0
    assert bag_identity(bag) == before


def test_a_storage_file_alone_has_marks_beside_it(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(seconds=2.0)
    file = tmp_path / "Aufnahme 1 ü.mcap"
    shutil.copy(next(bag.glob("*.mcap")), file)
    assert run("trim", file, "--start", 1) == 0
    assert marks_file(file) == tmp_path / f"Aufnahme 1 ü.mcap.{FILE_NAME}"
    assert inspect_bag(file).marked


def test_interrupted_conversion_goes_on_with_the_marks_of_now(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    from koch_episodes.convert import run as conversion

    bags = [write_bag(f"episode_{k:06d}", seconds=2.0) for k in range(2)]

    def stop(done: int, total: int, result: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversion.convert(bags, tmp_path / "d", ConvertOptions(), progress=stop)
    assert run("trim", bags[0], "--start", 1) == 0
    conversion.convert(bags, tmp_path / "d", ConvertOptions(), resume=True)
    lengths = [e.length for e in LeRobotDatasetReader(tmp_path / "d").episodes]
    assert lengths == pytest.approx([30, 60], abs=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folder_that_cannot_be_written_is_named(
    write_bag: WriteBag, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=1.0)
    bag.chmod(0o500)
    try:
        assert run("delete", bag) == 2
    finally:
        bag.chmod(0o700)
    assert "cannot be written" in capsys.readouterr().err


def test_full_disk_leaves_the_earlier_marks(write_bag: WriteBag) -> None:
    bag = write_bag(seconds=1.0)
    add_marks(bag, "first", [Mark(task="a")])
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from koch_episodes.bag.marks import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "add_marks(Path(sys.argv[1]), 'second', [Mark(task='b' * 200)])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, bag], capture_output=True, text=True)
    assert "cannot be written (File too large)" in done.stderr
    assert [edit.told for edit in load_marks(bag).edits] == ["first"]
    assert sorted(p.name for p in bag.iterdir() if "marks" in p.name) == [FILE_NAME]


def test_killed_at_any_moment_the_marks_are_whole(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    script = (
        "import sys; from pathlib import Path\n"
        "from koch_episodes.bag.marks import *\n"
        "print('go', flush=True)\n"
        "while True: add_marks(Path(sys.argv[1]), 'x', [Mark(task='t' * 5000)])\n"
    )
    known = 0
    for round_ in range(6):
        child = subprocess.Popen([sys.executable, "-c", script, bag], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 + 0.013 * round_)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        count = len(load_marks(bag).edits)
        assert count >= known
        known = count
    assert known > 0
    assert undo_marks(bag)


def test_two_programs_at_once_lose_no_mark(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    bag.mkdir()
    script = (
        "import sys; from pathlib import Path\n"
        "from koch_episodes.bag.marks import *\n"
        "for k in range(30): add_marks(Path(sys.argv[1]), str(k), [Mark(k)])\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, bag]) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert len(load_marks(bag).edits) == 60
