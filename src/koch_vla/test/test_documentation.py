# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The documents name what there is: commands, packages, launch arguments, links, parameters."""

from __future__ import annotations

import re
import shlex
from xml.etree import ElementTree

import pytest

import koch_vla
from koch_vla import cli
from koch_vla.cli import VERBS
from koch_vla.launch_nodes import LAUNCH_ARGUMENTS

DOCUMENTS = ("README.md", "docs/install.md", "docs/tutorial.md", "docs/hardware.md")


@pytest.fixture(scope="module")
def readme(repository):
    return (repository / "README.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_table(readme):
    table = readme.split("## Commands")[1].split("\n## ")[0]
    missing = [verb.name for verb in VERBS if f"`koch {verb.name}`" not in table.replace("./", "")]
    assert missing == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_the_documents_is_a_verb(repository, name):
    known = {verb.name for verb in VERBS} | {"setup", "test", "env"}
    text = (repository / name).read_text(encoding="utf-8")
    assert set(re.findall(r"[`/ ]koch ([a-z]+)\b", text)) - known == set()


def commands(text: str) -> list[list[str]]:
    """Words of each `./koch COMMAND ...` in the shell blocks of a document."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("./koch ")]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_option_in_the_documents_exists(repository, name, capsys):
    text = (repository / name).read_text(encoding="utf-8")
    for verb, *words in commands(text):
        options = {word for word in words if word.startswith("-")} - {"--help"}
        if verb in ("setup", "test") or not options:
            continue
        with pytest.raises(SystemExit):
            cli.main([verb, *words, "--help"])  # what a subcommand is may hang on its words
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
        assert options <= known, f"koch {verb}: {options - known}"


def test_every_launch_argument_is_named(readme):
    words = readme.split("Launch arguments:")[1].split(".\n")[0].replace("`", " ").split()
    assert set(words) == {argument.name for argument in LAUNCH_ARGUMENTS}


@pytest.mark.parametrize(
    "name",
    [*DOCUMENTS, "src/koch_vla/README.md", "CONTRIBUTING.md", "examples/README.md", "docs/api.md"],
)
def test_links_lead_somewhere(repository, name):
    path = repository / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{name}: {target}"


def test_the_version_is_one(repository):
    package = ElementTree.parse(repository / "src/koch_vla/package.xml").getroot()
    changelog = (repository / "src/koch_vla/CHANGELOG.rst").read_text(encoding="utf-8")
    assert package.findtext("version") == koch_vla.__version__
    assert f"\n{koch_vla.__version__}\n" in changelog


def test_public_names_resolve():
    for name in koch_vla.__all__:
        assert getattr(koch_vla, name) is not None
