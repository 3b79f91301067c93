# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""koch_episodes installed by pip, with the two packages below it and nothing else of the suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from koch_episodes.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
MAP = """
fps: 30
features:
  observation.state: /follower/joint_states
  observation.images.above: /cameras/above/image_raw/compressed
  action: /follower/joint_command
"""
# What a computer without ROS cannot import, and what else the suite has.
GUARD = """
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        ours = top.startswith("koch_") and top not in ("koch_core", "koch_rig", "koch_episodes")
        if ours or top.endswith(("_msgs", "_srvs")) or top.startswith(("rcl", "rosidl", "ament")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoRos())
from koch_episodes.__main__ import main
import koch_episodes
assert "site-packages" not in koch_episodes.__file__ and "src/" not in koch_episodes.__file__
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_pip_installs_what_converts_both_ways_without_ros(
    write_bag: Callable[..., Path], tmp_path: Path
) -> None:
    target = tmp_path / "installed"
    packages = [ROOT / "src" / name for name in ("koch_core", "koch_rig", "koch_episodes")]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    copies = [tmp_path / "source" / package.name for package in packages]
    for package, copy in zip(packages, copies, strict=True):  # pip builds inside the folder
        shutil.copytree(package, copy)
    subprocess.run([*pip, "--target", target, *copies], check=True, capture_output=True)
    bag = write_bag(seconds=1.5, custom={"koch.task": "go"})
    (tmp_path / "map.yaml").write_text(MAP)

    def alone(*words: object) -> str:
        environment = {k: v for k, v in os.environ.items() if k not in ("AMENT_PREFIX_PATH",)}
        done = subprocess.run(
            [sys.executable, "-c", GUARD, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(target)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    dataset, bags, back = (tmp_path / name for name in ("data", "bags", "back"))
    more = ["--map", tmp_path / "map.yaml", "--vcodec", "copy"]
    assert "1 episodes, 4" in alone("convert", bag, "--out", dataset, *more)
    assert "come back exactly" in alone("convert", "--to-bag", dataset, "--out", bags)
    alone("convert", bags, "--map", bags / "map.yaml", "--out", back)
    assert "1 episodes, 4" in alone("dataset", "info", back).replace("  ", "")
    alone("dataset", "trim", bags, "--start", 0.5)
    alone("inspect", bags / "episode_000000", "--no-png")


def test_commands_of_the_small_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "convert,dataset,inspect" in capsys.readouterr().out
    assert main(["convrt"]) == 2
    assert "Did you mean" in capsys.readouterr().err
