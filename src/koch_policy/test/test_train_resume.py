# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A run goes on with the data, statistics, split and recipe that it was begun with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.train.data import ArrayFrames, Demonstrations
from koch_policy.train.options import parse
from koch_policy.train.resume import ResumeError
from koch_policy.train.setup import make_trainer
from koch_policy.train.start import _recipe


@pytest.fixture(scope="module")
def run(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    out: Path = tmp_path_factory.mktemp("resume") / "run"
    make_trainer(make.demonstrations(), make.recipe("act", steps=2), out).run()
    return out


def grown(data: Demonstrations) -> Demonstrations:
    """The same, and its first two episodes once more."""
    rows = sum(data.lengths[:2])
    vectors = {k: np.concatenate([v, v[:rows]]) for k, v in data.vectors.items()}
    index = np.concatenate([data.task_index, data.task_index[:rows]])
    return replace(
        data, vectors=vectors, task_index=index, lengths=data.lengths + data.lengths[:2]
    )


def other_values(data: Demonstrations) -> Demonstrations:
    vectors = {key: values.copy() for key, values in data.vectors.items()}
    vectors["action"][7, 3] += 1e-3  # too little for the statistics to show
    return replace(data, vectors=vectors)


def with_images(data: Demonstrations, level: int = 0, last: int = 0) -> Demonstrations:
    """Grey images; those of the last rows are brighter."""
    images = np.full((sum(data.lengths), 48, 64, 3), level, np.uint8)
    images[len(images) - last :] += 1
    return replace(data, frames={"observation.images.front": ArrayFrames(images)})


@pytest.mark.parametrize("last", [0, 40])
def test_other_images_are_refused(last: int, make: Any, tmp_path: Path) -> None:
    data = with_images(make.demonstrations())
    recipe = make.recipe("act", steps=1)
    make_trainer(data, recipe, tmp_path).run()
    same = make_trainer(with_images(make.demonstrations()), recipe, tmp_path, is_new=False)
    assert same.resume() == 1
    changed = with_images(make.demonstrations(), level=0 if last else 3, last=last)
    with pytest.raises(ResumeError) as caught:
        make_trainer(changed, recipe, tmp_path).resume()
    assert caught.value.lines == [
        f"the images of observation.images.front in {data.name} are others"
    ]
    more = grown(make.demonstrations())
    more = replace(more, frames=with_images(more).frames)
    with pytest.raises(ResumeError) as caught:
        make_trainer(more, recipe, tmp_path).resume()
    assert "the dataset has grown: its first 6 episodes are the same" in caught.value.lines


CHANGED: dict[str, tuple[Callable[[Demonstrations], Demonstrations], str]] = {
    "grown": (grown, "its first 6 episodes are the same"),
    "other values": (other_values, "the values in made-up dataset are others"),
    "other rate": (lambda data: replace(data, fps=60.0), "dataset fps: 30.0 -> 60.0"),
    "other units": (lambda data: replace(data, units="degrees"), "dataset units:  -> degrees"),
    "cut otherwise": (lambda data: replace(data, lengths=(80, 80, 80)), "episodes: 6 -> 3"),
    "other names": (
        lambda data: replace(data, names={"action": list("fedcba")}),
        "dataset names: {",
    ),
    "other tasks": (lambda data: replace(data, tasks=("a", "b")), "dataset tasks"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_other_data_are_refused_with_what_differs(change: str, make: Any, run: Path) -> None:
    changed, line = CHANGED[change]
    trainer = make_trainer(changed(make.demonstrations()), make.recipe("act", steps=4), run)
    with pytest.raises(ResumeError, match="pretrained_policy") as caught:
        trainer.resume()
    assert any(line in found for found in caught.value.lines), caught.value.lines


@pytest.mark.parametrize(
    "field",
    [
        {"seed": 7},
        {"validation_fraction": 0.5},
        {"ema_decay": 0.5},
        {"crops": {"observation.images.front": [0.1, 0.1, 0.8, 0.8]}},
        {"outcomes": ("success",)},
    ],
)
def test_another_split_or_state_is_refused(field: dict[str, Any], make: Any, run: Path) -> None:
    trainer = make_trainer(make.demonstrations(), make.recipe("act", steps=4, **field), run)
    with pytest.raises(ResumeError) as caught:
        trainer.resume()
    assert any(next(iter(field)) in line for line in caught.value.lines)


def test_the_same_data_elsewhere_and_more_steps_go_on(make: Any, run: Path) -> None:
    data = replace(make.demonstrations(), name="copied")
    recipe = make.recipe("act", steps=9, log_every=1, save_every=7)
    assert make_trainer(data, recipe, run, is_new=False).resume() == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--policy", "diffusion"], "policy.type: 'act' -> 'diffusion'"),
        (["--preset", "tiny"], "policy.chunk_size"),
        (["--set", "policy.chunk_size=9"], "policy.chunk_size: 8 -> 9"),
        (["--zero-range", "constant"], "train.zero_range: 'refuse' -> 'constant'"),
    ],
)
def test_the_command_line_is_compared_too(arguments: list[str], line: str, run: Path) -> None:
    common = ["--dataset", "d", "--out", str(run), "--resume"]
    with pytest.raises(ResumeError) as caught:
        _recipe(parse([*common, *arguments]))
    assert any(found.startswith(line) for found in caught.value.lines), caught.value.lines
    known = ["--policy", "act", "--set", "policy.chunk_size=8"]
    same = _recipe(parse([*common, *known, "--set", "train.steps=11"]))
    assert same.train.steps == 11
    assert same.policy["chunk_size"] == 8
