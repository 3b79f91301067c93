# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: Chromium steers a real driver and recorder through it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from koch_interfaces.msg import NamedVector

from koch_console.jobs import Jobs
from koch_episodes.convert.cli import main as convert
from koch_episodes.dataset import LeRobotDatasetReader
from koch_rig.arm_model import KOCH_V1_1

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium"),
]
SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample"
PATIENCE_MS = 30_000.0  # other processes may use the machine
_SWITCHES = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium: Playwright's own needs a download of its own.

    It draws in software here, and keeps two cores busy. The emulated servos come first.
    """
    program = tmp_path_factory.mktemp("browser") / "chromium"
    program.write_text(f'#!/bin/sh\nexec nice -n 15 {CHROMIUM} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=_SWITCHES)
        yield found
        found.close()


def open_page(browser: Any, url: str, width: int = 1280, height: int = 720) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url, wait_until="domcontentloaded")
    is_connected(page)
    return page


def is_connected(page: Any) -> None:
    page.wait_for_function("() => document.getElementById('link').textContent === 'connected'")


def says(page: Any, selector: str, text: str, timeout_ms: float = PATIENCE_MS) -> None:
    """Wait until an element has a text."""
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.textContent.includes(text)",
        arg=[selector, text],
        timeout=timeout_ms,
    )


@contextmanager
def recorder(rig: Path, root: Path) -> Iterator[None]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = ["--ros-args", "-p", f"rig:={rig}", "-p", f"root:={root}"]
    command = [sys.executable, "-m", "koch_episodes.recorder.node", *words]
    process = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(15.0)


def test_record_redo_discard_stop_and_a_frozen_camera(bench, browser, tmp_path):
    root = tmp_path / "episodes"
    robot = bench(root=str(root))
    robot.camera.run()
    with robot.driver(), recorder(robot.rig_file, root):
        page, other = (open_page(browser, robot.url) for _ in range(2))
        says(page, "#arm-follower .guard", "holding")
        says(page, "#episode", "idle")
        page.wait_for_function("() => document.querySelector('figure img').naturalWidth === 320")
        says(page, ".joint[data-joint=gripper] .heat", "°C")

        page.fill("#task", "from the page")
        page.keyboard.press("Space")  # in a field it is a letter
        page.keyboard.press("Escape")
        assert page.input_value("#task") == "from the page "
        page.keyboard.press("n")
        says(page, "#phase", "recording")
        says(other, "#phase", "recording")  # both see the same
        page.click("button[data-do='record.redo']")
        page.wait_for_selector("button[data-do='record.redo']:not([aria-busy])")
        says(page, "#episode", "recording · 0 saved")
        page.click("button:has-text('Success')")
        says(page, "#episode", "1 saved")
        page.click("button[data-do='record.discard']")
        says(page, "#toast", "trash")
        page.keyboard.press("u")
        says(page, "#toast", "back")

        page.keyboard.press("Space")
        says(page, "#arm-follower .guard", "the stop service was called")
        says(other, "#arm-follower .guard", "stopped")
        says(other, "#stopped:not([hidden])", "follower stopped")
        other.click("button[data-do='resume']")
        says(page, "#arm-follower .guard", "holding")
        page.wait_for_selector("#stopped", state="hidden")

        robot.camera.freeze()
        says(page, "#episode", "cameras/above")
        page.wait_for_selector("#episode .dot.red", timeout=PATIENCE_MS)
        page.wait_for_selector("#camera-above.stale .dot.red")  # nor does it look like the present
        says(page, "#camera-above .none", "no image for")

        page.click("[data-tab=episodes]")
        says(page, "#list", "from the page")
        page.click("[data-tab=live]")
    # The nodes have ended: no value of theirs stays as if it were the present.
    says(page, "#arm-follower .guard", "says nothing")
    page.wait_for_selector("#arm-follower.stale")
    says(page, ".joint[data-joint=gripper] .angle", "\N{EN DASH}")
    says(page, "#checks", "arm follower its node says nothing")
    says(page, "#episode", "No recorder runs")
    page.close()
    other.close()


def test_a_recording_counts_down_and_ends_by_itself(bench, browser, tmp_path):
    root = tmp_path / "episodes"
    robot = bench(root=str(root))
    robot.camera.run()
    with robot.driver(), recorder(robot.rig_file, root):
        page = open_page(browser, robot.url)
        says(page, "#arm-follower .guard", "holding")
        says(page, "#episode", "idle")
        page.fill("#duration", "6")
        page.click("button[data-do='record.start']")
        says(page, "#phase", "s left")
        page.wait_for_selector("#countdown:not([hidden])")
        left = int(page.inner_text("#phase").split()[1])
        page.wait_for_function(
            "(before) => Number(document.getElementById('phase').textContent.split(' ')[1])"
            " < before",
            arg=left,
        )
        value = "document.getElementById('countdown').value"
        page.wait_for_function(f"() => {value} > 0 && {value} <= 1")
        says(page, "#phase", "1 saved")
        page.close()


def place_of(page: Any, joint: str) -> float:
    return float(page.inner_text(f".joint[data-joint={joint}] .angle").rstrip("°"))


def test_the_pad_moves_the_hand_while_it_is_pressed(bench, browser):
    robot = bench()
    page, other = open_page(browser, robot.url), open_page(browser, robot.url, 390, 844)
    says(page, ".pad .said", "koch up --jog")
    assert page.locator(".pad .keys").is_hidden()
    with robot.driver(jog=True):
        for each in (page, other):
            says(each, "#arm-follower .guard", "holding")
            says(each, ".pad .said", "waits for a word")
            assert (
                each.evaluate("document.documentElement.scrollWidth")
                <= each.viewport_size["width"]
            )
        key = page.locator(".pad button:has-text('Left')").first
        key.scroll_into_view_if_needed()
        begin = place_of(page, "shoulder_pan")
        key.hover()
        page.mouse.down()
        says(page, "#arm-follower .guard", "commanded by teleop")
        says(other, ".pad .said", "holds the pad")
        page.wait_for_function(
            "(begin) => Math.abs(parseFloat(document.querySelector("
            "'.joint[data-joint=shoulder_pan] .angle').textContent) - begin) > 3",
            arg=begin,
        )
        page.mouse.move(1, 1)  # it left the key, though the button is still down
        page.wait_for_selector(".pad .held", state="detached")
        says(other, ".pad .said", "waits for a word")
        page.wait_for_timeout(1000)
        rest = place_of(page, "shoulder_pan")
        page.wait_for_timeout(1000)
        assert abs(place_of(page, "shoulder_pan") - rest) < 0.5
        page.mouse.up()

        key.hover()
        page.mouse.down()
        page.wait_for_selector(".pad .held")
        other.click("#stop")
        says(page, "#arm-follower .guard", "stopped")
        page.wait_for_selector(".pad .held", state="detached")
        page.mouse.up()
        says(page, ".pad .said", "enable switch was opened")
        page.click("button[data-do=resume]")
        says(page, "#arm-follower .guard", "holding")
        page.click("button:has-text('Enable switch on')")
        says(page, ".pad .said", "waits for a word")
        for ending in (
            "window.dispatchEvent(new Event('blur'))",
            "document.querySelector('[data-tab=episodes]').click()",
        ):
            key.hover()
            page.mouse.down()
            page.wait_for_selector(".pad .held")
            page.evaluate(ending)
            page.wait_for_selector(".pad .held", state="detached")
            page.mouse.up()
    for each in (page, other):
        each.close()


def save_policy(folder: Path, fps: float) -> None:
    """A tiny ACT of state and surroundings, which wants all joints near zero."""
    pytest.importorskip("torch", reason="koch_policy's packages are not installed")
    import torch

    from koch_policy.checkpoint import save_checkpoint
    from koch_policy.configs import FeatureType, PolicyFeature
    from koch_policy.metadata import CheckpointMetadata
    from koch_policy.models.registry import build_model
    from koch_policy.policy_configs import ActConfig

    config = ActConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (6,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        chunk_size=20, n_action_steps=10, dim_model=16, n_heads=2, dim_feedforward=32,
        use_vae=False, n_encoder_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    statistics = {
        key: {"mean": torch.zeros(6), "std": torch.full((6,), std)}
        for key, std in (*((name, 1.0) for name in config.input_features), ("action", 0.02))
    }
    extras = CheckpointMetadata(units="radians", fps=fps, names={"action": list(KOCH_V1_1.joints)})
    folder = folder / "checkpoints" / "last" / "pretrained_model"
    save_checkpoint(folder, config, build_model(config), statistics, extras)


@contextmanager
def surroundings(robot: Any) -> Iterator[None]:
    """Publish what the policy sees of the table."""
    node = robot.camera.node
    publisher = node.create_publisher(NamedVector, "/sim/environment_state", 5)

    def publish() -> None:
        message = NamedVector(name=list("abcdef"), value=[0.0] * 6)
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    timer = node.create_timer(0.05, publish)
    yield
    timer.cancel()


def test_a_policy_is_chosen_runs_and_is_taken_over(bench, browser, tmp_path, rig_file, runs):
    text = rig_file.read_text(encoding="utf-8")
    text = text.replace("200}", "800}").replace("300}", "800}")  # this machine may be busy
    text = text.replace("streams:\n", "streams:\n  sim/environment_state: {max_age_ms: 1000}\n")
    feature = "features:\n  observation.environment_state: {stream: sim/environment_state}\n"
    rig_file.write_text(text.replace("features:\n", feature), encoding="utf-8")
    save_policy(runs / "slow", fps=15.0)
    save_policy(runs / "mine", fps=30.0)
    robot = bench(root=str(tmp_path), runs=str(runs))
    with robot.driver(), surroundings(robot):
        page = open_page(browser, robot.url)
        says(page, "#arm-follower .guard", "holding")
        says(page, "#policy", "No policy is loaded")
        says(page, "#checks", "policy none is loaded")
        says(page, "#policy-pick", "mine")
        page.select_option("#policy-pick", label="slow · last")
        page.click("#policy-load")
        says(page, "#policy-job", "could not be loaded", timeout_ms=120_000)
        says(page, "#policy-job", "the policy's actions are 15 per second")
        page.select_option("#policy-pick", label="mine · last")
        page.click("#policy-load")
        says(page, "#policy-job", "loaded: mine")
        says(page, "#policy", "idle", timeout_ms=120_000)
        page.fill("#instruction", "move")
        page.click("button[data-do='policy.run']")
        says(page, "#policy b", "running")
        says(page, "#arm-follower .guard", "commanded by policy")
        page.click("button[data-do='policy.pause']")
        says(page, "#policy b", "paused")
        says(page, "#arm-follower .guard", "holding")
        page.click("#policy-unload")
        says(page, "#toast", "end the run first")
        page.click("button[data-do='policy.resume']")
        says(page, "#policy b", "running")
        page.keyboard.press("Space")
        says(page, "#policy", "aborted")
        says(page, "#policy", "the stop service was called")
        page.click("button[data-do=resume]")
        says(page, "#arm-follower .guard", "holding")
        page.click("button[data-do='policy.run']")
        says(page, "#policy b", "running")
        page.click("button[data-do='policy.stop']")
        says(page, "#policy b", "idle")
        page.click("#policy-unload")
        page.wait_for_selector("#policy-load:not([disabled])")
        says(page, "#policy", "No policy is loaded")
        page.close()


def test_the_player_shows_an_episode_and_everything_is_served_from_here(bench, browser):
    robot = bench(root=str(SAMPLE))
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    asked: list[str] = []
    problems: list[str] = []
    sizes: list[int] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfinished", lambda item: sizes.append(item.sizes()["responseBodySize"]))
    page.set_default_timeout(PATIENCE_MS)
    page.goto(robot.url, wait_until="domcontentloaded")
    page.wait_for_selector("#view3d canvas")
    assert sum(sizes) < 1_500_000
    page.click("[data-tab=episodes]")
    page.click("[data-episode=episode_000000]")
    says(page, "#clock", "/ 13.1 s")
    page.evaluate(
        "const time = document.getElementById('time'); time.value = 6;"
        "time.dispatchEvent(new Event('input'))"
    )
    says(page, "#clock", "6.00")
    page.wait_for_function(
        "() => document.querySelector('#films canvas').getContext('2d')"
        ".getImageData(20, 20, 1, 1).data[0] > 100"
    )
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {
        urlsplit(robot.url).netloc
    }
    page.focus("#time")
    page.keyboard.press("ArrowLeft")  # on the live page it discards and records again
    page.keyboard.press("d")
    assert page.locator("#toast").is_hidden()
    page.keyboard.press("Space")
    says(page, "#toast", "NOT STOPPED")
    assert not problems
    page.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844)])
def test_stop_is_in_sight_and_nothing_is_wider_than_the_screen(bench, browser, width, height):
    robot = bench()
    page = open_page(browser, robot.url, width, height)
    for tab in ("episodes", "training", "live"):
        page.click(f"[data-tab={tab}]")
        page.evaluate("window.scrollTo(0, 500)")
        box = page.locator("#stop").bounding_box()
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Space")
    says(page, "#toast", "NOT STOPPED")
    page.close()


def test_an_old_state_and_a_restart_of_the_server_are_said_and_survived(
    bench, browser, monkeypatch
):
    robot = bench()
    page = open_page(browser, robot.url)
    with monkeypatch.context() as broken:
        broken.setattr(robot.console._robot, "state", lambda: {"joints": float("nan")})
        says(page, "#link", "state is old")
        assert page.evaluate("document.body.classList.contains('lost')")
    is_connected(page)
    assert not page.evaluate("document.body.classList.contains('lost')")
    port = int(robot.url.rpartition(":")[2])
    robot.console.close()
    says(page, "#link", "not connected")
    page.keyboard.press("Space")
    says(page, "#toast", "NOT STOPPED: no connection")
    bench(port=port)
    is_connected(page)
    page.close()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A folder with a dataset; what a failed test left to run there ends."""
    shutil.copytree(SAMPLE / "dataset", tmp_path / "runs" / "blocks")
    yield tmp_path / "runs"
    jobs = Jobs(tmp_path / "runs", ())
    for job in jobs.jobs():
        if job.state == "running":
            jobs.stop(job.folder.name)


