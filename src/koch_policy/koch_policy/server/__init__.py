# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy in another process, behind a socket.

`protocol`, `serve` and `lerobot` run in the server's Python, which may hold nothing of this
workspace but `koch_core` and this package's files: they import numpy and msgpack, and what they
serve. `client` is the other end, a policy like those that run in this process.
"""
