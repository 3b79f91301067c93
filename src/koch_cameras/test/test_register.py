# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A kind of camera of another package is found by its entry point, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from koch_cameras import SourceConfig, open_source, register_camera
from koch_cameras.errors import UnsupportedSourceError

PLUGINS = Path(__file__).resolve().parents[3] / "examples" / "plugins"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The example package as pip leaves it: importable, with its entry points."""
    info = tmp_path / "koch_example_plugins-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: koch-example-plugins\nVersion: 0.1.0\n"
    )
    text = (PLUGINS / "pyproject.toml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("folder = "))
    (info / "entry_points.txt").write_text(f"[koch_vla.cameras]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(PLUGINS))
    yield
    sys.modules.pop("koch_example_plugins.folder_camera", None)
    # the name `open_source` in the package is the function; its module has the registry
    sys.modules[open_source.__module__].CAMERAS._kinds.pop("folder", None)


def test_a_registered_camera_shows_its_images_at_the_rate_of_the_rig(installed, tmp_path, jpeg):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(jpeg(index))
    source = open_source(SourceConfig(folder.as_uri().replace("file:", "folder:"), fps=100))
    frames = [source.read() for _ in range(4)]
    assert [frame.data for frame in frames] == [jpeg(0), jpeg(1), jpeg(2), jpeg(0)]
    assert (source.mode.width, source.mode.height) == (64, 48)
    assert frames[-1].time_ns - frames[0].time_ns > 20e6  # three periods of 10 ms, one may slip


def test_an_unknown_scheme_names_those_of_plugins_too(installed):
    with pytest.raises(UnsupportedSourceError, match=r"folder, http, https"):
        open_source(SourceConfig("folded:///images"))


def test_a_scheme_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="'http' is registered already"):
        register_camera("http")(lambda config: None)
