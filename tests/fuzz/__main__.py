# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Search one parser for inputs that break it: `python tests/fuzz TARGET --seconds 60 --seed 1`.

atheris (libFuzzer for Python) mutates the seeds and keeps what reaches new lines of our packages.
An input that breaks the parser is written to corpus/TARGET; it stays there as a test.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

PACKAGES = ["koch_core", "koch_rig", "koch_driver", "koch_cameras", "koch_episodes", "koch_policy"]
RSS_MB = 3000
HANG_S = 20

with atheris.instrument_imports(include=PACKAGES):
    from targets import CORPUS, TARGETS, Target, scratch


def main() -> None:
    """Fuzz; the exit status is that of libFuzzer: 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another each time")
    options = parser.parse_args()
    target = TARGETS[options.target]
    with tempfile.TemporaryDirectory(prefix="koch_fuzz_seeds_") as folder:
        with atheris.instrument_imports(include=PACKAGES):  # of what targets import late
            _write_seeds(target, Path(folder))
        found = CORPUS / target.name
        found.mkdir(exist_ok=True)
        atheris.Setup(
            [
                sys.argv[0],
                f"-max_total_time={options.seconds}",
                f"-seed={options.seed}",
                f"-max_len={target.longest}",
                f"-rss_limit_mb={RSS_MB}",
                f"-timeout={HANG_S}",
                f"-artifact_prefix={found}/",
                "-verbosity=0",
                "-print_final_stats=1",
                folder,
            ],
            target,
        )
        try:
            atheris.Fuzz()
        finally:
            shutil.rmtree(scratch(), ignore_errors=True)


def _write_seeds(target: Target, folder: Path) -> None:
    for data in [*target.seeds(), *(path.read_bytes() for path in target.kept())]:
        target(data)
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
