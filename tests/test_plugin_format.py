# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A package outside the tree brings a dataset format: written, continued, read and validated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT

from koch_episodes.dataset import load_info
from koch_episodes.errors import DatasetFormatError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EPISODE = ROOT / "docs" / "sample" / "episode_000000"

#: What a reader of this package makes of a dataset, for numpy.
READ = """
import sys
import numpy as np
from koch_episodes import LeRobotDatasetReader
data = LeRobotDatasetReader(sys.argv[1])
columns = {key: data.column(key) for key, spec in data.features.items() if spec.is_numeric}
stats = {f"stats/{key}": data.stats[key]["std"] for key in columns}
np.savez(sys.argv[2], **columns, **stats, image=data.image(data.image_keys[0], len(data) - 1))
"""

#: The first five frames of a dataset once more, behind it.
APPEND = """
import sys
from pathlib import Path
from koch_episodes import DatasetWriter, LeRobotDatasetReader
from koch_episodes.dataset.layout import DEFAULT_FEATURES
data = LeRobotDatasetReader(sys.argv[1])
own = {key: spec for key, spec in data.features.items() if key not in DEFAULT_FEATURES}
info = data.info
with DatasetWriter(
    Path(sys.argv[1]), own, fps=info.fps, robot_type=info.robot_type, version=info.format.name,
    append=True,
) as writer:
    columns = {key: data.column(key)[:5] for key, spec in own.items() if spec.is_numeric}
    images = {key: [data.image(key, k) for k in range(5)] for key in data.image_keys}
    writer.add_episode(columns, images, "again")
"""


def run(plugins: dict[str, str], *words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=plugins, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def datasets(plugins: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two episodes as v2.0 and as v3.0, the second one appended."""
    folder = tmp_path_factory.mktemp("datasets")
    for name in ("v2.0", "v3.0"):
        words = ("--jobs", 1, "--out", folder / name, "--format", name)
        run(plugins, "-m", "koch_vla", "convert", EPISODE, *words)
        run(plugins, "-c", APPEND, folder / name)
    return folder


def test_what_it_writes_is_read_as_what_v3_writes(
    plugins: dict[str, str], datasets: Path, tmp_path: Path
) -> None:
    read = {}
    for name in ("v2.0", "v3.0"):
        run(plugins, "-c", READ, datasets / name, tmp_path / f"{name}.npz")
        read[name] = dict(np.load(tmp_path / f"{name}.npz"))
    assert read["v2.0"].keys() == read["v3.0"].keys()
    for key, values in read["v3.0"].items():
        np.testing.assert_allclose(read["v2.0"][key], values, atol=1e-6, err_msg=key)


def test_its_files_are_v2_0_s_and_sound(
    plugins: dict[str, str], datasets: Path, tmp_path: Path
) -> None:
    root = datasets / "v2.0"
    info = json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
    assert info["codebase_version"] == "v2.0"
    assert info["total_videos"] == 2 * len([k for k in info["features"] if "images" in k])
    assert {path.name for path in (root / "meta").iterdir()} >= {
        "info.json", "stats.json", "tasks.jsonl", "episodes.jsonl"
    }  # fmt: skip
    assert not (root / "meta/episodes_stats.jsonl").exists()
    stats = json.loads((root / "meta/stats.json").read_text(encoding="utf-8"))
    assert stats["action"]["count"] == [info["total_frames"]]
    assert "q50" not in stats["action"]
    said = run(plugins, "-m", "koch_vla", "inspect", root, "--validate", "-o", tmp_path / "i.png")
    assert "LeRobot v2.0" in said


def test_without_the_package_it_is_refused_with_the_known_formats(datasets: Path) -> None:
    with pytest.raises(DatasetFormatError, match=r"codebase_version v2\.0.*v3\.0 or v2\.1"):
        load_info(datasets / "v2.0")
    done = subprocess.run(
        [sys.executable, "-m", "koch_vla", "convert", str(EPISODE), "--format", "v2.0",
         "--out", str(datasets / "refused")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--format: got 'v2.0', expected v3.0 or v2.1" in done.stderr


def test_a_later_minor_version_is_read_by_v3(datasets: Path, tmp_path: Path) -> None:
    root = shutil.copytree(datasets / "v3.0", tmp_path / "data")
    path = root / "meta/info.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"v3.0"', '"v3.1"'), encoding="utf-8")
    assert load_info(root).format.name == "v3.0"
