# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Files and FFmpeg streams."""

from __future__ import annotations

import functools
import http.server
import itertools
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from koch_cameras import errors
from koch_cameras.av_source import AvSource, FileSource
from koch_cameras.frame import Encoding
from koch_cameras.open_source import open_source
from koch_cameras.source import SourceConfig


def write_mjpeg_avi(path: Path, packets: list[bytes], fps: int = 30) -> Path:
    """Mux JPEG packets untouched."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base = Fraction(1, fps)
            packet.is_keyframe = True
            container.mux(packet)
    return path


def write_h264(path: Path, images: list[np.ndarray], fps: int = 30, gop: int = 12) -> Path:
    """Encode as H.264 without delay."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"tune": "zerolatency", "g": str(gop)}
        )
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for array in images:
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class ManualClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_ns = 10_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def play(path: Path, **settings: object) -> FileSource:
    clock = ManualClock()
    return FileSource(SourceConfig(str(path), **settings), clock.monotonic_ns, clock.sleep)


def test_mjpeg_file_gives_its_packets_untouched_at_its_own_rate(tmp_path, jpeg):
    packets = [jpeg(index) for index in range(4)]
    source = play(write_mjpeg_avi(tmp_path / "a.avi", packets), width=64, height=48, fps=30)
    frames = [source.read() for _ in packets]
    assert [frame.jpeg for frame in frames] == packets
    steps = np.diff([frame.time_ns for frame in frames])
    np.testing.assert_allclose(steps, 1e9 / 30, rtol=1e-6)
    with pytest.raises(errors.StreamEndedError, match="Set loop"):
        source.read()


def test_loop_starts_again_with_time_and_sequence_going_on(tmp_path, jpeg):
    packets = [jpeg(index) for index in range(3)]
    source = play(write_mjpeg_avi(tmp_path / "a.avi", packets), loop=True)
    frames = [source.read() for _ in range(7)]
    assert [frame.jpeg for frame in frames] == [*packets, *packets, packets[0]]
    assert [frame.sequence for frame in frames] == list(range(7))
    assert len({frame.time_ns for frame in frames}) == 7


def test_bare_packet_file_takes_the_rate_of_the_rig(tmp_path, jpeg):
    path = tmp_path / "a.mjpeg"
    path.write_bytes(b"".join(jpeg(index) for index in range(5)))
    source = play(path, width=64, height=48, fps=15)
    times = [source.read().time_ns for _ in range(3)]
    np.testing.assert_allclose(np.diff(times), 1e9 / 15, rtol=1e-6)


def test_h264_is_decoded_to_rgb(tmp_path, image):
    images = [image(index) for index in range(3)]
    source = play(write_h264(tmp_path / "a.mp4", images))
    frame = source.read()
    assert frame.encoding is Encoding.RGB8
    assert frame.pixels.shape == (48, 64, 3)
    assert np.abs(frame.pixels.astype(int) - images[0]).mean() < 12
    assert not frame.pixels.flags.writeable


@pytest.mark.parametrize("key", ["size", "rate"])
def test_size_or_rate_other_than_the_rigs_is_an_error(tmp_path, jpeg, key):
    path = write_mjpeg_avi(tmp_path / "a.avi", [jpeg(0), jpeg(1)])
    wrong = {"width": 640, "height": 480} if key == "size" else {"fps": 25}
    with pytest.raises(errors.ModeNotOfferedError, match="got MJPG 64x48 30 fps"):
        play(path, **wrong)


def test_damaged_packet_is_dropped_and_the_file_goes_on(tmp_path, jpeg):
    packets = [jpeg(0), jpeg(1)[:-100], jpeg(2)]
    source = play(write_mjpeg_avi(tmp_path / "a.avi", packets))
    source.read()
    with pytest.raises(errors.CorruptFrameError, match="cut off"):
        source.read()
    assert source.read().jpeg == packets[2]


def test_missing_and_foreign_files_are_told(tmp_path):
    with pytest.raises(errors.DeviceNotFoundError, match=r"none\.mp4"):
        open_source(SourceConfig(str(tmp_path / "none.mp4")))
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(errors.StreamFormatError, match="not a video file"):
        open_source(SourceConfig(str(text)))


def test_16_bit_file_is_refused_as_depth(tmp_path):
    path = tmp_path / "depth.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray16le"
        depth = np.full((48, 64), 1000, np.uint16)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(depth, "gray16le")))
        container.mux(stream.encode(None))
    with pytest.raises(errors.DepthFormatError, match="gray16le"):
        open_source(SourceConfig(str(path)))


def test_http_stream_that_is_not_multipart_goes_to_ffmpeg(tmp_path, image):
    write_h264(tmp_path / "a.ts", [image(index) for index in range(300)], gop=5)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """No output."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = open_source(SourceConfig(f"http://127.0.0.1:{server.server_port}/a.ts", 64, 48))
        frames = [source.read() for _ in range(5)]
        source.close()
        server.shutdown()
    assert isinstance(source, AvSource)
    assert [frame.sequence for frame in frames] == list(range(5))


PUSHER = """
import sys, time
import av, numpy as np
time.sleep(0.2)
with av.open(sys.argv[1], "w", format="rtsp", options={"rtsp_transport": "tcp"}) as container:
    stream = container.add_stream("libx264", rate=30, options={"tune": "zerolatency", "g": "5"})
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for index in range(200):
        array = np.full((48, 64, 3), index, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
        time.sleep(0.01)
"""


def test_rtsp_h264_is_decoded(free_port):
    """FFmpeg's RTSP reader listens here and its writer pushes to it: a true RTSP session.

    The writer is a process of its own: PyAV holds the GIL during its handshake.
    """
    url = f"rtsp://127.0.0.1:{free_port}/live"
    with subprocess.Popen([sys.executable, "-c", PUSHER, url], stderr=subprocess.DEVNULL) as push:
        config = SourceConfig(url, 64, 48, timeout_s=8.0)
        source = AvSource(config, {"rtsp_flags": "listen", "listen_timeout": "8"})
        frames = [source.read() for _ in range(5)]
        source.close()
        push.kill()
    assert all(frame.pixels.shape == (48, 64, 3) for frame in frames)
    assert all(b.time_ns >= a.time_ns for a, b in itertools.pairwise(frames))


def test_dead_rtsp_server_is_a_loss(free_port):
    with pytest.raises(errors.SourceLostError):
        open_source(SourceConfig(f"rtsp://127.0.0.1:{free_port}/x", timeout_s=1.0))
