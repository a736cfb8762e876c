"""The picture that goes with an alarm: the best one so far of its object, out of the folder of a store."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.happenings import picture_name
from stages.sinks.alarms import age
from stages.sinks.alarms.outbox import Message

Kind = Literal["", "object", "frame"]
"""What a target wants: none, the object alone, the whole frame."""

_ENDS = {"object": ".jpg", "frame": ".frame.jpg"}
_WAIT_S = 2.0  # after the moment of an alarm, for its picture: two looks a second are taken
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Picture:
    """One JPEG."""

    name: str  # in the folder of the pictures: run/camera/object.jpg
    jpeg: bytes


class Pictures:
    """Those that one target wants. folder: of the store; None: there are none."""

    def __init__(self, folder: str | None, kind: Kind) -> None:
        self._folder = None if folder is None else Path(folder)
        self._end = _ENDS.get(kind)

    def of(self, message: Message) -> Picture | None:
        """Of the object of an alarm. May wait for it, never longer than two seconds after that moment.

        None: it is about no object, or there is no picture of it (any more).
        """
        happening = json.loads(message.document)["happening"]
        if self._folder is None or self._end is None or "object" not in happening:
            return None
        who = happening["run"], happening["camera"], happening["object"]
        name = f"{picture_name(*who)}{self._end}"
        while True:
            try:
                return Picture(name, (self._folder / name).read_bytes())
            except OSError:
                moment = message.t_capture_ns, message.t_wall_ns, message.boot
                if age.seconds_since(*moment) >= _WAIT_S:
                    return None
            time.sleep(_LOOK_S)