def test_a_dataset_is_trimmed_relabelled_and_applied_with_two_pages_open(
    bench, browser, tmp_path, runs
):
    robot = bench(root=str(tmp_path), runs=str(runs))
    page, other = (open_page(browser, robot.url) for _ in range(2))
    for each in (page, other):
        each.click("[data-tab=episodes]")
        each.select_option("#source", "blocks")
        says(each, "#pending-title", "No edits wait")
    page.click("[data-episode='0']")
    says(page, "#clock", "/ 13.0 s")
    page.wait_for_function("() => document.querySelector('#films video').videoWidth > 0")
    for time, key in ((1, "i"), (9, "o")):
        page.evaluate(
            "(time) => { const slider = document.getElementById('time'); slider.value = time;"
            "slider.dispatchEvent(new Event('input')); }",
            time,
        )
        page.keyboard.press(key)
    says(page, "#edit-trim", "Trim to 1.00")
    page.click("#edit-trim")
    says(page, "#pending", "keep 1 to 9 s")
    page.fill("#edit-task", "put it <b>there</b>")
    page.click("#edit-relabel")
    says(page, "#list", "put it <b>there</b>")  # a text, and never HTML
    page.click("#edit-delete")
    says(other, "#pending-title", "3 edits wait")  # both see the same
    other.click("#pending-undo")
    says(page, "#pending-title", "2 edits wait")
    says(page, "#pending-commands", "koch dataset trim")
    page.click("#pending-apply")
    page.wait_for_selector("#source option[value=blocks_r2]", state="attached")
    says(page, "#pending-title", "No edits wait")
    (episode,) = LeRobotDatasetReader(runs / "blocks_r2").episodes
    assert episode.length == 8 * 15
    assert episode.tasks == ("put it <b>there</b>",)
    (before,) = LeRobotDatasetReader(runs / "blocks").episodes
    assert before.length == 195
    page.close()
    other.close()


