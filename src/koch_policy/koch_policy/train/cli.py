# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch train`: train a policy on a LeRobot dataset."""

from __future__ import annotations

import sys

from koch_core.errors import KochError
from koch_core.terminal import complain
from koch_policy.train.options import LEROBOT_POLICIES, parse


def main(argv: list[str]) -> int:
    """Run `koch train`; 0 on success, 2 when data or arguments are at fault."""
    try:
        options = parse(argv)
        # Here, because --help and a wrong word shall not wait seconds for torch.
        if options.policy in LEROBOT_POLICIES:
            from koch_policy.train.lerobot_trainer import train
        else:
            from koch_policy.train.start import train

        train(options)
    except KochError as error:
        complain(f"koch train: {error}")
        return 2
    except OSError as error:  # its text names the file
        complain(f"koch train: {error}. Check path, permissions and room.")
        return 2
    return 0


def run() -> None:
    """Entry point of `ros2 run koch_policy train`."""
    sys.exit(main(sys.argv[1:]))
