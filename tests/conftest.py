# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What several tests need and what takes long: one running graph, the installed plugins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from repository import ROOT
from small_images import with_small_rig

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGraph]:
    """`koch up --record` with config/rig.sim.yaml and small images, all streams alive.

    It ends with its module: another module's graph in the same domain would hear it.
    """
    from koch_vla.nodes.running_graph import RunningGraph

    rig_file = with_small_rig(tmp_path_factory.mktemp("rig"))
    with RunningGraph(tmp_path_factory.mktemp("graph"), rig_file) as running:
        running.wait_healthy(seconds=120.0)  # imports take long on a busy machine
        yield running


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for a Python that has examples/plugins, installed by pip from a copy elsewhere."""
    pytest.importorskip("koch_policy.models.registry")
    folder = tmp_path_factory.mktemp("elsewhere")
    copy = shutil.copytree(ROOT / "examples" / "plugins", folder / "my_plugins")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(site), str(copy)],
        check=True,
        timeout=300,
    )
    paths = [str(site), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
