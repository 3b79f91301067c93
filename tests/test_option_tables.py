# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of options in the documents are those of the models; run this file to write them.

A table stands below a line `<!-- options MODULE:MODEL ... -->`, for a node's parameters
`<!-- parameters MODULE:MODEL ... -->`, and ends at the first empty line.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from repository import ROOT

from koch_core.command_line import markdown

_TABLE = re.compile(r"<!-- (options|parameters) ([\w.: ]+) -->\n((?:\|.*\n)*)")


def _documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/*/README.md")]
    return sorted(path for path in found if _TABLE.search(path.read_text(encoding="utf-8")))


def _written(match: re.Match[str]) -> str:
    kind, names = match.group(1), match.group(2)
    models = []
    for name in names.split():
        module, _, model = name.partition(":")
        models.append(getattr(importlib.import_module(module), model))
    return f"<!-- {kind} {names} -->\n" + markdown(*models, parameters=kind == "parameters")


@pytest.mark.parametrize("path", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_table_of_options_is_its_models(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _TABLE.sub(_written, text) == text, "run: python tests/test_option_tables.py"


def test_there_are_tables() -> None:
    assert ROOT / "src/koch_episodes/README.md" in _documents()


if __name__ == "__main__":
    for document in _documents():
        document.write_text(
            _TABLE.sub(_written, document.read_text(encoding="utf-8")), encoding="utf-8"
        )
