# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs: real processes that outlive who started them, and words that a browser cannot widen."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from koch_console.jobs import (
    JOB,
    MOST_RUNNING,
    POLICY,
    PROCESS,
    JobError,
    Jobs,
    begin_of,
    evaluation_words,
    policy_words,
    training_words,
)

# Stands where `koch` stands: says its words, and ends by itself or with Ctrl-C.
PROGRAM = """
import sys, time
print("words", sys.argv[1:], flush=True)
try:
    time.sleep(float(sys.argv[-1]))
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(0)
sys.exit(3 if "fail" in sys.argv else 0)
"""


@pytest.fixture
def jobs(tmp_path):
    made = Jobs(tmp_path, (sys.executable, "-c", PROGRAM))
    yield made
    for job in made.jobs():
        if job.state in ("starting", "running"):
            os.kill(json.loads((job.folder / PROCESS).read_text())["pid"], signal.SIGKILL)


def start(jobs, *words, out="out"):
    return jobs.start("train", "data", words, jobs.root / out)


def test_a_job_ends_well_or_fails_and_says_why(jobs, wait_for):
    good, bad = start(jobs, "a", "0"), start(jobs, "fail", "0", out="b")
    assert wait_for(lambda: (good.state, bad.state) == ("finished", "failed"))
    assert good.log() == "words ['a', '0']\n"
    assert [job.describe()["command"] for job in jobs.jobs()][-1] in ("koch a 0", "koch fail 0")


def test_a_job_outlives_its_console_and_the_next_one_stops_it(jobs, wait_for):
    job = start(jobs, "60")
    assert wait_for(lambda: job.state == "running" and job.log())
    again = Jobs(jobs.root, ())  # a console that starts again
    (found,) = again.jobs()
    assert found.state == "running"
    again.stop(found.folder.name)
    assert wait_for(lambda: found.state == "stopped")
    assert found.log().endswith("saved\n")
    with pytest.raises(JobError, match="ended"):
        again.stop(found.folder.name)


def test_a_killed_job_is_said_to_be_killed_and_its_number_is_nobody_elses(jobs, wait_for):
    job = start(jobs, "60")
    assert wait_for(lambda: job.state == "running")
    (job.folder / "ended.json").unlink(missing_ok=True)
    process = json.loads((job.folder / PROCESS).read_text())
    # The number goes to another process, as after a restart of the computer: it is not the job.
    (job.folder / PROCESS).write_text(json.dumps({**process, "pid": os.getpid()}))
    assert job.state == "killed"
    with pytest.raises(JobError, match="ended"):
        jobs.stop(job.folder.name)
    os.kill(process["pid"], signal.SIGKILL)
    assert begin_of(os.getpid())
    assert begin_of(2**22 + 1) == ""


def test_few_run_at_once_and_none_to_one_place(jobs, wait_for):
    first = start(jobs, "60")
    with pytest.raises(JobError, match="writes to"):
        start(jobs, "60")
    for number in range(1, MOST_RUNNING):
        start(jobs, "60", out=f"{number}")
    with pytest.raises(JobError, match="run already"):
        start(jobs, "60", out="more")
    assert wait_for(lambda: all(job.state == "running" for job in jobs.jobs()))
    assert first.state == "running"


def test_a_damaged_job_hides_no_other(jobs, wait_for):
    job = start(jobs, "0")
    assert wait_for(lambda: job.state == "finished")
    for number, text in enumerate(("{", "[]", "{}", '{"words": 3, "began_s": "x"}')):
        folder = job.folder.with_name(f"9{number}")
        folder.mkdir()
        (folder / JOB).write_text(text)
    assert jobs.jobs() == [job]
    with pytest.raises(JobError):
        jobs.job("../../etc")
    with pytest.raises(JobError, match="not installed"):
        Jobs(jobs.root, ()).start("train", "", (), Path("x"))


def test_a_training_takes_what_is_listed_and_nothing_else(tmp_path):
    asked = {"dataset": "d", "policy": "act", "name": "mine", "steps": 50, "preset": "tiny"}
    words, out = training_words(asked, tmp_path / "d", tmp_path)
    assert out == tmp_path / "mine"
    assert words == [
        "train", "--dataset", str(tmp_path / "d"), "--out", str(out), "--policy", "act",
        "--preset", "tiny", "--set", "train.steps=50",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../out"}, {"name": "--resume"}, {"name": ""}, {"name": None}, {"name": "a/b"},
        {"name": "a" * 200}, {"name": ".koch_jobs"}, {"name": "there"},
        {"policy": "--config"}, {"policy": "/etc/passwd"}, {"preset": "../x"}, {"preset": 3},
        {"steps": 0}, {"steps": "5; rm"}, {"steps": True}, {"steps": 1.5}, {"steps": 10**9},
        {"batch_size": -1}, {"config": "/etc/passwd"}, {"set": ["a=b"]},
    ],
)  # fmt: skip
def test_a_wrong_training_is_refused(tmp_path, wrong):
    (tmp_path / "there").mkdir()
    asked = {"dataset": "d", "policy": "act", "name": "mine", **wrong}
    with pytest.raises(JobError):
        training_words(asked, tmp_path / "d", tmp_path)


def test_an_evaluation_keeps_off_the_graph_and_writes_below_its_run(tmp_path):
    (tmp_path / "checkpoints/000400/pretrained_model").mkdir(parents=True)
    (tmp_path / "checkpoints/last").symlink_to("000400")
    words, out = evaluation_words({"run": "r", "rollouts": 20, "seed": 7}, tmp_path)
    assert "--lockstep" in words
    assert words[words.index("--films") + 1] == "3"
    assert out == tmp_path / "eval/000400-7x20"
    for wrong in ({"checkpoint": "../.."}, {"rollouts": 0}, {"seed": -1}, {"rig": "x"},
                  {"checkpoint": "000800"}, {"scene": "-x"}):  # fmt: skip
        with pytest.raises(JobError):
            evaluation_words({"run": "r", **wrong}, tmp_path)
    out.mkdir(parents=True)
    with pytest.raises(JobError, match="there already"):
        evaluation_words({"run": "r", "rollouts": 20, "seed": 7}, tmp_path)


def test_a_policy_is_run_beside_the_graph_and_counts_as_no_work(jobs, tmp_path, wait_for):
    (tmp_path / "run/checkpoints/000400/pretrained_model").mkdir(parents=True)
    words = policy_words(
        {"run": "r", "checkpoint": "000400"}, tmp_path / "run", ["--rig", "rig.yaml"]
    )
    policy = str(tmp_path / "run/checkpoints/000400/pretrained_model")
    assert words == ["up", "--rig", "rig.yaml", "--policy", policy, "--only", "policy"]
    for wrong in ({"checkpoint": "../.."}, {"checkpoint": "000800"}, {"only": "follower"}):
        with pytest.raises(JobError):
            policy_words({"run": "r", **wrong}, tmp_path / "run", [])
    for number in range(MOST_RUNNING):
        start(jobs, "60", out=str(number))
    jobs.start(POLICY, "r", ["60"], tmp_path / "policy")  # the robot's, whatever trains here
    with pytest.raises(JobError, match="unload it first"):
        jobs.start(POLICY, "r", ["60"], tmp_path / "other")
    nice = {
        job.kind: os.getpriority(os.PRIO_PROCESS, json.loads(found)["pid"])
        for job in jobs.jobs()
        if (found := wait_for(lambda job=job: _text(job.folder / PROCESS)))
    }
    assert nice["train"] > nice[POLICY]


def _text(path):
    return path.read_text() if path.exists() else ""
