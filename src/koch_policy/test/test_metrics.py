# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where the figures of a training run go besides its own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from koch_policy.errors import ConfigError
from koch_policy.train.metrics import open_boards


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (board,) = open_boards(tmp_path, None, {})
    for step in (50, 100):
        board.add({"step": step, "loss": 1.0 / step})
    board.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(each.step, each.value) for each in read.Scalars("loss")] == [
        (50, pytest.approx(0.02)), (100, pytest.approx(0.01)),
    ]  # fmt: skip


def test_wandb_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ConfigError, match="koch setup --with wandb"):
        open_boards(tmp_path, "koch", {})
