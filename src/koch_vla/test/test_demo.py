# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's list of steps, and its first step with real processes."""

from __future__ import annotations

import base64
import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from koch_driver.arm.latch import SafetyLatch, StopCause, latch_path
from koch_ros.errors import NoAnswerError
from koch_vla import cli, demo, learning_steps
from koch_vla.demo import drive, learn, record, rollouts
from koch_vla.demo.record import Tally
from koch_vla.demo.report import Page, ReportImage, headline, rows, text_table
from koch_vla.demo.step import DemoContext, DemoSettings, DemoStep
from koch_vla.errors import DemoError, StepError
from koch_vla.steps import alone, run_steps, run_subcommand


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

        return DemoStep(name, f"Do {name}", run, depends)

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


def test_what_keeps_an_arm_still_elsewhere_keeps_no_demo_from_its_end(monkeypatch, tmp_path):
    for name in ("KOCH_RUN_DIR", "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, str(tmp_path))  # put back behind the test
    SafetyLatch(latch_path("follower")).stop(StopCause.POWER, "a killed demo's arm is limp")
    assert SafetyLatch(latch_path("follower")).state.stops
    with demo.isolated():
        assert not SafetyLatch(latch_path("follower")).state.stops


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.alone
def test_the_emulated_follower_follows_the_leader(context, monkeypatch, tmp_path):
    monkeypatch.setenv("KOCH_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(drive, "MOTION_S", 3.0)
    made = context()
    results = drive.drive(made)
    for arm in ("leader", "follower"):  # 100 Hz; the lower bound is for busy machines
        assert 40 < results[f"{arm}_rate_hz"] < 110
    assert 0 < results["lag_ms"] < 400
    assert results["worst_error_deg"] < 5
    json.dumps(results)


RESULTS = {
    "record": {"episodes": 3, "attempts": 4, "megabytes": 12.3, "seconds": 60.0},
    "convert": {"episodes": 3, "frames": 900, "fps": 30, "megabytes": 4.5, "seconds": 5.0},
    "train": {"loss": 0.03, "step": 3000.0, "error": 1.25, "seconds": 9.0},
    "rollouts": {
        "rollouts": 2, "successes": 1, "success_interval": [0.09, 0.91], "median_success_s": 9.0,
        "guard": {"speed/gripper": 15, "age/": 2}, "seconds": 40.0,
        "policy": {"delay_p50_s": 0.01, "delay_p95_s": 0.02, "runtime": "torch"},
    },
}  # fmt: skip


def test_the_table_tells_what_really_came_out():
    table = dict(rows(RESULTS))
    assert table["demonstrations"] == "3 kept of 4 tried, 12 MB"
    assert table["success of the scripted expert"] == "3 of 4 (75%)"
    assert headline(RESULTS, "Do it.").startswith("The policy succeeded in 1 of 2 runs")
    assert table["success of the policy"] == "1 of 2 (95 % interval 9% to 91%)"
    assert table["time of a successful rollout"] == "9.0 s"
    assert table["changed by the guard"] == "17 bus cycles (speed/gripper 15, age/ 2, ...)"
    assert table["inference delay"] == "median 10 ms, 95th percentile 20 ms (torch)"
    assert table["time"].startswith("2 min (record 60 s, convert 5 s")
    lines = text_table(rows(RESULTS))
    values = [value for _, value in rows(RESULTS)]
    assert len({line.index(value) for line, value in zip(lines, values, strict=True)}) == 1


def test_the_page_holds_its_images_and_escapes_its_texts(tmp_path):
    png = tmp_path / "a.png"
    png.write_bytes(b"\x89PNG data")
    film = tmp_path / "film.mp4"
    film.write_bytes(b"moving")
    page = tmp_path / "out/report.html"
    Page(
        "a <b>", "h & i", "lead", [("x", "1 < 2")],
        [ReportImage("p & q", png), ReportImage("f", film)],
        {"data": str(tmp_path / "a dataset"), "none": ""}, {"again": "koch demo > x"},
    ).write(page)  # fmt: skip
    text = page.read_text()
    assert "<h1>h &amp; i</h1>" in text
    assert 'href="../a%20dataset"' in text
    assert "<code>koch demo &gt; x</code>" in text
    assert 'name="viewport"' in text
    assert "data:video/mp4;base64,bW92aW5n" in text
    assert ">none<" not in text
    assert "a &lt;b&gt;" in text
    assert "1 &lt; 2" in text
    encoded = re.search(r"data:image/png;base64,([^\"]+)", text).group(1)
    assert base64.b64decode(encoded) == png.read_bytes()


def test_a_subcommand_that_fails_ends_the_step_with_its_last_lines(tmp_path):
    said = []
    log = tmp_path / "logs/x.log"
    with pytest.raises(StepError, match=r"exit code 2(.|\n)*there is no subcommand 'nonsense'"):
        run_subcommand(["nonsense"], log, said.append)
    assert "koch nonsense" in log.read_text()
    run_subcommand(["--version"], log, said.append)
    assert "koch_vla 0." in log.read_text()


def test_the_demo_learns_any_policy_that_has_a_small_preset(capsys):
    seeing = ["act", "diffusion", "diffusion_transformer", "flow"]
    assert demo.policies("tiny") == sorted([*seeing, "fast"])
    assert demo.policies("vision") == seeing
    assert demo.parse(["--policy", "diffusion_transformer"]).policy == "diffusion_transformer"
    with pytest.raises(SystemExit):
        demo.parse(["--policy", "atc"])
    assert "diffusion_transformer" in capsys.readouterr().err


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command line says of words that do not go together."""
    with pytest.raises(SystemExit) as ended:
        demo.parse(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", [["--episodes", "0"], ["--rollouts", "-1"]])
def test_senseless_numbers_are_refused(words, capsys):
    assert f"{words[0]}: got {words[1]}, expected 1 or more" in refusal(capsys, *words)


@pytest.mark.parametrize("name", ["rig.yaml", "rig.emulated.yaml"])
def test_a_rig_without_a_simulated_table_is_refused(name, repository, tmp_path, capsys):
    folder = tmp_path / "demo"
    words = ["demo", "--rig", str(repository / "config" / name), "--folder", str(folder)]
    assert cli.main(words) == 2
    assert "never moves real arms" in capsys.readouterr().err
    assert not folder.exists()


def test_two_demos_do_not_share_a_folder(tmp_path):
    with alone(tmp_path, "koch demo"), pytest.raises(StepError, match="another koch demo"):  # noqa: SIM117
        with alone(tmp_path, "koch demo"):
            pass
    with alone(tmp_path, "koch demo"):
        assert (tmp_path / "lock").exists()


def test_fresh_removes_a_demos_folder_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "steps", list)
    monkeypatch.setattr(demo, "isolated", nullcontext)
    monkeypatch.setattr(demo, "run_steps", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    assert demo.main(["--fresh", "--folder", str(precious)]) == 130
    assert (precious / "thesis.txt").exists()
    (precious / "steps").mkdir()
    assert demo.main(["--fresh", "--folder", str(precious)]) == 130
    assert not (precious / "thesis.txt").exists()


def test_a_policy_from_cameras_alone_never_sees_the_true_poses(context, monkeypatch):
    made = context(vision=True)
    folder = learn.dataset_folder(made.settings)
    (folder / "meta").mkdir(parents=True)
    keys = ["observation.state", "observation.images.above", "observation.environment_state"]
    keys += ["observation.images.left", "observation.images.wrist", "action"]
    info = {"features": {key: {} for key in keys}}
    (folder / "meta/info.json").write_text(json.dumps(info))
    commands = []

    def note(words, log, say):
        commands.append(words)
        out = learn.training_folder(made.settings)
        out.mkdir(parents=True)
        (out / "loss.csv").write_text("step,loss\n1,0.5\n")

    monkeypatch.setattr(learning_steps, "run_subcommand", note)
    assert learn.train(made)["loss"] == 0.5
    assert commands[0][commands[0].index("--preset") + 1] == "vision"
    assert not any("environment_state" in word for word in commands[0])
    keys[keys.index("observation.images.wrist")] = "observation.images.hand"
    (folder / "meta/info.json").write_text(json.dumps({"features": {key: {} for key in keys}}))
    shutil.rmtree(learn.training_folder(made.settings))
    learn.train(made)
    wanted = "observation.state,observation.images.above"
    assert f"train.inputs=[{wanted}]" in commands[1]
    assert "train.crops={}" in commands[1], "of cameras that are not there"


def test_cameras_of_another_rig_are_all_seen(tmp_path):
    (tmp_path / "meta").mkdir()
    features = {"observation.state": {}, "observation.images.front": {}, "action": {}}
    (tmp_path / "meta/info.json").write_text(json.dumps({"features": features}))
    seen = learn.seen_by_cameras(tmp_path)
    assert seen == ["observation.state", "observation.images.front"]


def test_a_policy_that_has_to_look_gets_more_demonstrations(capsys):
    def settings(*words: str) -> DemoSettings:
        return demo.settings_of(demo.parse(list(words)))

    assert settings() == settings("--vision")
    assert "--quick: got '--vision beside it'" in refusal(capsys, "--quick", "--vision")
    seeing, knowing = settings(), settings("--quick")
    assert (seeing.vision, seeing.episodes, seeing.rollouts) == (True, 100, 20)
    assert (knowing.vision, knowing.episodes, knowing.rollouts) == (False, 20, 10)
    assert settings("--episodes", "7", "--rollouts", "3").rollouts == 3
    assert settings("--vision", "--episodes", "7").episodes == 7


def test_a_policy_without_a_preset_for_cameras_is_refused_before_anything_is_recorded(capsys):
    assert demo.parse(["--policy", "fast", "--quick"]).policy == "fast"
    said = refusal(capsys, "--policy", "fast")
    assert "--policy: got 'fast without --quick', expected act" in said


def test_a_told_policy_learns_and_is_tried_with_other_sentences(context, monkeypatch):
    asked = []

    def hear(words, log, say, **_):
        asked.append(words)
        if words[0] == "record":
            count, folder = int(words[words.index("-n") + 1]), words[words.index("--root") + 1]
            for index in range(count):
                episode = Path(folder) / f"episode_{index:06}"
                episode.mkdir(parents=True)
                (episode / "metadata.yaml").touch()

    monkeypatch.setattr(learning_steps, "run_subcommand", hear)
    made = context(episodes=2, vision=True, language=True)
    results = record.record(made)
    assert results["lockstep"], "the nodes' world has one block"
    made.results["record"] = results
    folder = learn.training_folder(made.settings)
    monkeypatch.setattr(learn, "seen_by_cameras", lambda _: [
        "observation.state", "observation.images.above", "observation.images.wrist"])  # fmt: skip
    assert learn._preset(made.settings) == ["--preset", "vla-tiny"]
    found = made.settings.folder / f"rollouts_act_language_2_{made.settings.rollouts}"
    found.mkdir(parents=True)
    (found / "eval.json").write_text('{"successes": 1, "rollouts": 2}')
    rollouts.rollouts(made)
    wording = [words[words.index("--wording") + 1] for words in asked]
    assert wording == ["train", "held-out"]
    assert all(words[words.index("--scene") + 1] == "colour_in_cup" for words in asked)
    assert "--lockstep" in asked[1]
    assert str(folder) in asked[1][asked[1].index("--policy") + 1]


def test_the_report_tells_what_was_done_for_each_sentence():
    red, blue = "Put the red block into the cup.", "Put the blue block into the cup."
    trials = [
        {"asked": "red_block", "sentence": red, "success": True, "lifted": "red_block"},
        {"asked": "red_block", "sentence": red, "success": False, "lifted": "blue_block"},
        {"asked": "blue_block", "sentence": blue, "success": False, "lifted": ""},
    ]
    evaluated = {"rollouts": 3, "successes": 1, "success_interval": [0.1, 0.8], "trials": trials}
    table = dict(rows({"rollouts": evaluated}))
    expected = "1 of 2 succeeded; lifted first: red block 1, blue block 1"
    assert table[f'"{red}"'] == expected
    assert table[f'"{blue}"'] == "0 of 1 succeeded; lifted first: nothing"
    one = {**evaluated, "trials": trials[:2]}
    assert f'"{red}"' not in dict(rows({"rollouts": one})), "one task is no choice"


def test_a_language_demo_keeps_apart_and_needs_cameras(capsys, tmp_path):
    settings = demo.settings_of(demo.parse(["--language", "--folder", str(tmp_path)]))
    assert settings.folder == tmp_path / "language"
    assert (settings.vision, settings.variant) == (True, "act_language")
    assert (settings.episodes, settings.rollouts) == demo.USUAL_TOLD
    assert "one of the two" in refusal(capsys, "--quick", "--language")
    assert "act or flow" in refusal(capsys, "--language", "--policy", "diffusion")


def test_what_cameras_need_is_recorded_in_lockstep_and_no_seed_twice(context, monkeypatch):
    monkeypatch.setattr(record, "ON_THE_GRAPH", 0)
    made, commands = context(vision=True, episodes=4), []
    folder = made.settings.folder / "episodes"

    def interrupted(words, log, say):
        commands.append(words)
        for number in range(2):
            episode = folder / f"episode_{len(commands)}{number}"
            episode.mkdir(parents=True)
            (episode / "metadata.yaml").touch()

    monkeypatch.setattr(learning_steps, "run_subcommand", interrupted)
    assert record.record(made)["episodes"] == 2
    assert record.record(made)["episodes"] == 4
    asked = [
        (words[words.index("-n") + 1], words[words.index("--seed") + 1]) for words in commands
    ]
    assert asked == [("4", "0"), ("2", "5")]
    assert all("--even" in words for words in commands)


def test_the_first_demonstrations_pass_through_all_nodes(context, monkeypatch):
    made, asked = context(vision=True, episodes=5), []
    folder = made.settings.folder / "episodes"

    def add(count):
        for number in range(count):
            episode = folder / f"episode_{len(asked)}{number}"
            episode.mkdir(parents=True)
            (episode / "metadata.yaml").touch()

    def on_the_graph(beginning, *_):
        asked.append(beginning.settings.episodes)
        add(2)
        beginning.settings = replace(beginning.settings, speed=0.5)

    def in_lockstep(words, log, say):
        asked.append(words[words.index("-n") + 1])
        add(3)

    monkeypatch.setattr(record, "_record_at_some_speed", on_the_graph)
    monkeypatch.setattr(learning_steps, "run_subcommand", in_lockstep)
    found = record.record(made)
    assert asked == [2, "3"]
    assert (found["speed"], found["lockstep"]) == (1.0, False), "rollouts run on the graph as well"
    assert made.settings.episodes == 5


def test_spoiled_recordings_end_the_demo_with_a_cause_and_a_way_out():
    tally = Tally()
    for _ in range(3):
        for _ in range(2):
            tally.was_spoiled("red: cameras/above: 1 gap(s)")
        tally.kept()  # only a row of them counts
    for _ in range(2):
        tally.was_spoiled("red: cameras/above: 1 gap(s)")
    with pytest.raises(DemoError, match=r"cameras/above.*--speed 0\.5"):
        tally.was_spoiled("red: cameras/above: 1 gap(s)")
    assert tally.spoiled == 9


def test_demonstrations_that_fail_in_a_row_slow_the_recording_down():
    tally = Tally()
    for _ in range(9):
        tally.failed()
        tally.failed()
        tally.kept()
    tally.failed()
    tally.was_spoiled("red: cameras/above: 1 gap(s)")
    with pytest.raises(record.SpoiledError, match=r"3 recordings in a row.*did not get into"):
        tally.failed()
    assert tally.spoiled == 1


def test_an_episode_with_faults_is_drawn_all_the_same(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(StepError, match="exit code 2"):
        run_subcommand(["nonsense"], log, print)
    run_subcommand(["nonsense"], log, print, good=(0, 2))


@pytest.mark.parametrize("speed", ["0", "-1", "99", "nan"])
def test_a_senseless_speed_is_refused(speed, capsys):
    said = refusal(capsys, "--speed", speed)
    assert re.search("expected (a finite number, )?0.05 to 20", said)


def test_a_machine_that_cannot_keep_up_records_at_half_the_speed(tmp_path, monkeypatch):
    tried, lines = [], []

    def record_on_the_graph(context, folder, attempts, tally):
        tried.append(context.settings.speed)
        if context.settings.speed > 0.5:
            raise record.SpoiledError(6, "red")

    monkeypatch.setattr(record, "_record_on_the_graph", record_on_the_graph)
    context = DemoContext(DemoSettings(tmp_path, tmp_path / "rig.yaml"), lines.append)
    results = record.record(context)
    assert tried == [1.0, 0.5]
    assert results["speed"] == context.settings.speed == 0.5
    assert "6 recordings in a row were not to be used: going on at 0.5 x" in lines[0]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (record.SpoiledError(3, "red"), "3 recordings in a row were not to be used"),
        (NoAnswerError("service sim/demonstrate", 20.0), "did not answer within 20 s"),
        (record.WorldSilentError(240.0, Path("up.log")), "did not start within 240 s"),
    ],
)
def test_a_machine_that_is_too_slow_for_any_clock_goes_on_in_lockstep(
    tmp_path, monkeypatch, error, words
):
    lines, commands = [], []

    def never(context, folder, attempts, tally):
        raise error

    monkeypatch.setattr(record, "_record_on_the_graph", never)
    record_all = lambda words, log, say: commands.append(words)  # noqa: E731
    monkeypatch.setattr(learning_steps, "run_subcommand", record_all)
    context = DemoContext(DemoSettings(tmp_path, tmp_path / "rig.yaml"), lines.append)
    results = record.record(context)
    assert (results["speed"], results["lockstep"]) == (record.SLOWEST, True)
    assert commands[0][:4] == ["record", "--lockstep", "-n", "20"]
    assert f"{words}: going on in lockstep." in lines[1]
    context.results["record"] = results
    with pytest.raises(StepError, match="no readable result"):
        rollouts.rollouts(context)
    assert "--lockstep" in commands[1]
    assert "--speed" not in commands[1]
