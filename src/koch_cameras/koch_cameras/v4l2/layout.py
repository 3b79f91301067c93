# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Structures, numbers and flags of the Video4Linux2 ioctl interface.

Source: linux/videodev2.h, https://docs.kernel.org/userspace-api/media/v4l/v4l2.html. The layouts
are the C compiler's on 64-bit and 32-bit Linux (ctypes follows the platform ABI); the tests hold
the 64-bit offsets and ioctl numbers that gcc gives for the header.
"""

from __future__ import annotations

import ctypes as c

_U8, _U32, _S32 = c.c_uint8, c.c_uint32, c.c_int32


class Capability(c.Structure):
    """struct v4l2_capability."""

    _fields_ = (
        ("driver", c.c_char * 16),
        ("card", c.c_char * 32),
        ("bus_info", c.c_char * 32),
        ("version", _U32),
        ("capabilities", _U32),
        ("device_caps", _U32),
        ("reserved", _U32 * 3),
    )


class FormatDescription(c.Structure):
    """struct v4l2_fmtdesc."""

    _fields_ = (
        ("index", _U32),
        ("type", _U32),
        ("flags", _U32),
        ("description", c.c_char * 32),
        ("pixelformat", _U32),
        ("mbus_code", _U32),
        ("reserved", _U32 * 3),
    )


class FrameSizeEnum(c.Structure):
    """struct v4l2_frmsizeenum; ``values``: width, height, or min, max, step of each."""

    _fields_ = (
        ("index", _U32),
        ("pixel_format", _U32),
        ("type", _U32),
        ("values", _U32 * 6),
        ("reserved", _U32 * 2),
    )


class FrameIntervalEnum(c.Structure):
    """struct v4l2_frmivalenum; ``values``: numerator, denominator, or min, max, step of them."""

    _fields_ = (
        ("index", _U32),
        ("pixel_format", _U32),
        ("width", _U32),
        ("height", _U32),
        ("type", _U32),
        ("values", _U32 * 6),
        ("reserved", _U32 * 2),
    )


class PixelFormat(c.Structure):
    """struct v4l2_pix_format."""

    _fields_ = (
        ("width", _U32),
        ("height", _U32),
        ("pixelformat", _U32),
        ("field", _U32),
        ("bytesperline", _U32),
        ("sizeimage", _U32),
        ("colorspace", _U32),
        ("priv", _U32),
        ("flags", _U32),
        ("ycbcr_enc", _U32),
        ("quantization", _U32),
        ("xfer_func", _U32),
    )


class _FormatUnion(c.Union):
    """The pointer is struct v4l2_window's; it sets the union's alignment."""

    _fields_ = (("pix", PixelFormat), ("raw", _U8 * 200), ("alignment", c.c_void_p))


class Format(c.Structure):
    """struct v4l2_format."""

    _fields_ = (("type", _U32), ("fmt", _FormatUnion))


class CaptureParm(c.Structure):
    """struct v4l2_captureparm."""

    _fields_ = (
        ("capability", _U32),
        ("capturemode", _U32),
        ("numerator", _U32),
        ("denominator", _U32),
        ("extendedmode", _U32),
        ("readbuffers", _U32),
        ("reserved", _U32 * 4),
    )


class _ParmUnion(c.Union):
    _fields_ = (("capture", CaptureParm), ("raw", _U8 * 200))


class StreamParm(c.Structure):
    """struct v4l2_streamparm."""

    _fields_ = (("type", _U32), ("parm", _ParmUnion))


class RequestBuffers(c.Structure):
    """struct v4l2_requestbuffers."""

    _fields_ = (
        ("count", _U32),
        ("type", _U32),
        ("memory", _U32),
        ("capabilities", _U32),
        ("flags", _U8),
        ("reserved", _U8 * 3),
    )


class Timeval(c.Structure):
    """struct timeval."""

    _fields_ = (("seconds", c.c_long), ("microseconds", c.c_long))


class _BufferMemory(c.Union):
    _fields_ = (("offset", _U32), ("userptr", c.c_ulong), ("fd", _S32))


class Buffer(c.Structure):
    """struct v4l2_buffer; ``timecode`` is struct v4l2_timecode, which we do not read."""

    _fields_ = (
        ("index", _U32),
        ("type", _U32),
        ("bytesused", _U32),
        ("flags", _U32),
        ("field", _U32),
        ("timestamp", Timeval),
        ("timecode", _U32 * 4),
        ("sequence", _U32),
        ("memory", _U32),
        ("m", _BufferMemory),
        ("length", _U32),
        ("reserved2", _U32),
        ("request_fd", _S32),
    )


class BufferType(c.Structure):
    """The int that STREAMON and STREAMOFF point to."""

    _fields_ = (("value", c.c_int),)


_WRITE, _READ = 1, 2


def _request(direction: int, number: int, structure: type[c.Structure]) -> int:
    """_IOC of asm-generic/ioctl.h with type 'V'."""
    return direction << 30 | c.sizeof(structure) << 16 | ord("V") << 8 | number


QUERYCAP = _request(_READ, 0, Capability)
ENUM_FMT = _request(_READ | _WRITE, 2, FormatDescription)
S_FMT = _request(_READ | _WRITE, 5, Format)
REQBUFS = _request(_READ | _WRITE, 8, RequestBuffers)
QUERYBUF = _request(_READ | _WRITE, 9, Buffer)
QBUF = _request(_READ | _WRITE, 15, Buffer)
DQBUF = _request(_READ | _WRITE, 17, Buffer)
STREAMON = _request(_WRITE, 18, BufferType)
STREAMOFF = _request(_WRITE, 19, BufferType)
G_PARM = _request(_READ | _WRITE, 21, StreamParm)
S_PARM = _request(_READ | _WRITE, 22, StreamParm)
ENUM_FRAMESIZES = _request(_READ | _WRITE, 74, FrameSizeEnum)
ENUM_FRAMEINTERVALS = _request(_READ | _WRITE, 75, FrameIntervalEnum)

CAPTURE = 1
"""V4L2_BUF_TYPE_VIDEO_CAPTURE."""
MMAP = 1
"""V4L2_MEMORY_MMAP."""
FIELD_NONE = 1
DISCRETE = 1
"""V4L2_FRMSIZE_TYPE_DISCRETE and V4L2_FRMIVAL_TYPE_DISCRETE."""
QUANTIZATION_FULL_RANGE = 1

CAP_VIDEO_CAPTURE = 0x00000001
CAP_TIMEPERFRAME = 0x00001000
CAP_STREAMING = 0x04000000
CAP_DEVICE_CAPS = 0x80000000

BUF_FLAG_ERROR = 0x00000040
BUF_FLAG_TIMESTAMP_MASK = 0x0000E000
BUF_FLAG_TIMESTAMP_MONOTONIC = 0x00002000


def fourcc_number(text: str) -> int:
    """v4l2_fourcc of four letters."""
    return int.from_bytes(text.encode("ascii"), "little")


def fourcc_text(number: int) -> str:
    """Four letters; the big-endian flag (bit 31) shows as the suffix -BE."""
    letters = (number & 0x7FFFFFFF).to_bytes(4, "little").decode("ascii", "replace")
    return letters + "-BE" if number & 0x80000000 else letters
