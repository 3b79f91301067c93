# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Third-party files are what their provenance says, and the page is light."""

import hashlib
import re
from pathlib import Path

import koch_console

STATIC = Path(koch_console.__file__).parent / "static"
_ROW = re.compile(r"^\| `([^`]+)` .*`([0-9a-f]{64})` \|$", re.MULTILINE)


def test_vendored_files_have_the_digests_of_their_provenance():
    vendor = STATIC / "vendor"
    told = dict(_ROW.findall((vendor / "PROVENANCE.md").read_text(encoding="utf-8")))
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.iterdir()
        if path.name != "PROVENANCE.md"
    }
    assert told == found


def test_the_whole_page_is_lighter_than_a_megabyte_and_a_half():
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < 1_500_000


def test_the_page_asks_nobody_else():
    for path in STATIC.glob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path.name