def test_a_training_is_started_survives_the_console_and_is_stopped(bench, browser, tmp_path, runs):
    pytest.importorskip("torch", reason="koch_policy's packages are not installed")
    robot = bench(root=str(tmp_path), runs=str(runs))
    page = open_page(browser, robot.url)
    page.click("[data-tab=training]")
    page.click("summary:has-text('Train a policy')")
    page.wait_for_selector("#train-form option[value=blocks]", state="attached")
    for field, value in (("preset", "tiny-vision"), ("steps", "100000"), ("name", "mine")):
        page.fill(f"#train-form [name={field}]", value)
    page.click("text=Start training")
    says(page, "#job-title", "koch train --dataset")
    page.wait_for_selector("#jobs li.running")
    robot.console.close()
    says(page, "#link", "not connected")
    bench(port=int(robot.url.rpartition(":")[2]), runs=str(runs))
    is_connected(page)
    says(page, "#jobs", "training on blocks")
    page.click("#jobs li.running button.plain")
    says(page, "#job-log", "to go", timeout_ms=120_000)
    page.click("#jobs button:has-text('Stop')")
    page.wait_for_selector("#jobs li.stopped", timeout=60_000)
    page.wait_for_selector("#evaluate-form option[value=mine]", state="attached")  # it saved
    page.close()


