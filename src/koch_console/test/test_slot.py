# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One slot for each camera: slow readers miss images."""

import asyncio

from koch_console.slot import LatestImage


def test_a_slow_reader_gets_the_newest_and_misses_the_rest():
    async def read() -> None:
        slot = LatestImage()
        for index in range(5):
            slot.put(bytes([index]))
        assert await slot.after(0, 1.0) == (5, b"\x04")
        assert await slot.after(5, 0.01) is None
        waiting = [asyncio.ensure_future(slot.after(5, 1.0)) for _ in range(3)]
        await asyncio.sleep(0)
        slot.put(b"next")
        assert await asyncio.gather(*waiting) == [(6, b"next")] * 3

    asyncio.run(read())


def test_rate_and_age_before_the_first_image():
    slot = LatestImage()
    assert slot.rate_hz == 0.0
    assert slot.age_s is None
