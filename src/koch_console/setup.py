# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Installs koch_console."""

from setuptools import find_packages, setup

package_name = "koch_console"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed", "static/*", "static/vendor/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools", "aiohttp", "pyyaml"],
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="A console in the browser: see, record, run and stop from one page.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": ["console = koch_console.nodes.console:main"],
        "koch_vla.parameters": ["console = koch_console.nodes.parameters"],
    },
)
