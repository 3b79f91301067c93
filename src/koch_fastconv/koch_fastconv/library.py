# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The compiled library, and which of its kernels this processor gets.

cffi reads `koch_fastconv.h` as it is: structures and enumerations have the header's names here
(`library.lib.WINOGRAD`, `library.ffi.new("Layer *")`), and nothing is written a second time.
"""

from __future__ import annotations

import functools
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

_NAME = "koch_fastconv"


class Library(NamedTuple):
    """What cffi made of header and library."""

    ffi: Any
    lib: Any
    kernels: dict[str, Any]
    """By precision, "f32" or "bf16": those to use here. Without an entry OpenVINO is faster."""


@functools.lru_cache(maxsize=1)
def open_library() -> Library:
    """Load the library that the set-up built; once per process.

    Raises:
        ImportError: This package is on the path, but was never installed; or cffi is missing.
        OSError: It was installed, but the library is missing or of another machine.
    """
    import cffi  # here, so that importing this package costs nothing and cannot fail

    # Through the installed package, since this module may come from the sources, where the
    # compiled library is not.
    distribution = metadata.distribution(_NAME)
    folder = Path(str(distribution.locate_file(_NAME)))
    ffi = cffi.FFI()
    header = (folder / f"{_NAME}.h").read_text(encoding="utf-8")
    ffi.cdef(header.replace("#pragma once", ""))  # for C alone
    lib = ffi.dlopen(str(folder / f"lib{_NAME}.so"))
    precisions = {lib.PRECISION_F32: "f32", lib.PRECISION_BF16: "bf16"}
    kernels: dict[str, Any] = {}
    found = lib.koch_fastconv_kernels()
    index = 0
    while found[index] != ffi.NULL:
        kernels.setdefault(precisions[found[index].precision], found[index])
        index += 1
    return Library(ffi, lib, kernels)
