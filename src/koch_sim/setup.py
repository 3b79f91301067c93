# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Install koch_sim."""

from setuptools import find_packages, setup

NAME = "koch_sim"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="The simulated rig: MuJoCo table, cameras, a scripted hand, evaluation.",
    license="Apache-2.0",
    extras_require={"gym": ["gymnasium"]},
    entry_points={
        "console_scripts": ["world = koch_sim.nodes.world:main"],
        "koch_vla.parameters": ["world = koch_sim.nodes.world"],
        # Read by those versions of Gymnasium that look for plug-ins.
        "gymnasium.envs": ["__root__ = koch_sim.environment:register"],
    },
)
