# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Going on from a checkpoint, frozen weights, and several datasets trained on as one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ACTION, STATE
from koch_policy.errors import ConfigError, DatasetError
from koch_policy.train.cli import main
from koch_policy.train.config import LoraOptions, TrainConfig
from koch_policy.train.data import ArrayFrames, drawn_rows
from koch_policy.train.finetune import freeze, freeze_norms, kept_statistics
from koch_policy.train.lora import add_adapters, merged
from koch_policy.train.metrics import prepare
from koch_policy.train.mixture import column_weights, joined, named_dataset, picked
from koch_policy.train.setup import make_trainer
from koch_policy.train.source import open_all

STEPS = ["--set", "train.steps=4", "--set", "train.batch_size=4", "--threads", "1"]
TINY = [
    *STEPS, "--set", "policy.dim_model=32", "--set", "policy.n_heads=2",
    "--set", "policy.chunk_size=8", "--set", "policy.n_action_steps=8",
]  # fmt: skip


def with_column(root: Path, name: str, values: Any) -> None:
    """Add a column of truths to a dataset; `values` makes it from the number of frames."""
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.append_column(name, pa.array(values(len(table)))), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][name] = {"dtype": "bool", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))


def shifted(data: Any, by: float, **changes: Any) -> Any:
    """The same demonstrations elsewhere."""
    moved = {key: values + np.float32(by) for key, values in data.vectors.items()}
    return replace(data, vectors=moved, **changes)


# -- several datasets -------------------------------------------------------------------------


def test_joined_datasets_keep_their_rows_images_and_tasks(make: Any) -> None:
    first = make.demonstrations(images=True)
    second = shifted(first, 3.0, name="other", tasks=("reach right", "push"))
    other = ArrayFrames(255 - first.frames[make.camera].images)
    second = replace(second, frames={make.camera: other})
    both = joined([first, second], [1.0, 2.0])
    count = sum(first.lengths)
    assert both.lengths == first.lengths * 2
    assert both.tasks == ("reach left", "reach right", "push")
    assert [both.tasks[n] for n in both.task_index[[0, 40, count, count + 40]]] == [
        "reach left", "reach right", "reach right", "push",
    ]  # fmt: skip
    np.testing.assert_array_equal(both.vectors[STATE][count:], second.vectors[STATE])
    rows = np.array([count + 3, 2, count - 1, count])
    images = both.frames[make.camera].read(rows)
    np.testing.assert_array_equal(images[0], other.images[3])
    np.testing.assert_array_equal(images[2], first.frames[make.camera].images[count - 1])
    assert (both.weights == np.repeat([1.0, 2.0], count)).all()
    assert joined([first], [1.0]) is first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 15.0}, "frames per second are 15"),
        ({"units": "degrees"}, "units are degrees"),
        ({"names": {STATE: list("abcdef")}}, "names are"),
    ],
)
def test_datasets_that_mean_other_things_are_not_joined(
    make: Any, change: dict[str, Any], message: str
) -> None:
    data = make.demonstrations()
    with pytest.raises(DatasetError, match=message):
        joined([data, replace(data, name="other", **change)], [1.0, 1.0])


def test_picked_episodes_bring_their_own_rows(make: Any) -> None:
    data = make.demonstrations(images=True)
    data = replace(data, weights=np.arange(sum(data.lengths), dtype=np.float32))
    some = picked(data, [4, 1, 4])
    starts = data.starts
    assert some.lengths == (data.lengths[1], data.lengths[4])
    np.testing.assert_array_equal(
        some.vectors[ACTION][40:], data.vectors[ACTION][starts[4] : starts[4] + 40]
    )
    np.testing.assert_array_equal(
        some.frames[make.camera].read(np.array([40]))[0],
        data.frames[make.camera].read(np.array([starts[4]]))[0],
    )
    assert some.weights is not None
    assert some.weights[40] == starts[4]
    assert picked(data, []) is data
    with pytest.raises(DatasetError, match=r"no episode 6 .*0 to 5"):
        picked(data, [0, 6])


def test_rows_are_drawn_by_their_weight_and_all_alike_without() -> None:
    rows = np.arange(50, 90)
    plain = drawn_rows(rows, None, 7, 3)
    assert sorted(plain) == list(rows)
    np.testing.assert_array_equal(plain, rows[np.random.default_rng([7, 3]).permutation(40)])
    weights = np.ones(100, np.float32)
    weights[50:60], weights[60:70] = 3.0, 0.0
    counts = np.bincount(drawn_rows(rows, weights, 7, 3), minlength=100)
    assert counts.sum() == 40
    assert (counts[60:70] == 0).all()
    share = 40 * weights[rows] / weights[rows].sum()
    assert (np.abs(counts[rows] - share) < 1.0).all()
    with pytest.raises(DatasetError, match="zero"):
        drawn_rows(rows, np.zeros(100, np.float32), 7, 3)


