# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: subcommands, help, exit codes, and messages for what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

import koch_vla
from koch_vla import cli


@pytest.fixture
def verb(monkeypatch, tmp_path):
    """Add a verb whose module has the given source."""

    def add(name: str, source: str, module: str | None = None) -> None:
        (tmp_path / f"{name}_verb.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        new = cli.Subcommand(name, module or f"{name}_verb", "for a test")
        monkeypatch.setattr(cli, "VERBS", (*cli.VERBS, new))

    return add


def test_help_lists_every_verb_with_a_line(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        for known in cli.VERBS:
            assert re.search(rf"^  {known.name} +{re.escape(known.summary)}$", text, re.MULTILINE)


PARTS = {  # subcommands of a verb
    "bench": ("faults", "soak"),
    "calibrate": ("camera",),
    "cameras": ("list", "grab"),
    "completion": ("bash",),
    "dataset": ("info", "doctor", "trim", "repair"),
    "motors": ("list", "setup", "read"),
    "record": ("--lockstep",),
}


@pytest.mark.slow  # imports everything
@pytest.mark.parametrize("name", [verb.name for verb in cli.VERBS])
def test_every_help_fits_80_columns(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["koch", name])  # cameras and calibrate camera look there
    for part in ("", *PARTS.get(name, ())):
        with pytest.raises(SystemExit) as end:
            cli.main([name, *filter(None, [part]), "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: koch {name}")
        assert [line for line in text.splitlines() if len(line) > 80] == []


HEAVY = (
    "av", "cv2", "koch_interfaces", "matplotlib", "mujoco", "openvino", "pinocchio", "pyarrow",
    "rclpy", "rosbags", "scipy", "torch",
)  # fmt: skip


def test_no_help_waits_for_a_heavy_library():
    """Each help is to cost less than 0.5 s of CPU time; these libraries alone cost that."""
    words = [[verb.name, *filter(None, [part])] for verb in cli.VERBS
             for part in ("", *PARTS.get(verb.name, ()))]  # fmt: skip
    source = (
        "import contextlib, io, sys\n"
        "from koch_vla import cli\n"
        "heavy = set()\n"
        f"for words in {words}:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        cli.main([*words, '--help'])\n"
        f"    new = {set(HEAVY)} & set(sys.modules) - heavy\n"
        "    heavy |= new\n"
        "    print(*words, *sorted(new))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == [" ".join(said) for said in words]


def test_the_list_of_verbs_fits_80_columns():
    assert [line for line in cli.usage().splitlines() if len(line) > 80] == []


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"koch_vla {koch_vla.__version__}"


def test_an_unknown_verb_gets_a_suggestion_and_exit_code_2(capsys):
    assert cli.main(["recrod"]) == 2
    assert "Did you mean `record`?" in capsys.readouterr().err


def test_a_verb_gets_its_arguments_and_its_exit_code_is_passed_on(verb, tmp_path):
    verb(
        "thing",
        f"def main(argv):\n    open({str(tmp_path / 'a')!r}, 'w').write(repr(argv)); return 3",
    )
    assert cli.main(["thing", "-x", "y"]) == 3
    assert (tmp_path / "a").read_text() == "['-x', 'y']"


def test_our_errors_become_one_message_and_exit_code_2(verb, capsys):
    verb(
        "bad",
        "from koch_core.errors import KochError\n"
        "def main(argv): raise KochError('the cable is out; plug it in')",
    )
    assert cli.main(["bad"]) == 2
    assert capsys.readouterr().err == "koch bad: the cable is out; plug it in\n"


def test_other_errors_are_not_hidden(verb):
    verb("bug", "def main(argv): raise ZeroDivisionError('ours')")
    with pytest.raises(ZeroDivisionError):
        cli.main(["bug"])


def test_an_interrupt_gives_130(verb):
    verb("long", "def main(argv): raise KeyboardInterrupt")
    assert cli.main(["long"]) == 130


@pytest.mark.parametrize(
    ("source", "module", "said"),
    [
        ("import torch_is_not_here_either", None, None),
        ("", "koch_nowhere.cli", r"koch_nowhere.*`\./koch setup`"),
        (
            "raise ModuleNotFoundError('x', name='torch')",
            None,
            r"torch.*`\./koch setup --without sim`",
        ),
        (
            "raise ModuleNotFoundError('x', name='mujoco')",
            None,
            r"mujoco.*`\./koch setup --without policy`",
        ),
        ("raise ModuleNotFoundError('x', name='rclpy')", None, "local_setup.bash"),
        (
            "def main(argv): raise ModuleNotFoundError('x', name='torch')",
            None,
            r"`\./koch setup --without sim`",
        ),
    ],
)
def test_a_part_that_is_not_installed_is_named_with_its_remedy(
    verb, capsys, monkeypatch, source, module, said
):
    verb("part", source, module)
    monkeypatch.setenv("KOCH_WITHOUT", "policy,sim" if module is None else "")
    if said is None:  # nobody's optional part: a bug of ours, shown as such
        with pytest.raises(ModuleNotFoundError):
            cli.main(["part"])
        return
    assert cli.main(["part"]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_calibrate_camera_goes_to_the_cameras_package():
    found, rest = cli.find_subcommand(["calibrate", "camera", "above", "--rig", "r"])
    assert found.package == "koch_cameras"
    assert rest == ["above", "--rig", "r"]
    assert cli.find_subcommand(["calibrate", "follower"])[0].package == "koch_driver"


def test_help_imports_nothing_heavy():
    source = (
        "import sys; from koch_vla import cli; cli.main(['--help'])\n"
        "heavy = {'numpy', 'torch', 'rclpy', 'mujoco', 'pinocchio', 'matplotlib', 'cv2', 'av'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.endswith("loaded: []\n")


def test_a_sourced_workspace_has_koch_on_its_path():
    program = shutil.which("koch")
    assert program is not None, os.environ["PATH"]
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("koch_vla "), done.stderr


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("absent", "open('/proc/none/x', 'w')", "/proc/none/x: No such file or directory"),
        ("full", "raise OSError(28, 'No space left on device')", "No space left on device"),
    ],
)
def test_a_file_that_cannot_be_used_gives_one_message_and_exit_code_2(
    verb, capsys, name, source, said
):
    verb(name, f"def main(argv):\n    {source}\n")
    assert cli.main([name]) == 2
    assert capsys.readouterr().err.startswith(f"koch {name}: {said}. Name another")


def test_an_error_of_a_device_is_no_mistake_of_the_user(verb):
    verb("talking", "def main(argv):\n    raise OSError(5, 'Input/output error')\n")
    with pytest.raises(OSError, match="Input/output"):
        cli.main(["talking"])


@pytest.mark.parametrize(
    "words", [["run", "--task", " "], ["record", "--task", ""], ["eval", "--task", ""]]
)
def test_an_empty_task_is_a_slip_and_not_the_rigs(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--task: got " in said
    assert "Leave it out for the rig's task." in said


def test_a_policy_that_is_nowhere_is_said_once_and_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--policy", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no such folder" in said
    assert "Start one" not in said


def test_a_folder_without_a_checkpoint_is_said_before_a_node_starts(tmp_path, capfd):
    assert cli.main(["run", "--policy", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert f"{tmp_path}: no config.json here" in said
    assert "no policy node answers" not in said
