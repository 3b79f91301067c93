# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Tries EGL without a screen; run by path in a process of its own, standard library only."""

from __future__ import annotations

import ctypes
import sys

EGL_PLATFORM_SURFACELESS_MESA = 0x31DD
EGL_VENDOR, EGL_VERSION = 0x3053, 0x3054


def probe_egl() -> str:
    """Open a display without a surface and return its vendor and version.

    Raises:
        OSError: There is no libEGL, or it opens no display.
    """
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglQueryString.restype = ctypes.c_char_p
    egl.eglQueryString.argtypes = [ctypes.c_void_p, ctypes.c_int]
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    egl.eglGetDisplay.restype = ctypes.c_void_p
    egl.eglGetDisplay.argtypes = [ctypes.c_void_p]
    address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    display = None
    if address:
        kind = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)
        display = kind(address)(EGL_PLATFORM_SURFACELESS_MESA, None, None)
    display = display or egl.eglGetDisplay(None)
    if not display or not egl.eglInitialize(display, None, None):
        raise OSError("libEGL opens no display")
    words = (egl.eglQueryString(display, EGL_VENDOR), egl.eglQueryString(display, EGL_VERSION))
    return "EGL, " + ", ".join(word.decode() for word in words if word)


def _probe() -> int:
    try:
        answer = probe_egl()
    except (OSError, AttributeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(answer + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_probe())
