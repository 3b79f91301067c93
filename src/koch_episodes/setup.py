# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Install koch_episodes."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "koch_episodes"


def beside(name: str) -> str:
    """Requirement of a package of this suite: the folder beside this one, where it is there.

    They are on no index, and what goes by these names there would be someone else's.
    """
    folder = Path(__file__).resolve().parent.parent / name
    return f"{name} @ {folder.as_uri()}" if (folder / "setup.py").is_file() else name


setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=[
        beside("koch_core"),
        beside("koch_rig"),
        "setuptools",
        "av",
        "lz4",
        "matplotlib",
        "mcap",
        "numpy",
        "opencv-python-headless",
        "pyarrow",
        "pyyaml",
        "rosbags",
        "simplejpeg",
        "zstandard",
    ],
    python_requires=">=3.10",
    zip_safe=True,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="Episodes of a Koch arm: stream alignment, recording, and LeRobot datasets.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "recorder = koch_episodes.recorder.node:main",
            "convert = koch_episodes.convert.cli:run",
            "dataset = koch_episodes.dataset.edit.cli:run",
            "inspect = koch_episodes.inspect_cli:run",
            "koch-episodes = koch_episodes.__main__:run",
        ],
        "koch_vla.bag_writers": ["rosbag2 = koch_episodes.bag.rosbag2"],
        "koch_vla.bag_storages": ["rosbag2 = koch_episodes.bag.rosbag2"],
        "koch_vla.parameters": ["recorder = koch_episodes.recorder.nodes.parameters"],
    },
)