def test_a_recording_is_marked_and_converted_as_marked(bench, browser, tmp_path):
    shutil.copytree(SAMPLE / "episode_000000", tmp_path / "episodes" / "one")
    robot = bench(root=str(tmp_path / "episodes"), runs=str(tmp_path))
    page = open_page(browser, robot.url)
    page.click("[data-tab=episodes]")
    page.click("[data-episode=one]")
    says(page, "#pending-title", "No marks")
    page.fill("#edit-task", "another task")
    page.click("#edit-relabel")
    says(page, "#list", "another task")
    page.evaluate(
        "() => { const slider = document.getElementById('time'); slider.value = 5;"
        "slider.dispatchEvent(new Event('input')); }"
    )
    page.click("#edit-out")
    page.click("#edit-trim")
    says(page, "#pending-title", "2 marks")
    page.click("#edit-delete")
    says(page, "#list", "left out")
    page.click("#pending-undo")
    says(page, "#pending-title", "2 marks")
    rig = str(SAMPLE / "rig.yaml")
    assert (
        convert([str(tmp_path / "episodes"), "--rig", rig, "--out", str(tmp_path / "made")]) == 0
    )
    (episode,) = LeRobotDatasetReader(tmp_path / "made").episodes
    assert episode.tasks == ("another task",)
    assert 4.0 < episode.length / LeRobotDatasetReader(tmp_path / "made").info.fps <= 5.1
    page.close()


