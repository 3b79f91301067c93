# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Installs koch_ros."""

from setuptools import find_packages, setup

NAME = "koch_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools", "numpy", "pyyaml"],
    extras_require={"test": ["pytest"]},
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="What every node of koch_vla needs of ROS: life cycle, parameters, QoS, stamps.",
    license="Apache-2.0",
    entry_points={"koch_vla.raw_images": ["cv_bridge = koch_ros.cv_images"]},
)
