# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Installs koch_cameras."""

from setuptools import find_packages, setup

package_name = "koch_cameras"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools", "av", "numpy", "pyyaml", "simplejpeg"],
    extras_require={"calibration": ["opencv-python-headless"]},
    python_requires=">=3.10",
    zip_safe=True,
    maintainer="The koch_vla authors",
    maintainer_email="maintainers@koch-vla.org",
    description="Camera sources, the camera node, image conversions and intrinsic calibration.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": ["camera = koch_cameras.nodes.camera:main"],
        "koch_vla.parameters": ["cameras = koch_cameras.nodes.parameters"],
    },
)
