# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Installs koch_driver."""

from setuptools import find_packages, setup

NAME = "koch_driver"
NODES = ("follower", "jog", "leader", "teleop")

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools", "dynamixel-sdk", "numpy", "pyserial", "pyyaml"],
    extras_require={"test": ["pytest", "hypothesis"]},
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="Dynamixel bus, servo emulator, calibration, guard and nodes of Koch arms.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            *(f"{node} = koch_driver.nodes.{node}:main" for node in NODES),
            "emulator = koch_driver.emulator.__main__:main",
        ],
        "koch_vla.motor_buses": [
            "dynamixel = koch_driver.bus.dynamixel",
            "sdk = koch_driver.bus.sdk",
        ],
        "koch_vla.parameters": ["driver = koch_driver.nodes.parameters"],
    },
)
