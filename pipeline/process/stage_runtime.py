"""What a stage or source may ask of the process it lives in: `stage.Runtime`, answered."""

from __future__ import annotations

from pipeline.accounts.layout import DETECT
from pipeline.errors import CAUSES
from pipeline.process.base import Process
from pipeline.runtime import CameraState, Fates


class StageRuntime:
    """stage.Runtime inside a process."""

    def __init__(self, process: Process) -> None:
        self.empty = process.storage.empty
        self.pack = process.storage.pack
        self.quit = process.quit_run
        self.original = process.original
        self.alive = process.beat
        self._process = process

    @property
    def cameras(self) -> tuple[str, ...]:
        """See runtime.Runtime.cameras."""
        return self._process.spec.cameras

    def count(self, name: str, camera: str, n: int = 1) -> None:
        """See runtime.Runtime.count."""
        self._process.ledger.count(self._process.spec.name, name, camera, n)

    def counted(self, name: str, camera: str) -> int:
        """See runtime.Runtime.counted."""
        return self._process.ledger.counted(self._process.spec.name, name, camera)

    def fates(self, camera: str, since: int) -> Fates:
        """See runtime.Runtime.fates."""
        ledger = self._process.ledger
        row = ledger.camera_index[camera]
        return Fates(*ledger.fates(row, DETECT, since))

    def camera(self, camera: str) -> CameraState:
        """See runtime.Runtime.camera."""
        ledger = self._process.ledger
        row = ledger.camera_index[camera]
        is_up, frames = bool(ledger["camera_up"][row]), int(ledger["captured"][row])
        cause = "" if is_up else CAUSES[int(ledger["down_cause"][row])]
        return CameraState(is_up, cause, frames, int(ledger["last_frame_ns"][row]))

    def measure(self, name: str, seconds: float) -> None:
        """See runtime.Runtime.measure."""
        self._process.ledger.measure(self._process.spec.name, name, seconds)

    def counted_in_all(self, name: str) -> int:
        """See runtime.Runtime.counted_in_all."""
        return self._process.ledger.counted_in_all(self._process.spec.name, name)

    def settle(self, camera: str, frames: int, *, taken: bool) -> None:
        """See runtime.Runtime.settle."""
        self._process.settle(camera, frames, taken=taken)