def test_a_column_weighs_the_frames_where_it_is_true() -> None:
    columns = {"intervention": np.array([[True], [False]]), "part": np.array([0.5, 1.0])}
    found = column_weights(columns, {"intervention": 5.0, "part": 0.0}, "data")
    np.testing.assert_allclose(found, [2.5, 0.0])
    assert column_weights(columns, {}, "data") is None
    with pytest.raises(DatasetError, match=r"from -1\.0 to 4\.0"):
        column_weights({"x": np.array([-1.0, 4.0])}, {"x": 2.0}, "data")


def test_a_dataset_is_named_with_its_weight(tmp_path: Path) -> None:
    odd = tmp_path / "a:2"
    odd.mkdir()
    assert named_dataset("d/e:0.5") == (Path("d/e"), 0.5)
    assert named_dataset("d/e") == (Path("d/e"), 1.0)
    assert named_dataset(str(odd)) == (odd, 1.0)
    for text in ("d:0", "d:nan", "d:-1", "d:two", "d:inf"):
        with pytest.raises(ConfigError, match="above zero"):
            named_dataset(text)


# -- frozen weights ------------------------------------------------------------------------------


def test_frozen_weights_stay_to_the_bit_and_others_learn(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act", freeze=["encoder", "action_head.bias"])
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path, show_progress=False)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.run()
    after = trainer.model.state_dict()
    rested = [key for key in before if key.startswith("encoder.") or key == "action_head.bias"]
    assert len(rested) > 5
    assert all(torch.equal(before[key], after[key]) for key in rested)
    assert not torch.equal(before["action_head.weight"], after["action_head.weight"])


def test_a_pattern_without_weights_is_refused_by_name(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act", freeze=["encodr"])
    with pytest.raises(ConfigError, match=r"'encodr'.*modules are .*encoder"):
        make_trainer(make.demonstrations(), recipe, tmp_path)
    with pytest.raises(ConfigError, match="something left to train"):
        make_trainer(make.demonstrations(), make.recipe("act", freeze=["*"]), tmp_path)


def test_norms_of_frozen_weights_keep_their_running_statistics() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3))
    freeze(model, ["0"])
    model.train()
    freeze_norms(model)
    model(torch.full((4, 3), 5.0) + torch.arange(4.0)[:, None])
    first, second = (each.running_mean for each in model)
    assert torch.equal(first, torch.zeros(3))
    assert not torch.equal(second, torch.zeros(3))


# -- low-rank adapters ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["act", "fast", "flow", "diffusion_transformer"])
def test_adapters_learn_beside_frozen_weights_and_are_merged(
    kind: str, make: Any, tmp_path: Path
) -> None:
    start = make.checkpoint(kind, tmp_path / "start")
    lora = {"rank": 2, "alpha": 4, "targets": []}
    recipe = make.recipe(kind, pretrained_policy=str(start), lora=lora, ema_decay=0.0)
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path / "o", show_progress=False)
    first = load_checkpoint(start).model.state_dict()
    trainer.run()
    model = trainer.model.eval()
    originals = {
        key.replace(".parametrizations.", ".").removesuffix(".original"): value
        for key, value in model.state_dict().items()
        if not key.endswith((".0.a", ".0.b"))
    }
    assert all(torch.equal(originals[key], value) for key, value in first.items())
    learned = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert learned
    assert all(name.endswith((".0.a", ".0.b")) for name in learned)
    saved = load_checkpoint(tmp_path / "o")
    assert saved.model.state_dict().keys() == first.keys()
    assert not all(torch.equal(saved.model.state_dict()[key], first[key]) for key in first)
    batch = prepare(
        trainer.training.batch(trainer.training.rows()[:5]), trainer.normalizer, trainer.device
    )
    losses = []
    for each in (model, saved.model):
        torch.manual_seed(0)
        losses.append(float(each.loss(batch)[0].detach()))  # type: ignore[operator]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_an_adapter_is_the_product_of_its_factors(make: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Embedding(5, 6))
    before = model[0].weight.detach().clone()
    add_adapters(model, LoraOptions(rank=2, alpha=6.0))
    assert torch.equal(model[0].weight, before)  # B is zero at first
    low_rank = model[0].parametrizations.weight[0]  # type: ignore[index, union-attr]
    with torch.no_grad():
        low_rank.b.normal_()
    expected = before + 3.0 * low_rank.b @ low_rank.a
    torch.testing.assert_close(model[0].weight, expected)
    plain = merged(model)
    torch.testing.assert_close(plain.state_dict()["0.weight"], expected)
    assert sorted(plain.state_dict()) == ["0.bias", "0.weight", "1.weight"]


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_with_adapters_resumes_to_the_bit(
    ema_decay: float, make: Any, tmp_path: Path
) -> None:
    start = make.checkpoint("act", tmp_path / "start")
    data = make.demonstrations()

    def trainer(out: str, steps: int, **changes: Any) -> Any:
        lora = {"rank": 2, "targets": ["encoder", "decoder"]}
        recipe = make.recipe(
            "act", pretrained_policy=str(start), lora=lora, steps=steps, ema_decay=ema_decay,
            save_every=3, final_rate_fraction=1.0,
        )  # fmt: skip
        return make_trainer(data, recipe, tmp_path / out, show_progress=False, **changes)

    trainer("whole", 6).run()
    trainer("parts", 3).run()
    second = trainer("parts", 6, is_new=False)
    assert second.resume() == 3
    second.run()
    ends = [load_checkpoint(tmp_path / name).model.state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())


