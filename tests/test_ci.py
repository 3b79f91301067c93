# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The public workflow runs the scripts of .ci, and those are whole."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest
import yaml
from repository import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
SCRIPTS = sorted((ROOT / ".ci").iterdir())


def steps() -> list[str]:
    jobs: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_script_is_executable_and_parses(script: Any) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_workflow_names_scripts_that_exist_and_leaves_none_out() -> None:
    named = {name for step in steps() for name in re.findall(r"\.ci/(\w+)", step)}
    assert named == {path.name for path in SCRIPTS}


def test_workflow_builds_files_that_exist() -> None:
    for step in steps():
        for path in re.findall(r"(?:-f |\./)((?:docker|src)/[\w/]+)", step):
            assert (ROOT / path).exists(), step
