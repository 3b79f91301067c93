# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""V4L2 through a fake kernel: byte layouts, enumeration, streaming, and every refusal."""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np
import pytest

from koch_cameras import errors
from koch_cameras.frame import Encoding, TimeBase
from koch_cameras.source import SourceConfig
from koch_cameras.v4l2 import Device, LinuxKernel, V4l2Source, layout
from koch_cameras.v4l2.kernel import holders

MJPG = {"index_or_path": 3, "width": 64, "height": 48, "fps": 30}


def test_ioctl_numbers_are_those_of_the_kernel_header():
    expected = {
        "QUERYCAP": 0x80685600,
        "ENUM_FMT": 0xC0405602,
        "S_FMT": 0xC0D05605,
        "REQBUFS": 0xC0145608,
        "QUERYBUF": 0xC0585609,
        "QBUF": 0xC058560F,
        "DQBUF": 0xC0585611,
        "STREAMON": 0x40045612,
        "STREAMOFF": 0x40045613,
        "G_PARM": 0xC0CC5615,
        "S_PARM": 0xC0CC5616,
        "ENUM_FRAMESIZES": 0xC02C564A,
        "ENUM_FRAMEINTERVALS": 0xC034564B,
    }
    assert {name: getattr(layout, name) for name in expected} == expected


def test_structure_offsets_are_those_of_gcc_on_64_bit():
    assert ctypes.sizeof(layout.Format) == 208
    assert layout.Format.fmt.offset == 8
    assert layout.PixelFormat.bytesperline.offset == 16
    assert layout.PixelFormat.quantization.offset == 40
    assert ctypes.sizeof(layout.Buffer) == 88
    assert layout.Buffer.timestamp.offset == 24
    assert layout.Buffer.sequence.offset == 56
    assert layout.Buffer.m.offset == 64
    assert layout.Buffer.length.offset == 72
    assert layout.CaptureParm.numerator.offset == 8


def test_modes_are_enumerated_with_rates_fastest_first(fake_camera):
    device = Device("/dev/video3", fake_camera())
    assert [str(mode) for mode in device.modes()] == [
        "YUYV 64x48 at 30 fps",
        "YUYV 640x480 at 30 fps",
        "MJPG 64x48 at 30, 15 fps",
        "MJPG 640x480 at 30 fps",
    ]
    identity = device.identity()
    assert (identity.driver, identity.card, identity.captures) == ("uvcvideo", "Fake Cam", True)


def test_stepwise_sizes_list_common_ones_and_the_wanted(fake_camera):
    camera = fake_camera(formats={"YUYV": {}}, stepwise=(32, 1280, 16, 32, 720, 16))
    sizes = {(mode.width, mode.height) for mode in Device("/dev/video3", camera).modes((64, 48))}
    assert sizes == {(64, 48), (320, 240), (640, 480), (1280, 720)}


def test_mjpeg_passes_untouched_with_kernel_time_and_sequence(fake_camera, jpeg):
    camera = fake_camera()
    source = V4l2Source(SourceConfig(**MJPG), camera)
    assert str(source.mode) == "MJPG 64x48 30 fps"
    packet = jpeg(1) + b"\0" * 20
    camera.frames += [
        {"data": packet, "time_ns": 4_123_456_000, "sequence": 11},
        {"data": jpeg(2), "time_ns": 4_156_789_000, "sequence": 14},
    ]
    first, second = source.read(), source.read()
    assert first.jpeg == packet
    assert (first.time_ns, first.time_base) == (4_123_456_000, TimeBase.MONOTONIC)
    assert (first.sequence, second.sequence) == (11, 14)
    assert sorted(camera.queued) == [0, 1, 2, 3]
    source.close()
    source.close()
    assert (camera.opened, camera.closed, camera.streaming) == (1, 1, False)


def test_unknown_buffer_clock_falls_back_to_arrival(fake_camera, jpeg):
    camera = fake_camera(now_ns=9_000_000_000)
    source = V4l2Source(SourceConfig(**MJPG), camera)
    camera.frames.append({"data": jpeg(1), "time_ns": 77, "sequence": 1, "raw_flags": 0})
    assert source.read().time_ns == 9_000_000_000


def test_yuyv_rows_lose_their_padding(fake_camera):
    camera = fake_camera(stride_padding=10, quantization=1)
    source = V4l2Source(SourceConfig(**MJPG, fourcc="YUYV"), camera)
    rows = np.random.default_rng(0).integers(0, 256, (48, 138), dtype=np.uint8)
    camera.frames.append({"data": rows.tobytes(), "time_ns": 1, "sequence": 1})
    frame = source.read()
    assert frame.encoding is Encoding.YUYV
    assert frame.full_range
    np.testing.assert_array_equal(frame.pixels.reshape(48, 128), rows[:, :128])
    assert not frame.pixels.flags.writeable


def test_rotated_camera_is_asked_for_the_swapped_size(fake_camera):
    config = SourceConfig(index_or_path=3, width=48, height=64, fps=30, rotation=90)
    assert V4l2Source(config, fake_camera()).mode.width == 64


