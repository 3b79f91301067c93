# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Depth maps, which LeRobot 0.6 stores: copied with their statistics, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from koch_episodes.dataset import DatasetWriter, FeatureSpec, LeRobotDatasetReader
from koch_episodes.dataset.edit.cli import main
from koch_episodes.dataset.edit.cut import Way
from koch_episodes.dataset.edit.make import look
from koch_episodes.dataset.edit.options import EDITS
from koch_episodes.errors import DatasetFormatError

CAMERA = "observation.images.front"


def run(*words: object) -> int:
    return main([str(word) for word in words])


def write(root: Path) -> None:
    features = {
        "action": FeatureSpec("float32", (2,), ("a", "b")),
        CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
    }
    with DatasetWriter(root, features, fps=10, robot_type="r") as writer:
        for length in (15, 9, 24, 12):
            images = [np.full((32, 48, 3), 20 + k, np.uint8) for k in range(length)]
            writer.add_episode({"action": np.ones((length, 2))}, {CAMERA: images}, "go")


def deep(root: Path, unit: str = "mm") -> Path:
    """A dataset whose camera is told to be a depth map, with statistics in its unit."""
    write(root)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][CAMERA]["info"] |= {"is_depth_map": True, "depth_unit": unit}
    (root / "meta/info.json").write_text(json.dumps(info))
    for table in (root / "meta/episodes").rglob("*.parquet"):
        found = pq.read_table(table)
        name = f"stats/{CAMERA}/max"
        high = pa.array([[[[2500.0]]] * 3] * len(found), found.schema.field(name).type)
        place = found.column_names.index(name)
        pq.write_table(found.set_column(place, name, high), table)
    return root


def test_depth_maps_are_copied_with_their_statistics(tmp_path: Path) -> None:
    root = deep(tmp_path / "data")
    edits = (("recompute-stats",), ("reencode",), ("delete", "--episodes", "1"))
    for words in edits:
        out = tmp_path / words[0]
        assert run(words[0], root, *words[1:], "--out", out) == 0
        reader = LeRobotDatasetReader(out)
        assert reader.stats is not None
        assert reader.stats[CAMERA]["max"].ravel().tolist() == [2500.0] * 3
        assert reader.features[CAMERA].is_depth
        assert reader.image_keys == ()
        assert CAMERA not in reader[0]
        with pytest.raises(DatasetFormatError, match="a depth map"):
            reader.image(CAMERA, 0)
    (plan,) = EDITS["reencode"].plans(EDITS["reencode"].options(root=root, out=tmp_path / "x"))
    assert look(plan).ways == {Way.COPY: 4}


def test_what_would_decode_a_depth_map_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, other = deep(tmp_path / "data"), deep(tmp_path / "other", "m")
    for words in (("trim", "--start", 0.2), ("repair",)):
        assert run(words[0], root, *words[1:], "--out", tmp_path / "out") == 2
        told = capsys.readouterr().err
        assert f"{CAMERA} is a depth map" in told
        assert f"drop-feature --feature {CAMERA}" in told
    assert run("merge", root, other, "--out", tmp_path / "out") == 2
    assert f"depth of {CAMERA}" in capsys.readouterr().err
    assert run("drop-feature", root, "--feature", CAMERA, "--out", tmp_path / "out") == 0
