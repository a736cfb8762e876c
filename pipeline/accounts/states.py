"""What stages remember of their cameras, in memory that survives them.

Two pages a process and camera: a state is written into the older one, so that a process which is killed
while it writes leaves the state before. A page is

    sequence uint64, length uint32, CRC-32 uint32 of the state that begins with the sequence, the state
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy.typing as npt

PAGE_BYTES = 1 << 16
FORGOTTEN = "states_forgotten"  # counter: states that were too large, or that nobody could use
_HEAD = struct.Struct("<QII")
MAX_STATE_BYTES = PAGE_BYTES - _HEAD.size


class States:
    """Those of one process. One writer."""

    def __init__(self, pages: npt.NDArray[Any]) -> None:
        """pages: uint8 (cameras, 2, PAGE_BYTES), 0 at first."""
        self._pages = pages

    def write(self, camera: int, state: bytes) -> bool:
        """Keep the state of a camera (its row). False: it is too large, and there is none now."""
        fits = len(state) <= MAX_STATE_BYTES
        kept = state if fits else b""
        heads = [self._head(camera, page) for page in (0, 1)]
        page = min((0, 1), key=lambda page: heads[page][0])
        view = memoryview(self._pages[camera, page].data)
        # the old words go first: whoever reads half of this finds neither state in it
        _HEAD.pack_into(view, 0, 0, 0, 0)
        view[_HEAD.size : _HEAD.size + len(kept)] = kept
        sequence = max(heads)[0] + 1
        _HEAD.pack_into(view, 0, sequence, len(kept), _crc(sequence, kept))
        return fits

    def read(self, camera: int) -> bytes | None:
        """The newest state of a camera that is whole; None: there is none."""
        found = []
        for page in (0, 1):
            sequence, length, crc = self._head(camera, page)
            if sequence and length <= MAX_STATE_BYTES:
                state = self._pages[camera, page, _HEAD.size : _HEAD.size + length].tobytes()
                if _crc(sequence, state) == crc:
                    found.append((sequence, state))
        return (max(found)[1] or None) if found else None

    def _head(self, camera: int, page: int) -> tuple[int, int, int]:
        sequence, length, crc = _HEAD.unpack_from(self._pages[camera, page].data)
        return sequence, length, crc


def _crc(sequence: int, state: bytes) -> int:
    return zlib.crc32(state, sequence & 0xFFFFFFFF)
