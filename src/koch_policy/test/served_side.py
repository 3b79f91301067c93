# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy server around a function: the state, moved on by one a step, 0.1 when told so.

PYTHONPATH=... PYTHON served_side.py [--refuse TEXT] --fd N
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from koch_policy.server.protocol import Channel
from koch_policy.server.serve import serve

STEPS, JOINTS = 30, 6


class Ramp:
    """See the module."""

    def describe(self) -> dict[str, Any]:
        """A policy of radians."""
        return {
            "config": {
                "type": "ramp",
                "chunk_size": STEPS,
                "input_features": {"observation.state": {"type": "STATE", "shape": [JOINTS]}},
                "output_features": {"action": {"type": "ACTION", "shape": [JOINTS]}},
            },
            "metadata": {"format": 1, "units": "radians", "fps": 30.0},
            "rename": {},
            "runtime": "ramp",
            "server": "test",
        }

    def example(self) -> dict[str, Any]:
        """A state."""
        return {"observation.state": np.zeros(JOINTS, np.float32), "task": ""}

    def predict(
        self, observation: Mapping[str, Any], noise: Any | None, within_s: float = 0.0
    ) -> Any:
        """Refuse what is not there; else move on."""
        rows = np.arange(STEPS, dtype=np.float32)[:, None]
        scale = 0.1 if observation["task"] == "slowly" else 1.0
        return observation["observation.state"][None] + scale * rows

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Nothing is remembered."""

    def reset(self) -> None:
        """Nothing is remembered."""


def main() -> int:
    """Serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--refuse", default="")
    options = parser.parse_args()
    logging.disable()

    def load() -> Ramp:
        if options.refuse:
            raise ValueError(options.refuse)
        return Ramp()

    with socket.socket(fileno=options.fd) as connection:
        return serve(Channel(connection), load)


if __name__ == "__main__":
    sys.exit(main())
