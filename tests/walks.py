"""Results of objects whose feet are at given places, for tests of scenes."""

from itertools import count

import numpy as np

from pipeline.detections import Detections
from pipeline.messages import FrameInfo, Result
from pipeline.runtime import LocalRuntime
from stages.scene.stage import Scene, SceneConfig
from stages.track.objects import Objects

WIDTH, HEIGHT = 200, 100  # px of the picture: margins of 0.01 are 1 px
CLASSES = ("person", "car")
FRAME_NS = 100_000_000  # 10 Hz


def zone(polygon, name="door", **fields):
    return {"name": name, "camera": "gate", "polygon": polygon, **fields}


def line(points, name="kerb", **fields):
    return {"name": name, "camera": "gate", "points": points, **fields}


LEFT_HALF = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
MIDDLE = [[0.5, 1], [0.5, 0]]  # from below up: right of it is right in the picture


def scene(zones=(), lines=(), **fields):
    stage = Scene(SceneConfig(classes=CLASSES, zones=tuple(zones), lines=tuple(lines), **fields))
    stage.check(stage.config)
    stage.runtime = LocalRuntime(("gate",))
    stage.setup()
    return stage


def result(frame_id, feet, *, camera="gate", labels=None, size=(WIDTH, HEIGHT), truth=None):
    """feet: {track id: (x, y)}; boxes are 10x20 px."""
    at = np.array(list(feet.values()), np.float32).reshape(-1, 2)
    xyxy = np.concatenate([at - np.float32([5, 20]), at + np.float32([5, 0])], axis=1)
    n = len(at)
    kinds = [(labels or {}).get(track, 0) for track in feet]
    found = Detections(
        xyxy, np.full(n, 0.5, np.float32), np.int32(kinds).reshape(n), np.int64(list(feet))
    )
    info = FrameInfo(camera, frame_id, 1 + frame_id * FRAME_NS, 0, *size, truth=truth)
    return Result(info=info, detections=found)


def happened(
    stage, frames, kinds=("entered", "left", "crossed", "loitering", "crowded", "uncrowded")
):
    """(frame, kind, object, direction or count) of everything that happened in frames of feet."""
    rows = []
    for n, feet in enumerate(frames):
        for one in stage.process(result(n, feet)).happenings:
            if one.kind in kinds:
                rows.append((n, one.kind, one.object, one.direction or one.total))
    return rows


def path(track, *points):
    """Frames of one object."""
    return [{track: point} for point in points]


def walk(track, x_from, x_to, step=4.0, y=60.0):
    """Frames of one object that walks from side to side."""
    n = round(abs(x_to - x_from) / step)
    return [{track: (x_from + (x_to - x_from) * k / n, y)} for k in range(n + 1)]


def together(*walks):
    """Frames of several objects; who is through is not there any more."""
    return [
        {k: v for one in walks if n < len(one) for k, v in one[n].items()}
        for n in range(max(map(len, walks)))
    ]


def joined(frames):
    """Frames of tracks as frames of the objects that the tracker's stage makes of them."""
    numbers = count(1)
    objects = Objects(3.0, (WIDTH, HEIGHT), lambda: next(numbers))
    rows = []
    for n, feet in enumerate(frames):
        one = result(n, feet)
        tracked = objects.update(one.detections, np.int64(list(feet)), one.info.t_capture_ns)
        rows.append(dict(zip(tracked.track_ids.tolist(), feet.values(), strict=True)))
    return rows
