# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Completion knows every subcommand and option, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from koch_vla import cli
from koch_vla.completion import all_words, bash, fish, main, zsh


@pytest.fixture(scope="module")
def words():
    return all_words()


def test_every_subcommand_and_its_options_are_known(words):
    assert [verb.name for verb in cli.VERBS] == list(words)[: len(cli.VERBS)]
    unknown = [name for name in words if not words[name].options]
    assert unknown == ["setup", "test", "env"]
    assert "--num-episodes" in words["record"].options
    assert set(words["motors"].kinds) == {"list", "setup", "read"}
    assert words["demo"].choices["--policy"] == (
        "act", "diffusion", "diffusion_transformer", "fast", "flow",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["koch", "rec"], ["record"]),
        (["koch", "record", "--num"], ["--num-episodes"]),
        (["./koch", "demo", "--policy", "f"], ["fast", "flow"]),
        (["koch", "motors", "se"], ["setup"]),
        (["koch", "cameras", "gr"], ["grab"]),
    ],
)
def test_bash_completes(words, typed, found):
    script = bash(words) + (
        f"COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _koch\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == found


@pytest.mark.parametrize(("shell", "write"), [("bash", bash), ("zsh", zsh), ("fish", fish)])
def test_the_script_is_one(words, shell, write, tmp_path):
    script = tmp_path / "script"
    script.write_text(write(words))
    assert "num-episodes" in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; its script was written, not read")
    subprocess.run([shell, "-n", str(script)], check=True)


def test_the_parsers_parse_again_afterwards(words, capsys):
    assert words
    with pytest.raises(SystemExit):
        main(["tcsh"])
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
