# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The checks that every reader of datasets shares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from koch_episodes.dataset.layout import FeatureSpec
from koch_episodes.dataset.recorded import (
    RecordedDataset,
    element_names,
    is_unnamed,
    plain_name,
)
from koch_episodes.dataset.writer import DatasetWriter
from koch_episodes.errors import DatasetError

NAMES = ("lift.pos", "main_pan", "grip")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of three named elements, a flag and a vector without names."""
    root = tmp_path_factory.mktemp("data") / "set"
    features = {
        "action": FeatureSpec("float32", (3,), NAMES),
        "flag": FeatureSpec("bool", (1,), None),
        "plain": FeatureSpec("float32", (2,), None),
    }
    with DatasetWriter(root, features, fps=25, robot_type="toy") as writer:
        for length in (5, 7):
            rows = np.arange(length, dtype=np.float32)
            writer.add_episode(
                {
                    "action": np.stack([rows, 10 + rows, 20 + rows], 1),
                    "flag": rows > 2,
                    "plain": np.zeros((length, 2), np.float32),
                },
                {},
                "do it",
            )
        writer.finalize()
    return root


def made(root: Path, tmp_path: Path, **content: object) -> Path:
    """A copy with another meta/koch.json."""
    import shutil

    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    (copy / "meta/koch.json").write_text(json.dumps(content))
    return copy


def test_elements_are_taken_by_name_whatever_their_order(dataset: Path) -> None:
    data = RecordedDataset(dataset)
    found = data.ordered(["action"], ["grip.pos", "lift", "pan"])
    np.testing.assert_array_equal(found[6], [21, 1, 11])
    with pytest.raises(DatasetError, match=r"has no wrist.*It has lift\.pos, main_pan, grip"):
        data.ordered(["action"], ["lift", "wrist"])


def test_several_features_are_joined_and_a_flag_is_a_number(dataset: Path) -> None:
    values, names = RecordedDataset(dataset).vectors(["action", "flag"])
    assert names == ("action/lift.pos", "action/main_pan", "action/grip", "flag/flag.0")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values[:5, 3], [0, 0, 0, 1, 1])


def test_without_names_only_the_count_is_compared(dataset: Path) -> None:
    data = RecordedDataset(dataset)
    assert data.ordered(["plain"], ["a", "b"]).shape == (12, 2)
    with pytest.raises(DatasetError, match="2 elements without names, 3 are wanted"):
        data.ordered(["plain"], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"action_space": "polar"}, "action_space 'polar'.*joint, joint_relative, tcp"),
        ({"units": "gons"}, "units 'gons'.*lerobot, degrees, radians"),
        ([1], "no JSON object"),
    ],
)
def test_what_the_converter_wrote_is_checked(
    content: dict[str, object], match: str, dataset: Path, tmp_path: Path
) -> None:
    copy = made(dataset, tmp_path)
    (copy / "meta/koch.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=match):
        RecordedDataset(copy)
    (copy / "meta/koch.json").write_text("{cut of")
    with pytest.raises(DatasetError, match="not readable as JSON"):
        RecordedDataset(copy)


def test_differences_become_actions_again(tmp_path: Path) -> None:
    root, spec = tmp_path / "set", FeatureSpec("float32", (3,), NAMES)
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    features = {"action": spec, "observation.state": spec}
    with DatasetWriter(root, features, fps=25, robot_type="toy") as writer:
        writer.add_episode({"action": rows * 0.5, "observation.state": rows}, {}, "do it")
        writer.finalize()
    (root / "meta/koch.json").write_text(json.dumps({"delta_actions": True}))
    actions, names = RecordedDataset(root).vectors(["action"])
    np.testing.assert_allclose(actions, rows * 1.5)
    assert names == NAMES


def test_other_units_and_rates_are_refused(dataset: Path, tmp_path: Path) -> None:
    data = RecordedDataset(made(dataset, tmp_path, units="radians"))
    assert data.units() == data.units("radians") == "radians"
    with pytest.raises(DatasetError, match="is in radians, not in degrees"):
        data.units("degrees")
    data.require_rate(0.0, "nobody asks for")
    data.require_rate(25.0, "the policy has")
    with pytest.raises(DatasetError, match="has 25 frames per second, the policy has 30"):
        data.require_rate(30.0, "the policy has")


@pytest.mark.parametrize("row", [0, 4, 5, 11])
def test_a_value_that_is_not_finite_is_named_by_its_place(
    row: int, dataset: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    copy = made(dataset, tmp_path)
    path = next((copy / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row]["action"][1] = float("inf")
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    episode, frame = (0, row) if row < 5 else (1, row - 5)
    with pytest.raises(DatasetError, match=f"episode {episode}, frame {frame}, element 1"):
        RecordedDataset(copy).vectors(["action"])


def test_names_in_all_their_forms() -> None:
    assert element_names("a", {"motors": ["x", "y"]}, 2) == ["x", "y"]
    assert element_names("a", ["x"], 2) == ["a.0", "a.1"]
    assert is_unnamed(element_names("a", None, 3))
    assert not is_unnamed(["x", "y"])
    assert plain_name("left/main_pan.pos") == "left/pan"
