# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The custom data of an episode: what it is, where it comes from, how good it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from koch_episodes.bag import open_bag
from koch_episodes.recorder.host_clock import HostClock
from koch_episodes.recorder.quality import StreamReport
from koch_rig.fingerprint import fingerprint
from koch_rig.rig import Rig

UNLABELLED = "unlabelled"


class Provenance:
    """Makes custom data for the bags of one rig; all values are strings.

    Args:
        rig: The rig, whose text, calibrations and fingerprint go into every bag.

    Raises:
        OSError: A calibration file cannot be read.
    """

    def __init__(self, rig: Rig) -> None:
        self.default_task = rig.task
        self._fixed = {"koch.rig": rig.text, "koch.fingerprint": fingerprint(rig)}
        for arm in rig.arms.values():
            if arm.calibration_path.is_file():
                text = arm.calibration_path.read_text(encoding="utf-8")
                self._fixed[f"koch.calibration.{arm.name}"] = text
        self._clock = HostClock()

    def begin(self, task: str, index: int) -> dict[str, str]:
        """Custom data of a bag that begins; a crash leaves it with these."""
        self._clock = HostClock()
        return {
            **self._fixed,
            "koch.task": task,
            "koch.index": str(index),
            "koch.outcome": UNLABELLED,
            "koch.clock": self._clock.describe(),
        }

    def end(self, outcome: str, verdict: str, reports: Sequence[StreamReport]) -> dict[str, str]:
        """What is known at the end only."""
        streams = {
            report.name: {
                key: value.name.lower() if key == "light" else value
                for key, value in asdict(report).items()
                if key != "name"
            }
            for report in reports
        }
        return {
            "koch.outcome": outcome or UNLABELLED,
            "koch.verdict": verdict,
            "koch.quality": json.dumps(streams),
            "koch.clock": self._clock.describe(),
        }

    def read(self, episode: Path) -> dict[str, str]:
        """Custom data of a recorded episode.

        Raises:
            BagError: It cannot be read.
        """
        with open_bag(episode) as bag:
            return dict(bag.custom)
