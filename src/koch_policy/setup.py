# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Install koch_policy."""

from setuptools import find_packages, setup

NAME = "koch_policy"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed", "train/presets/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    python_requires=">=3.10",
    zip_safe=True,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="Policies of a Koch arm: networks, checkpoints, training, runtimes, node.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "policy = koch_policy.nodes.policy:main",
            "train = koch_policy.train.cli:run",
        ],
        "koch_vla.training_runs": ["koch = koch_policy.runs_cli:describe_runs"],
        "koch_vla.parameters": ["policy = koch_policy.nodes.parameters"],
    },
)
