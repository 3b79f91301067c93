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


JOB_KEYS = {"runs-on", "timeout-minutes", "strategy", "steps", "if", "needs", "env"}
STEP_KEYS = {"uses", "run", "with", "if", "name", "env"}


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    return found


def steps() -> list[str]:
    return [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]


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


@pytest.mark.parametrize("name", sorted(jobs()))
def test_a_job_is_one_that_the_service_takes(name: str) -> None:
    job = jobs()[name]
    assert set(job) <= JOB_KEYS
    assert 0 < job["timeout-minutes"] <= 360
    for step in job["steps"]:
        assert set(step) <= STEP_KEYS, step
        assert ("uses" in step) != ("run" in step), step
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]), step
    known = set(job.get("strategy", {}).get("matrix", {}))
    assert set(re.findall(r"\$\{\{ matrix\.(\w+) \}\}", str(job))) == known


def test_distributions_machines_and_pythons_are_all_there() -> None:
    matrix = jobs()["ros"]["strategy"]["matrix"]
    assert matrix["distro"] == ["jazzy", "kilted", "lyrical"]
    assert any(machine.endswith("-arm") for machine in matrix["machine"])
    pythons = [*jobs()["wheels"]["strategy"]["matrix"]["python"]]
    for job in jobs().values():
        pythons += [step.get("with", {}).get("python-version", "") for step in job["steps"]]
    assert {"3.10", "3.11", "3.12", "3.13", "3.14"} <= set(pythons)
    assert all(isinstance(version, str) for version in pythons), "3.10 unquoted is 3.1"
