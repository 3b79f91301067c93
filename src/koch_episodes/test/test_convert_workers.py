# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Several workers convert to one dataset, some are killed; it is the same to the byte."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert import lease as leases
from koch_episodes.convert.cli import main
from koch_episodes.convert.lease import Watch, leased
from koch_episodes.convert.run import convert_shards
from koch_episodes.convert.worker import JobResult
from koch_episodes.dataset import validate_dataset
from koch_episodes.errors import OutputExistsError, WorkersError

WriteBag = Callable[..., Path]


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def worker(bags: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "koch_episodes.convert.cli", str(bags), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*command, "--worker", "--jobs", "1"], env=environment, stderr=subprocess.DEVNULL
    )


def test_workers_that_are_killed_make_the_same_dataset(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    draw = random.Random(1)
    for number in range(8):
        write_bag(f"bags/episode_{number}", seconds=1.0 + draw.random())
    bags, out = tmp_path / "bags", tmp_path / "out"
    work = tmp_path / ".out.parts"
    running = [worker(bags, out) for _ in range(3)]
    killed = 0
    until = time.monotonic() + 120
    while any(each.poll() is None for each in running) and time.monotonic() < until:
        time.sleep(0.02)
        if killed < 3 and len(list(work.glob("*/job.json"))) >= 2 * killed + 1:
            lives = [n for n, each in enumerate(running) if each.poll() is None]
            victim = draw.choice(lives)
            running[victim].send_signal(signal.SIGKILL)
            running[victim].wait()
            killed += 1
            running[victim] = worker(bags, out)
    assert (killed, [each.returncode for each in running]) == (3, [0, 0, 0])
    assert not out.exists()
    made: list[JobResult] = []
    joined = convert(
        [bags], out, ConvertOptions(), resume=True, progress=lambda *told: made.append(told[2])
    )
    assert (joined.info.total_episodes, len(made), joined.failed) == (8, 8, {})
    assert validate_dataset(out).ok
    convert([bags], tmp_path / "alone", ConvertOptions(), jobs=2)
    assert tree_hash(out) == tree_hash(tmp_path / "alone")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_joining_converts_what_no_worker_has(write_bag: WriteBag, tmp_path: Path) -> None:
    bags = [write_bag(f"episode_{number}", seconds=0.7) for number in range(3)]
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        convert_shards(bags, out, ConvertOptions(), progress=interrupt)
    assert len(list((tmp_path / ".out.parts").glob("*/job.json"))) == 1
    assert convert(bags, out, ConvertOptions(), resume=True).info.total_episodes == 3
    with pytest.raises(OutputExistsError):
        convert_shards(bags, out, ConvertOptions())


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_new_conversion_does_not_take_the_ground_from_workers(
    write_bag: WriteBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_BEAT_S", 0.1)
    bag, work = write_bag(seconds=0.7), tmp_path / ".out.parts"
    work.mkdir()
    with leased(work / "other.lease") as mine:
        assert mine
        with pytest.raises(WorkersError, match=r"other\.lease"):
            convert([bag], tmp_path / "out", ConvertOptions())
        assert (work / "other.lease").exists()
    convert([bag], tmp_path / "out", ConvertOptions())


def test_a_bag_that_changes_meanwhile_is_named(
    write_bag: WriteBag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from koch_episodes.convert import worker

    bags = [write_bag(f"episode_{number}", seconds=0.7) for number in range(2)]
    original = worker._convert_bag

    def recorded_on(job: Any) -> JobResult:
        result = original(job)
        if job.bag == bags[1]:
            (job.bag / "episode_1_1.mcap").write_bytes(b"one more")
        return result

    monkeypatch.setattr(worker, "_convert_bag", recorded_on)
    results = convert_shards(bags, tmp_path / "out", ConvertOptions())
    assert results[0].error == ""
    assert "episode_1: changed while it was converted" in results[1].error
    assert len(list((tmp_path / ".out.parts").glob("*/job.json"))) == 1


def test_a_lease_is_had_once_and_free_when_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.lease"
    watch = Watch()
    with leased(path) as mine, leased(path) as other:
        assert (mine, other, watch.is_free(path)) == (True, False, False)
    assert watch.is_free(path)
    script = (
        "from pathlib import Path; from koch_episodes.convert.lease import leased; import os\n"
    )
    script += f"with leased(Path({str(path)!r})): os._exit(0)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert path.exists()
    assert watch.is_free(path)
    assert not path.exists()


def test_a_lease_of_another_computer_runs_out_and_its_holder_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_S", 0.3)
    path = tmp_path / "a.lease"
    path.write_text("17 another-machine 0", encoding="ascii")
    watch = Watch()
    assert not watch.is_free(path)
    os.utime(path, ns=(5, 5))  # a sign of life, whatever that clock says
    assert not watch.is_free(path)
    time.sleep(0.4)
    assert watch.is_free(path)
    with leased(path):
        path.unlink()
        with leased(path) as taken_over:
            assert taken_over
            held = path.read_text()
            threading.Event().wait(0.1)
            assert path.read_text() == held
    assert not path.exists()


def test_worker_goes_with_neither_resume_nor_to_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in ("--resume", "--to-bag"):
        assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--worker", other]) == 2
    assert "--worker" in capsys.readouterr().err
