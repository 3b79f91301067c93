# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Isolates the DDS traffic of a test run, so that parallel runs do not hear each other."""

import os
import random

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
if "KOCH_TEST_DOMAIN" not in os.environ:
    # Kept in the environment, so that child processes of the run share the domain.
    os.environ["KOCH_TEST_DOMAIN"] = str(random.SystemRandom().randint(1, 100))
    os.environ["ROS_DOMAIN_ID"] = os.environ["KOCH_TEST_DOMAIN"]
