"""Lets a stage go on where the one was that died."""

from __future__ import annotations

import logging

from pipeline.accounts.ledger import Ledger
from pipeline.accounts.states import FORGOTTEN
from pipeline.plan.graph import ProcessSpec
from pipeline.stage import Stage

log = logging.getLogger("manyeyes")


class Memory:
    """Of one process; does nothing for a stage that remembers nothing.

    With the stage's own words it keeps its counters: who was killed between counting and saving gets its
    frame again, and would count it twice.
    """

    def __init__(self, stage: Stage, spec: ProcessSpec, ledger: Ledger) -> None:
        self._stage, self._spec, self._ledger = stage, spec, ledger
        self._states = ledger.states(spec.name) if spec.remembers else None

    def restore(self, camera: str) -> None:
        """What there is of a camera. To be called after `setup`."""
        state = self._states.read(self._ledger.camera_index[camera]) if self._states else None
        if state is None:
            return
        size = self._ledger.counters_of(self._spec.name, camera).nbytes
        try:
            self._stage.restore(camera, state[size:])
            self._ledger.set_counters(self._spec.name, camera, state[:size])
        except ValueError as error:
            self._forget(camera, f"can't be used: {error}")

    def save(self, camera: str) -> None:
        """To be called when the stage has worked at a frame of the camera, before that is DONE."""
        if self._states is None:
            return
        state = self._stage.save(camera)
        if state is None:
            return
        counted = self._ledger.counters_of(self._spec.name, camera).tobytes()
        if not self._states.write(self._ledger.camera_index[camera], counted + state):
            self._forget(camera, f"of {len(state)} bytes is too large")

    def _forget(self, camera: str, why: str) -> None:
        log.warning("stage %r, camera %r: its state %s", self._spec.name, camera, why)
        self._ledger.count(self._spec.name, FORGOTTEN, camera)
