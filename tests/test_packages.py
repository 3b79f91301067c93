# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Every package names what it needs, in the words of ROS and of Python."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from repository import PACKAGES, ROOT, imported_modules, package_of, python_files, where

# Python module -> key for rosdep, as the rosdistro knows it.
ROSDEP = {
    "aiohttp": "python3-aiohttp",
    "cffi": "python3-cffi",
    "cv2": "python3-opencv",
    "dynamixel_sdk": "dynamixel_sdk",
    "matplotlib": "python3-matplotlib",
    "mpl_toolkits": "python3-matplotlib",
    "msgpack": "python3-msgpack",
    "mujoco": "python3-mujoco-pip",
    "numpy": "python3-numpy",
    "pinocchio": "pinocchio",
    "rosbags": "python3-rosbags-pip",
    "serial": "python3-serial",
    "simplejpeg": "python3-simplejpeg-pip",
    "torch": "python3-torch",
    "xacro": "xacro",
    "yaml": "python3-yaml",
}
# The rosdistro has no key for these: requirements/*.in bring them, also inside a sourced ROS.
WHEELS = {
    "av": "base",
    "lz4": "base",
    "mcap": "base",
    "openvino": "policy",
    "pyarrow": "base",
    "safetensors": "base",
    "zstandard": "base",
}
# Backends that are used where a person installed them, and never required.
OPTIONAL = {"cv_bridge", "gymnasium", "lerobot", "rerun", "rosbag2_py", "tokenizers"}
# What LeRobot brings along, in its own Python, where the policy server runs.
OPTIONAL |= {"PIL", "huggingface_hub", "peft"}
# Keys beside modules and ROS packages that a package.xml may hold.
OTHER_KEYS = {"liburdfdom-tools", "python3-hypothesis", "python3-pytest", "python3-setuptools"}


def manifest(package: str) -> ElementTree.Element:
    """Parse a package.xml."""
    return ElementTree.parse(ROOT / "src" / package / "package.xml").getroot()


def dependencies(package: str) -> set[str]:
    """Return what a package.xml depends on, of any kind."""
    return {node.text or "" for node in manifest(package) if node.tag.endswith("depend")}


def needed(package: str) -> dict[str, str]:
    """Return the keys that a package's code needs, and one place where it does."""
    keys: dict[str, str] = {}
    for path in python_files(tests=False):
        if package_of(path) != package or path.name == "setup.py" or "bare_home" in path.parts:
            continue
        for module, line in imported_modules(path):
            top = module.split(".")[0]
            own = top == package or top in WHEELS or top in OPTIONAL
            if top not in sys.stdlib_module_names and not own:
                keys.setdefault(ROSDEP.get(top, top), f"{where(path, line)} imports {module}")
    return keys


@pytest.mark.parametrize("package", PACKAGES)
def test_package_xml_names_every_import(package: str) -> None:
    missing = needed(package).keys() - dependencies(package)
    assert not missing, "\n".join(f"{key}: {needed(package)[key]}" for key in sorted(missing))


@pytest.mark.parametrize("package", PACKAGES)
def test_package_xml_names_only_keys_that_rosdep_knows(package: str) -> None:
    keys = {key for key in dependencies(package) if key.startswith(("python3-", "lib"))}
    unknown = keys - set(ROSDEP.values()) - OTHER_KEYS
    assert not unknown, f"{package}/package.xml: {sorted(unknown)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_documented(package: str) -> None:
    folder = ROOT / "src" / package
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"# {package}" in readme
    assert len(readme) > 400
    changelog = (folder / "CHANGELOG.rst").read_text(encoding="utf-8")
    version = manifest(package).findtext("version")
    assert re.search(rf"^(Forthcoming|{re.escape(str(version))})", changelog, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_its_skeleton(package: str) -> None:
    folder = ROOT / "src" / package
    root = manifest(package)
    assert root.findtext("name") == package
    assert root.findtext("license") == "Apache-2.0"
    assert (folder / "setup.py").is_file() or (folder / "CMakeLists.txt").is_file()
    assert list((folder / "test").glob("test_*.py")), f"{package} has no tests"


def test_packages_share_one_version() -> None:
    versions = {manifest(package).findtext("version") for package in PACKAGES}
    assert len(versions) == 1, versions


@pytest.mark.parametrize("package", PACKAGES)
def test_setup_py_agrees_with_package_xml(package: str) -> None:
    path = ROOT / "src" / package / "setup.py"
    if not path.is_file():
        assert (ROOT / "src" / package / "CMakeLists.txt").is_file()
        return
    text = path.read_text(encoding="utf-8")
    version = manifest(package).findtext("version")
    assert f'version="{version}"' in text
    assert 'python_requires=">=3.10"' in text


def test_root_readme_names_every_package() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [package for package in PACKAGES if f"`{package}`" not in text]
    assert not missing, missing
