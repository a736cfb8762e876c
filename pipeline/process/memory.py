"""Lets a stage go on where the one was that died, and give again what that one had given."""

from __future__ import annotations

import logging
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable

from pipeline.accounts.ledger import Ledger
from pipeline.accounts.states import FORGOTTEN, MAX_STATE_BYTES
from pipeline.happenings import NO_FRAME
from pipeline.plan.graph import ProcessSpec
from pipeline.stage import Stage

log = logging.getLogger("manyeyes")

_HEAD = struct.Struct("<qIII")  # the last frame, which counters, bytes of them, answers
_ANSWER = struct.Struct("<qI")  # the frame, bytes of what was given for it; they follow


class Memory:
    """Of one process; does nothing for a stage that remembers nothing.

    With the stage's own words it keeps its counters: who was killed between counting and saving gets its
    frame again, and would count it twice. And it keeps the answers that are not known to have arrived:
    several frames come again when a process was killed, since neither what it sent last nor its DONEs
    need have left it. The stage is past those frames, and could not say the same of them.
    """

    def __init__(self, stage: Stage, spec: ProcessSpec, ledger: Ledger) -> None:
        self._stage, self._spec, self._ledger = stage, spec, ledger
        self._states = ledger.states(spec.name) if spec.remembers else None
        self._counters = zlib.crc32(repr(spec.counters).encode())
        self._last: dict[str, int] = {}  # by camera: the frame that the stage worked at last
        self._before: dict[str, int] = {}  # the same of the process before this one
        self._answers: defaultdict[str, dict[int, bytes]] = defaultdict(dict)  # by frame

    def restore(self, camera: str) -> None:
        """What there is of a camera. To be called after `setup`."""
        page = self._states.read(self._ledger.camera_index[camera]) if self._states else None
        if page is None:
            return
        last, counters, size, n = _HEAD.unpack_from(page)
        at = _HEAD.size
        for _ in range(n):
            frame_id, length = _ANSWER.unpack_from(page, at)
            at += _ANSWER.size + length
            self._answers[camera][frame_id] = page[at - length : at]
        self._last[camera] = self._before[camera] = last
        try:
            self._stage.restore(camera, page[at + size :])
            if counters == self._counters:  # else it has ended well, to count other things
                self._ledger.set_counters(self._spec.name, camera, page[at : at + size])
        except ValueError as error:
            self._forget(camera, f"can't be used: {error}")

    def leave(self, camera: str) -> None:
        """Nothing more of it comes."""
        for known in (self._last, self._before, self._answers):
            known.pop(camera, None)

    def has_seen(self, camera: str, frame_id: int) -> bool:
        """Whether the stage has worked at this frame, here or in the process before this one."""
        return frame_id <= self._last.get(camera, -1)

    def answer(self, camera: str, frame_id: int) -> bytes | None:
        """What was given for a frame that comes again. None: nothing, or it has arrived."""
        return self._answers[camera].get(frame_id)

    def is_lost(self, camera: str, frame_id: int) -> bool:
        """Whether nobody has the answer of a frame that comes again, if it has not arrived."""
        return frame_id <= self._before.get(camera, -1) and self.answer(camera, frame_id) is None

    def save(
        self,
        camera: str,
        frame_id: int,
        answer: bytes | None,
        has_arrived: Callable[[int], bool],
    ) -> None:
        """To be called when the stage has worked at a frame of the camera, before that is DONE.

        answer: what it gives for it, encoded. has_arrived: whether that of an earlier frame is where it
        was to go.
        """
        if self._states is None:
            return
        if frame_id != NO_FRAME:
            self._last[camera] = frame_id
        answers = self._answers[camera]
        for known in [*filter(has_arrived, answers)]:
            del answers[known]
        if answer is not None and frame_id != NO_FRAME:
            answers[frame_id] = answer
        state = self._stage.save(camera)
        if state is None:
            return
        counted = self._ledger.counters_of(self._spec.name, camera).tobytes()
        kept = _packed(answers, MAX_STATE_BYTES - _HEAD.size - len(counted) - len(state))
        last = self._last.get(camera, -1)
        head = _HEAD.pack(last, self._counters, len(counted), len(kept))
        page = b"".join((head, *kept, counted, state))
        if not self._states.write(self._ledger.camera_index[camera], page):
            self._forget(camera, f"of {len(state)} bytes is too large")

    def _forget(self, camera: str, why: str) -> None:
        log.warning("stage %r, camera %r: its state %s", self._spec.name, camera, why)
        self._ledger.count(self._spec.name, FORGOTTEN, camera)


def _packed(answers: dict[int, bytes], room: int) -> list[bytes]:
    """As many as go into so many bytes: the newest."""
    kept = []
    for frame_id in sorted(answers, reverse=True):
        answer = answers[frame_id]
        room -= _ANSWER.size + len(answer)
        if room < 0:
            break
        kept.append(_ANSWER.pack(frame_id, len(answer)) + answer)
    return kept
