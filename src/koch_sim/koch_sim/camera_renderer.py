# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Draws the simulated cameras in a thread of its own and encodes what someone watches."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import mujoco

from koch_core.image import encode_jpeg
from koch_sim.camera_server import CameraServer, EncodedFrame

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from koch_rig.rig import Camera

#: As USB cameras compress.
JPEG_QUALITY = 85


class CameraRenderer:
    """Renders all watched cameras of one instant; the instants come from the physics thread."""

    def __init__(
        self, model: mujoco.MjModel, cameras: Mapping[str, Camera], server: CameraServer
    ) -> None:
        self._model = model
        self._cameras = dict(cameras)
        self._server = server
        self._wanted = threading.Condition()
        self._instant: tuple[NDArray[np.float64], int] | None = None
        self._stopping = False
        self._sequence = 0
        self.rendered = 0
        self.skipped = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="camera-renderer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def snap(self, qpos: NDArray[np.float64], stamp_ns: int) -> None:
        """Ask for an image of this instant; one that is still waiting is replaced."""
        with self._wanted:
            self.skipped += self._instant is not None
            self._instant = (qpos, stamp_ns)
            self._wanted.notify()

    def close(self) -> None:
        """Stop the thread; may be called twice."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as exc:  # a dead renderer must show: the world's diagnostics report it
            self.error = exc

    def _loop(self) -> None:
        data = mujoco.MjData(self._model)
        renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        try:
            while (instant := self._next()) is not None:
                watched = [c for c in self._cameras.values() if self._server.slots[c.name].readers]
                if not watched:
                    continue
                qpos, stamp_ns = instant
                data.qpos[:] = qpos
                # Only what an image needs: poses of bodies, cameras and lights.
                mujoco.mj_kinematics(self._model, data)
                mujoco.mj_camlight(self._model, data)
                self._sequence += 1
                for camera in watched:
                    size = (camera.height, camera.width)
                    if size not in renderers:
                        renderers[size] = mujoco.Renderer(self._model, *size)
                        let_no_thread_starve()
                    self._draw(renderers[size], data, camera, stamp_ns)
        finally:
            for renderer in renderers.values():
                renderer.close()

    def _next(self) -> tuple[NDArray[np.float64], int] | None:
        with self._wanted:
            self._wanted.wait_for(lambda: self._stopping or self._instant is not None)
            instant, self._instant = self._instant, None
            return None if self._stopping else instant

    def _draw(
        self, renderer: mujoco.Renderer, data: mujoco.MjData, camera: Camera, stamp_ns: int
    ) -> None:
        renderer.update_scene(data, camera.name)
        jpeg = encode_jpeg(renderer.render(), JPEG_QUALITY, fast=True)
        self.rendered += 1
        self._server.put(camera.name, EncodedFrame(jpeg, stamp_ns, self._sequence))


def let_no_thread_starve() -> None:
    """Give threads of less priority than the caller's its own, where the system allows it.

    Mesa runs its shader cache at nice 19. A process that was killed is over, and its ports are
    free, when its last thread is: on a busy machine that one got no time for 6 s, for which no one
    could say that the world had been killed, nor start it again. Without the cache
    (MESA_SHADER_CACHE_DISABLE) the first image takes three times as long.
    """
    if not hasattr(os, "sched_setscheduler"):
        return  # not Linux
    own = os.getpriority(os.PRIO_PROCESS, 0)  # of this thread
    for thread in Path("/proc/self/task").iterdir():
        number = int(thread.name)
        # It may have ended since the listing; a user without the right leaves it as it is.
        with suppress(ProcessLookupError, PermissionError):
            if os.getpriority(os.PRIO_PROCESS, number) > own:
                os.sched_setscheduler(number, os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, number, own)