def test_mode_not_offered_lists_what_there_is(fake_camera):
    config = SourceConfig(index_or_path=3, width=100, height=100, fps=30)
    camera = fake_camera()
    with pytest.raises(errors.ModeNotOfferedError, match=r"100x100(.|\n)*MJPG 640x480 at 30 fps"):
        V4l2Source(config, camera)
    assert camera.closed == 1


@pytest.mark.parametrize("change", [{"forced_size": (32, 24)}, {"forced_rate": 15}])
def test_mode_that_the_driver_changed_silently_is_an_error(fake_camera, change):
    with pytest.raises(errors.ModeNotOfferedError, match=r"got MJPG (32x24 30|64x48 15) fps"):
        V4l2Source(SourceConfig(**MJPG), fake_camera(**change))


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (errno.ENOENT, errors.DeviceNotFoundError, "no such device"),
        (errno.EACCES, errors.DeviceAccessError, "usermod -aG video"),
        (errno.EBUSY, errors.DeviceBusyError, "busy"),
    ],
)
def test_open_failures_say_what_to_do(fake_camera, code, error, text):
    with pytest.raises(error, match=text):
        V4l2Source(SourceConfig(**MJPG), fake_camera(open_error=code))


@pytest.mark.parametrize("request_name", ["S_FMT", "REQBUFS", "STREAMON"])
def test_busy_device_is_told_at_every_step(fake_camera, request_name):
    camera = fake_camera(errors={getattr(layout, request_name): errno.EBUSY})
    with pytest.raises(errors.DeviceBusyError, match="/dev/video3"):
        V4l2Source(SourceConfig(**MJPG), camera)
    assert camera.closed == 1


def test_saturated_usb_controller_is_named(fake_camera):
    camera = fake_camera(errors={layout.STREAMON: errno.ENOSPC})
    with pytest.raises(errors.UsbBandwidthError, match="no bandwidth left"):
        V4l2Source(SourceConfig(**MJPG), camera)


def test_metadata_node_is_not_a_camera(fake_camera):
    with pytest.raises(errors.NotACameraError, match="does not capture"):
        V4l2Source(SourceConfig(**MJPG), fake_camera(device_caps=0x04A00000))


@pytest.mark.parametrize("fourcc", ["Z16 ", "Y16 "])
def test_depth_device_is_refused_where_colour_is_expected(fake_camera, fourcc):
    camera = fake_camera(formats={fourcc: {(64, 48): [30]}})
    with pytest.raises(errors.DepthFormatError, match="16-bit depth"):
        V4l2Source(SourceConfig(**MJPG), camera)


def test_stall_is_told_with_its_length(fake_camera):
    source = V4l2Source(SourceConfig(**MJPG, timeout_s=3.0), fake_camera())
    with pytest.raises(errors.SourceStalledError, match=r"no image for 3\.0 s"):
        source.read()


def test_unplug_is_a_loss_and_closing_works_after_it(fake_camera):
    camera = fake_camera()
    source = V4l2Source(SourceConfig(**MJPG), camera)
    camera.plugged = False
    with pytest.raises(errors.SourceLostError, match="unplugged"):
        source.read()
    source.close()
    assert camera.closed == 1


def test_damaged_buffers_are_reported_and_the_stream_goes_on(fake_camera, jpeg):
    camera = fake_camera()
    source = V4l2Source(SourceConfig(**MJPG), camera)
    whole = jpeg(1)
    for data, flags in ((whole, 0x40), (whole[: len(whole) // 2], 0), (b"", 0), (whole, 0)):
        camera.frames.append({"data": data, "time_ns": 1, "sequence": 1, "flags": flags})
    for reason in ("marked", "cut off", "0 bytes"):
        with pytest.raises(errors.CorruptFrameError, match=reason):
            source.read()
    assert source.read().jpeg == whole


def test_size_change_is_an_error(fake_camera, jpeg):
    camera = fake_camera()
    source = V4l2Source(SourceConfig(**MJPG), camera)
    camera.frames.append({"data": jpeg(1, 32, 24), "time_ns": 1, "sequence": 1})
    with pytest.raises(errors.FrameSizeError, match="32x24, expected 64x48"):
        source.read()


def test_short_raw_buffer_is_damaged(fake_camera):
    camera = fake_camera()
    source = V4l2Source(SourceConfig(**MJPG, fourcc="YUYV"), camera)
    camera.frames.append({"data": b"\0" * 6000, "time_ns": 1, "sequence": 1})
    with pytest.raises(errors.CorruptFrameError, match="6000 bytes"):
        source.read()


def test_real_kernel_refuses_a_file_that_is_no_device(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(errors.NotACameraError, match="not a V4L2 device"):
        V4l2Source(SourceConfig(index_or_path=str(path)), LinuxKernel())


def test_real_kernel_reports_a_missing_device():
    with pytest.raises(errors.DeviceNotFoundError, match="cameras list"):
        V4l2Source(SourceConfig(index_or_path=987))


def test_holders_names_the_process(tmp_path):
    folder = tmp_path / "4242" / "fd"
    folder.mkdir(parents=True)
    target = tmp_path / "video0"
    target.touch()
    os.symlink(target, folder / "5")
    (tmp_path / "4242" / "comm").write_text("cheese\n")
    assert holders(str(target), tmp_path) == ["cheese (pid 4242)"]
