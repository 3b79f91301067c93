# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's list of steps, and its first step with real processes."""

from __future__ import annotations

import json

import pytest

from koch_vla.demo import drive
from koch_vla.demo.step import DemoContext, DemoSettings, Step, run_steps


@pytest.fixture
def context(tmp_path, repository):
    """Return a function that makes a fresh context, as each start of the demo does."""

    def make(**changes):
        settings = DemoSettings(tmp_path / "demo", repository / "config/rig.sim.yaml", **changes)
        lines = []
        made = DemoContext(settings, lines.append)
        made.lines = lines
        return made

    return make


class Work:
    """Steps that count their runs; one may be told to fail."""

    def __init__(self):
        self.runs = []
        self.broken = ""

    def step(self, name, *depends):
        def run(context):
            self.runs.append(name)
            if name == self.broken:
                raise RuntimeError(name)
            return {"value": len(self.runs), "before": sorted(context.results)}

        return Step(name, f"Do {name}", run, depends)

    def steps(self):
        return [self.step("a"), self.step("b", "episodes"), self.step("c", "policy")]


def test_steps_run_in_order_and_see_the_results_before_them(context):
    work, made = Work(), context()
    run_steps(work.steps(), made)
    assert work.runs == ["a", "b", "c"]
    assert made.results["c"]["before"] == ["a", "b"]
    assert [line for line in made.lines if line.startswith("[")][2] == "[3/3] Do c"


def test_a_second_start_does_nothing_again_but_knows_the_results(context):
    work = Work()
    run_steps(work.steps(), context())
    again = context()
    run_steps(work.steps(), again)
    assert work.runs == ["a", "b", "c"]
    assert again.results["b"]["value"] == 2
    assert all(line.endswith("done before") for line in again.lines)


def test_after_an_interruption_it_goes_on_where_it_was(context):
    work = Work()
    work.broken = "b"
    with pytest.raises(RuntimeError):
        run_steps(work.steps(), context())
    work.broken = ""
    run_steps(work.steps(), context())
    assert work.runs == ["a", "b", "b", "c"]


def test_a_changed_setting_redoes_its_step_and_those_after_it(context):
    work = Work()
    run_steps(work.steps(), context())
    run_steps(work.steps(), context(episodes=3))
    assert work.runs == ["a", "b", "c", "b", "c"]
    run_steps(work.steps(), context(policy="flow"))
    assert work.runs[5:] == ["c"]
    run_steps(work.steps(), context())  # all of it is still known
    assert len(work.runs) == 6


def test_a_half_written_marker_counts_for_nothing(context):
    work, made = Work(), context()
    run_steps(work.steps()[:1], made)
    (marker,) = (made.settings.folder / "steps").glob("a.*.json")
    marker.write_text(marker.read_text()[:20])
    run_steps(work.steps()[:1], context())
    assert work.runs == ["a", "a"]


@pytest.mark.ros
@pytest.mark.slow
def test_the_emulated_follower_follows_the_leader(context, monkeypatch, tmp_path):
    monkeypatch.setenv("KOCH_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(drive, "MOTION_S", 3.0)
    made = context()
    results = drive.drive(made)
    assert results["leader_rate_hz"] == pytest.approx(100, abs=20)
    assert results["follower_rate_hz"] == pytest.approx(100, abs=20)
    assert 0 < results["lag_ms"] < 400
    assert results["worst_error_deg"] < 5
    json.dumps(results)