def test_adapters_of_nothing_are_refused_by_name(make: Any, tmp_path: Path) -> None:
    start = str(make.checkpoint("act", tmp_path / "start"))

    def build(**train: Any) -> None:
        make_trainer(make.demonstrations(), make.recipe("act", **train), tmp_path / "o")

    with pytest.raises(ConfigError, match=r"lora.targets.*'encodr'.*modules are .*encoder"):
        build(pretrained_policy=start, lora={"targets": ["encodr"]})
    with pytest.raises(ConfigError, match=r"'action_head.bias'.*with a matrix"):
        build(pretrained_policy=start, lora={"targets": ["action_head.bias"]})
    with pytest.raises(ConfigError, match=r"lora.rank.*0"):
        build(pretrained_policy=start, lora={"rank": 0})
    with pytest.raises(ConfigError, match="without --from"):
        build(lora={"rank": 4})


# -- koch train --from -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(make: Any, tmp_path_factory: Any) -> tuple[Path, Path]:
    """A dataset and a short run on it."""
    folder = Path(tmp_path_factory.mktemp("start"))
    dataset = make.dataset(folder / "reach")
    arguments = ["--dataset", str(dataset), "--out", str(folder / "run"), *TINY]
    assert main([*arguments, "--set", "train.seed=3"]) == 0
    return dataset, folder / "run"


def statistics(run: Path) -> dict[str, Any]:
    """Those of a run's last checkpoint."""
    return dict(load_checkpoint(run).statistics)


