# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Sets the workspace up on a bare machine; standard library only, since nothing else exists yet.

It is beside koch_vla and not in it, because importing koch_vla needs the packages that are
about to be installed. `./koch setup` runs it as `python3 -m bare_home`.
"""
