# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Installs koch_rig."""

from setuptools import find_packages, setup

NAME = "koch_rig"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "pyyaml", "xacro"],
    extras_require={"kinematics": ["pin"], "test": ["pytest", "hypothesis"]},
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="The rig file, joints, units, calibration, geometry and kinematics of Koch arms.",
    license="Apache-2.0",
)
