# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A package outside the tree brings a policy: installed by pip, trained and run, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DATASET = ROOT / "docs" / "sample" / "dataset"
INPUTS = "train.inputs=[observation.state, observation.environment_state]"

#: One prediction beside what was demonstrated, and a few seconds in simulation.
RUN = """
import sys
import numpy as np
from pathlib import Path
from koch_episodes import LeRobotDatasetReader
from koch_policy import load_policy
from koch_sim import LockstepSettings, PolicyRollouts, PolicySettings
checkpoint, root = Path(sys.argv[1]), Path(sys.argv[2])
data = LeRobotDatasetReader(root / "docs/sample/dataset")
policy = load_policy(checkpoint, sys.argv[3])
frame = data[60]  # in motion: at rest the same state goes on in several ways
got = policy.predict({key: frame[key] for key in policy.config.input_features})
told = data.column("action")[60 : 60 + len(got)]
print("error", np.abs(got - told).max(), "of", np.ptp(told))
table = LockstepSettings(root / "docs/sample/rig.yaml", spread=0.3)
trial = PolicyRollouts(table, PolicySettings(checkpoint, runtime=sys.argv[3]), timeout_s=2.0)(1)
print("trial", trial.duration_s, trial.reason)
"""


def koch(plugins: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "koch_vla", *map(str, words)],
        env=plugins,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def checkpoint(plugins: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `koch train --policy nearest` learned from the sample dataset."""
    out = tmp_path_factory.mktemp("nearest") / "run"
    words = ("--dataset", DATASET, "--policy", "nearest", "--preset", "tiny", "--out", out)
    settings = ("train.validation_fraction=0", INPUTS)
    done = koch(plugins, "train", *words, *[w for s in settings for w in ("--set", s)])
    assert done.returncode == 0, done.stderr
    return out / "checkpoints" / "last" / "pretrained_model"


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_policy_of_another_package_is_trained_and_run(
    plugins: dict[str, str], checkpoint: Path, runtime: str
) -> None:
    pytest.importorskip("koch_sim")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(checkpoint), str(ROOT), runtime],
        env=plugins,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    error, _, span = said["error"]
    assert float(error) < 0.02 * float(span)  # it remembers what it was shown
    assert float(said["trial"][0]) == pytest.approx(2.0, abs=0.2)
    assert " ".join(said["trial"][1:]) == "2 s are over"


def test_without_the_package_the_checkpoint_is_refused_with_the_known_policies(
    checkpoint: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from koch_policy import load_policy; "
         "load_policy(sys.argv[1])", str(checkpoint)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert "unknown policy type 'nearest'; expected one of act, diffusion" in done.stderr


def test_the_policy_is_among_the_choices(plugins: dict[str, str]) -> None:
    said = " ".join(koch(plugins, "train", "--help").stdout.split())
    assert "act, diffusion, diffusion_transformer, fast, flow, nearest (default: act)" in said