@pytest.mark.parametrize(
    ("tab", "address", "place", "text"),
    [
        ("training", "**/jobs", "#jobs", "None was started"),
        ("training", "**/datasets", "#train-form", "blocks"),
        ("training", "**/runs", "#runs-title", "No training runs"),
        ("episodes", "**/datasets", "#source", "blocks"),
        ("episodes", "**/episodes", "#list", "episode_000000"),
    ],
)
def test_what_could_not_be_had_is_had_later(bench, browser, runs, tab, address, place, text):
    """As a server that starts or ends answers some requests with an error."""
    robot = bench(root=str(SAMPLE), runs=str(runs))
    page = open_page(browser, robot.url)
    page.route(address, lambda route: route.fulfill(status=500, body="See the log."))
    page.click(f"[data-tab={tab}]")
    page.wait_for_timeout(500)
    assert text not in page.text_content(place)
    page.unroute(address)
    says(page, place, text)
    page.close()


def test_an_answer_that_was_overtaken_is_not_shown(bench, browser, runs):
    robot = bench(root=str(SAMPLE), runs=str(runs))
    page = open_page(browser, robot.url)
    held: list[Any] = []
    page.route("**/jobs", lambda route: route.continue_() if held else held.append(route))
    page.click("[data-tab=training]")
    page.wait_for_timeout(300)
    page.click("[data-tab=training]")
    says(page, "#jobs", "None was started")
    old = {
        "id": "a",
        "kind": "train",
        "about": "old",
        "command": "",
        "began_s": 0,
        "state": "failed",
    }
    held[0].fulfill(json=[old])
    page.wait_for_timeout(500)
    says(page, "#jobs", "None was started")
    page.close()


def test_recordings_are_ranked(bench, browser, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(SAMPLE / "episode_000000", tmp_path / "episodes" / name)
    robot = bench(root=str(tmp_path / "episodes"), runs=str(tmp_path))
    page = open_page(browser, robot.url)
    page.click("[data-tab=episodes]")
    page.click("#rank")
    says(page, "#ranking tbody tr.doubtful", "duplicate")
    name = page.inner_text("#ranking tbody tr td")
    page.click("#ranking tbody tr")
    says(page, "#edit-title", f"Mark {name}")
    page.close()