def test_going_on_keeps_network_and_statistics_and_says_so(
    trained: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    dataset, run = trained
    source = Path(shutil.copytree(run, tmp_path / "source", symlinks=True))
    out = tmp_path / "tuned"
    few = ["--dataset", str(dataset), "--out", str(out), "--set", "train.episodes=[0,3]"]
    assert main([*few, "--from", str(source), *STEPS]) == 0
    said = capsys.readouterr().err
    assert "are kept from" in said
    assert "trained under them" in said
    assert "units are taken to be the same" not in said
    tuned, first = load_checkpoint(out), load_checkpoint(run)
    assert tuned.config == first.config
    for key, values in statistics(run).items():
        for name, value in values.items():
            torch.testing.assert_close(statistics(out)[key][name], value)
    assert tuned.extras.training["data"]["episodes"] == 2
    shutil.rmtree(source)  # the run goes on without what it began from
    assert main([*few, "--from", str(source), *STEPS, "--resume", "--set", "train.steps=6"]) == 0


def test_episodes_are_selected_by_expression_in_each_dataset(
    make: Any, tmp_path: Path, capsys: Any
) -> None:
    """Plain numbers count over all datasets; an expression asks each of its own episodes."""
    near, far = (Path(make.dataset(tmp_path / name)) for name in ("near", "far"))
    lengths = open_all([str(near)], TrainConfig()).lengths
    both = ["--dataset", str(near), "--dataset", f"{far}:2"]
    out = tmp_path / "run"
    text = "source == 'near' and index in (1, 2) or source == 'far' and index == 0"
    words = [*both, "--out", str(out), *TINY]
    assert main([*words, "--episodes", text, "--set", "train.validation_fraction=0"]) == 0
    assert f"selected {text}" in capsys.readouterr().err
    training = load_checkpoint(out).extras.training
    assert training["selection"] == {
        "episodes": text,
        "selected": {str(near): [1, 2], str(far): [0]},
    }
    assert training["data"]["episodes"] == 3
    assert training["data"]["frames"] == lengths[1] + lengths[2] + lengths[0]
    assert main([*words, "--resume", "--episodes", "index == 0"]) == 2
    assert "train.episodes" in capsys.readouterr().err
    assert main([*words, "--resume", "--set", "train.steps=5"]) == 0
    one = open_all([str(near), str(far)], TrainConfig(episodes="source == 'far' and index < 2"))
    assert (one.name, one.lengths) == (str(far), lengths[:2])
    counted = len(lengths) + 1
    numbered = open_all([str(near), str(far)], TrainConfig(episodes=f"0,{counted}"))
    assert numbered.lengths == (lengths[0], lengths[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index > 900", "train.episodes 'index > 900' selects no episode"),
        ("outcme == 'success'", "column 1: got the field 'outcme'"),
        ("index = 3", "Compare with '=='"),
        ("900", "has no episode 900 (train.episodes)"),
        ("3-x", "'3-x' is no episode number"),
    ],
)
def test_a_selection_of_nothing_is_refused(
    make: Any, tmp_path: Path, capsys: Any, text: str, message: str
) -> None:
    dataset = Path(make.dataset(tmp_path / "data"))
    words = ["--dataset", str(dataset), "--out", str(tmp_path / "run"), *TINY]
    assert main([*words, "--episodes", text]) == 2
    assert message in capsys.readouterr().err


def test_units_that_a_checkpoint_does_not_name_are_said_to_be_believed(
    trained: tuple[Path, Path], make: Any
) -> None:
    start = load_checkpoint(trained[1])
    start = replace(start, extras=replace(start.extras, units=""))
    data = make.demonstrations(units="lerobot")
    _, lines = kept_statistics(start.statistics, start, data)
    assert f"units are taken to be the same: {start.path} names none" in lines


def test_the_new_data_decide_where_that_is_asked_for(
    trained: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    dataset, run = trained
    few = ["--dataset", str(dataset), "--out", str(tmp_path / "o"), "--set", "train.episodes=[0]"]
    asked = ["--set", "train.keep_statistics=false", "--set", "train.validation_fraction=0"]
    assert main([*few, "--from", str(run), *STEPS, *asked, "--zero-range", "constant"]) == 0
    assert "statistics are the new data's" in capsys.readouterr().err
    ours, theirs = (statistics(each)[ACTION]["mean"] for each in (tmp_path / "o", run))
    assert not torch.allclose(ours, theirs)


def test_another_policy_or_no_checkpoint_is_refused(
    trained: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    dataset, run = trained
    common = ["--dataset", str(dataset), "--out", str(tmp_path / "o"), *STEPS]
    assert main([*common, "--from", str(run), "--policy", "flow"]) == 2
    assert "'act'" in capsys.readouterr().err
    assert main([*common, "--from", str(tmp_path)]) == 2
    assert "no config.json here" in capsys.readouterr().err


def test_two_datasets_are_trained_on_as_one(trained: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, _ = trained
    second = shutil.copytree(dataset, tmp_path / "again")
    out = tmp_path / "both"
    named = ["--dataset", str(dataset), "--dataset", f"{second}:3"]
    assert main([*named, "--out", str(out), *TINY]) == 0
    training = load_checkpoint(out).extras.training
    assert training["data"]["episodes"] == 12
    assert training["dataset"] == f"{dataset} + {second}"
    data = open_all([str(dataset), f"{second}:3"], TrainConfig())
    assert data.weights is not None
    assert set(data.weights.tolist()) == {1.0, 3.0}


def test_a_dataset_without_a_weighed_column_counts_as_where_it_is_false(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, _ = trained
    corrected = shutil.copytree(dataset, tmp_path / "corrected")
    with_column(corrected, "intervention", lambda count: np.arange(count) % 2 == 0)
    named = [str(dataset), f"{corrected}:0.5"]
    weights = open_all(named, TrainConfig(weights={"intervention": 8.0})).weights
    assert weights is not None
    plain, mixed = np.split(weights, 2)
    assert set(plain.tolist()) == {1.0}
    assert mixed[:4].tolist() == [4.0, 0.5, 4.0, 0.5]


def test_an_unknown_column_is_named(trained: tuple[Path, Path]) -> None:
    dataset, _ = trained
    with pytest.raises(DatasetError, match=r"no column 'intervention'.*frame_index"):
        open_all([str(dataset)], TrainConfig(weights={"intervention": 5.0}))
