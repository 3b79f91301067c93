# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The subcommands: exit codes, files written, messages."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from koch_cameras import calibrate_cli, cli, crop, sheet
from koch_cameras.intrinsics import load_intrinsics
from koch_cameras.open_source import open_source
from koch_cameras.v4l2.listing import VideoNode
from koch_cameras.v4l2.v4l2_source import V4l2Source
from koch_core.image import decode_image
from koch_rig.load import load_rig


def test_grab_writes_the_rotated_image(mjpeg_server, rig_file, tmp_path, capsys, jpeg):
    rig = rig_file(mjpeg_server().url, width=48, height=64, rotation=90)
    target = tmp_path / "a.png"
    code = cli.main(["grab", "above", "--rig", str(rig), "-o", str(target), "--warmup", "0"])
    assert code == 0
    assert "48x64 from MJPG 64x48" in capsys.readouterr().out
    expected = np.rot90(simplejpeg.decode_jpeg(jpeg(0)), 3)
    np.testing.assert_array_equal(decode_image(target.read_bytes()), expected)


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("below", "http://127.0.0.1:1/x", "no camera 'below'. Cameras of this rig: above"),
        ("above", "http://127.0.0.1:1/x", "refused"),
        ("above", 93, "no such device"),
        ("above", "gopher:x", "unknown kind"),
    ],
)
def test_grab_tells_what_is_wrong(rig_file, capsys, name, source, reason):
    assert cli.main(["grab", name, "--rig", str(rig_file(source)), "--warmup", "0"]) == 2
    assert reason in capsys.readouterr().err


def test_crop_draws_the_box_and_says_what_a_recipe_needs(
    mjpeg_server, rig_file, tmp_path, capsys, jpeg
):
    rig = rig_file(mjpeg_server().url)
    target = tmp_path / "a.png"
    words = ["crop", "above", "--rig", str(rig), "-o", str(target), "--warmup", "0"]
    assert cli.main([*words, "--box", "16", "12", "32", "24"]) == 0
    told = capsys.readouterr().out
    assert '"train.crops={observation.images.above: [0.25, 0.25, 0.5, 0.5]}"' in told
    whole, drawn = simplejpeg.decode_jpeg(jpeg(0)), decode_image(target.read_bytes())
    np.testing.assert_array_equal(drawn[12:36, 16:48], whole[12:36, 16:48])
    assert (drawn[:12] <= whole[:12] * 0.36).all()
    assert cli.main(words) == 0
    assert "--box LEFT TOP WIDTH HEIGHT" in capsys.readouterr().out
    assert (decode_image(target.read_bytes())[:, 8] == (255, 255, 0)).all(axis=-1).any()


@pytest.mark.parametrize("box", ["0 0 0 5", "-1 0 5 5", "60 0 5 5", "0 44 64 5"])
def test_a_box_outside_the_image_is_refused(mjpeg_server, rig_file, capsys, box):
    rig = rig_file(mjpeg_server().url)
    words = ["crop", "above", "--rig", str(rig), "--warmup", "0", "--box", *box.split()]
    assert cli.main(words) == 2
    assert "inside an image of 64x48" in capsys.readouterr().err


@pytest.mark.parametrize("width", [64, 641, 1280, 3333])
def test_a_box_at_an_edge_stays_a_box_inside_the_image(width):
    image = np.zeros((480, width, 3), np.uint8)
    for left in range(0, width, 7):
        box = crop.fractions((left, 0, width - left, 480), image)
        assert box[2] > 0.0
        assert box[0] + box[2] <= 1.0 + 1e-9


def test_list_without_devices_says_what_to_do(fake_camera):
    assert "No video devices" in cli.listing([], fake_camera())


def test_list_shows_modes_stable_paths_and_shared_controllers(fake_camera):
    nodes = [
        VideoNode("/dev/video0", "Cam A", ("/dev/v4l/by-id/a",), "0000:00:14.0 bus 1", 480.0),
        VideoNode("/dev/video2", "Cam B", (), "0000:00:14.0 bus 1", 480.0),
    ]
    text = cli.listing(nodes, fake_camera())
    assert "/dev/video0  Cam A (USB 0000:00:14.0 bus 1, 480 Mbit/s)" in text
    assert "  /dev/v4l/by-id/a" in text
    assert "    MJPG 64x48 at 30, 15 fps" in text
    assert text.endswith("USB controller 0000:00:14.0 bus 1 is shared by: Cam A, Cam B")
    assert "no video here" in cli.listing(nodes[:1], fake_camera(device_caps=0x04A00000))
    assert "permission denied" in cli.listing(nodes[:1], fake_camera(open_error=13))


