#!/bin/sh
# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
#
# Sources ROS and runs a verb of koch; any other program runs inside koch's environment.
set -eu
. "/opt/ros/${ROS_DISTRO}/setup.sh"
case ${1:-doctor} in
bash | sh | ros2 | python3)
    environment=$(/koch_vla/koch env)
    eval "$environment"
    exec "$@"
    ;;
*)
    exec /koch_vla/koch "$@"
    ;;
esac
