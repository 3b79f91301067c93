# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bench`: running scripts, collecting their figures, the table."""

from __future__ import annotations

import json
import re

import pytest

from koch_vla.bench import find_benchmarks, main, name_of, to_markdown
from koch_vla.errors import BenchmarksNotFoundError

GOOD = """
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--json")
path = parser.parse_args().json
rows = [{"way": "ours", "latency_ms": 1.23456}, {"way": "theirs|x", "latency_ms": 20000.4, "n": 3}]
json.dump({"rows": rows, "clip": "noise"}, open(path, "w"))
"""


@pytest.fixture
def scripts(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "bench_good.py").write_text(GOOD)
    (folder / "bench_bad.py").write_text("raise SystemExit(3)")
    (folder / "bench_mute.py").write_text("")
    (folder / "helper.py").write_text("raise SystemExit(4)")
    return folder


def test_all_scripts_run_and_a_failure_does_not_stop_the_others(scripts, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--folder", str(scripts), "-o", str(out)]) == 1
    report = json.loads((out / "bench.json").read_text())
    assert set(report["benchmarks"]) == {"good", "bad", "mute"}
    assert report["benchmarks"]["bad"] == {"failed": "exit code 3"}
    assert "no JSON" in report["benchmarks"]["mute"]["failed"]
    assert report["benchmarks"]["good"]["rows"][0]["latency_ms"] == 1.23456
    assert int(report["machine"]["cores"]) >= 1
    assert report["versions"]["python"]
    assert "bad failed: exit code 3" in capsys.readouterr().err


def test_one_script_can_be_named(scripts, tmp_path):
    assert main(["good", "--folder", str(scripts), "-o", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/bench.md").read_text()
    assert "| way | latency ms | n |" in text
    assert "| ours | 1.235 |  |" in text
    assert "| theirs\\|x | 20000 | 3 |" in text
    assert "- clip: noise" in text


@pytest.mark.parametrize("script", find_benchmarks(None, []), ids=name_of)
def test_ours_want_no_argument(script):
    """What wants one, such as a checkpoint, is called measure_ and run by hand."""
    source = script.read_text()
    assert "--json" in source
    assert "required=True" not in source
    assert not re.search(r'add_argument\("[a-z]', source)


def test_a_name_that_is_not_there_lists_those_that_are(scripts):
    with pytest.raises(BenchmarksNotFoundError, match=r"wrong.*bad, good, mute"):
        find_benchmarks(scripts, ["wrong"])


def test_lists_of_other_names_become_tables_as_well():
    report = {
        "date": "d",
        "machine": {"cores": "2"},
        "versions": {},
        "benchmarks": {"x": {"by_codec": [{"codec": "h264"}], "numbers": [1, 2]}},
    }
    text = to_markdown(report)
    assert "by_codec:\n\n| codec |\n|---|\n| h264 |" in text