def test_every_device_and_stream_is_on_the_sheet(
    mjpeg_server, rig_file, tmp_path, fake_camera, jpeg
):
    rig = rig_file(mjpeg_server().url)
    nodes = [VideoNode("/dev/video8", "Cam A", ("/dev/v4l/by-id/a",), "", None)]
    nodes.append(VideoNode("/dev/video9", "Cam B", (), "", None))
    found = sheet.candidates(nodes, load_rig(rig).cameras.values())
    assert [item.place for item in found[:2]] == ["/dev/v4l/by-id/a", "/dev/video9"]
    camera = fake_camera()
    camera.frames.append({"data": jpeg(1, 640, 480), "time_ns": 10**9, "sequence": 1})
    devices = {"/dev/video8": camera, "/dev/video9": fake_camera(open_error=13)}

    def open_one(config):
        device = devices.get(config.index_or_path)
        return V4l2Source(config, device) if device else open_source(config)

    shown = sheet.look_through(found, open_one, lambda source: source.read())
    got = [item.image is not None for item in shown]
    assert got == [True, False, True], shown[0].problem
    assert "permission denied" in shown[1].problem
    assert shown[2].candidate.used_by == "rig: above"
    sheet.draw(shown, tmp_path / "cameras.png")
    image = decode_image((tmp_path / "cameras.png").read_bytes())
    assert image.shape == (sheet.TILE_HEIGHT + sheet.LABEL_HEIGHT, 3 * sheet.TILE_WIDTH, 3)


def test_without_a_subcommand_the_rigs_streams_are_shown_and_its_default_is_known(
    mjpeg_server, rig_file, tmp_path, capsys, monkeypatch
):
    rig = rig_file(mjpeg_server().url)
    monkeypatch.setenv("KOCH_RIG", str(rig))
    monkeypatch.setattr(cli, "list_nodes", list)
    target = tmp_path / "sheet.png"
    assert cli.main(["-o", str(target), "--warmup", "0"]) == 0
    assert target.is_file()
    assert "above (rig: above)" in capsys.readouterr().out
    assert cli.main(["grab", "above", "-o", str(tmp_path / "a.png"), "--warmup", "0"]) == 0


def _render_views() -> list[np.ndarray]:
    path = Path(__file__).with_name("test_calibration.py")
    spec = importlib.util.spec_from_file_location("calibration_views", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.render(module.Board(), *pose) for pose in module.poses()]


def test_calibration_from_a_recorded_file(rig_file, tmp_path, capsys):
    path = tmp_path / "views.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for index, grey in enumerate(_render_views()):
            packet = av.Packet(simplejpeg.encode_jpeg(np.dstack([grey] * 3), quality=95))
            packet.stream, packet.pts, packet.dts = stream, index, index
            packet.time_base, packet.is_keyframe = Fraction(1, 30), True
            container.mux(packet)
    rig = rig_file(str(path), width=640, height=480)
    assert calibrate_cli.main(["camera", "above", "--rig", str(rig), "--every-image"]) == 0
    text = capsys.readouterr().out
    assert "px (good)" in text
    assert "cameras: above: intrinsics: cameras/above.yaml" in text
    found = load_intrinsics(rig.parent / "cameras" / "above.yaml")
    assert found.camera_matrix[0, 0] == pytest.approx(610.0, rel=0.02)


def test_calibration_without_board_in_sight_is_told(mjpeg_server, rig_file, capsys):
    rig = rig_file(mjpeg_server().url)
    assert calibrate_cli.main(["above", "--rig", str(rig), "--seconds", "0.1"]) == 2
    output = capsys.readouterr()
    assert "no board" in output.out
    assert "0 views" in output.err


def test_board_is_written_as_pdf(tmp_path, capsys):
    target = tmp_path / "board.pdf"
    assert calibrate_cli.main(["--board", str(target), "--square", "30"]) == 0
    assert target.read_bytes().startswith(b"%PDF-1.4")
    assert calibrate_cli.main([]) == 2
    assert "no camera named" in capsys.readouterr().err
