"""What the heavy libraries of this installation can do: tried, and not only imported.

    python -m stages.probe FOLDER       prints {"opencv": {"found": …}, "h264": {"error": …}, …} as JSON

In a process of its own, since a broken library may end it. `FOLDER/clip.mp4` is left behind: what a
camera of 720p sends, for measuring what its decoding costs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

SIZE, FPS, FRAMES = (1280, 720), 25, 50  # of the clip


def write_clip(path: Path, frames: int) -> Path:
    """A rendered scene as H.264, as a camera encodes it: no B frames, a keyframe every two seconds."""
    import av

    from stages.imaging.scenes import Scene

    scene = Scene(5, SIZE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "bf": "0", "g": str(2 * FPS)}
        for k in range(frames):
            picture, _ = scene.render(k / FPS)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _opencv(folder: Path) -> str:
    import cv2

    return f"OpenCV {cv2.__version__}"


def _ffmpeg(folder: Path) -> str:
    import av

    if "rtsp" not in av.formats_available or "h264" not in av.codecs_available:
        raise ValueError("this build knows no RTSP or no H.264")
    return f"PyAV {av.__version__}, RTSP and H.264"


def _h264(folder: Path) -> str:
    write_clip(folder / "clip.mp4", FRAMES)
    return "libx264"


def _torch(folder: Path) -> str:
    from stages.detector import engines

    version, devices = engines.torch_facts()
    if not devices and os.path.exists("/dev/nvidia0"):
        raise ValueError(f"there is an NVIDIA GPU, and torch {version} can't use it")
    return f"torch {version}, {', '.join(devices) or 'CPU'}"


def _onnx(folder: Path) -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


PROBES: dict[str, Callable[[Path], str]] = {
    "opencv": _opencv,
    "ffmpeg": _ffmpeg,
    "h264": _h264,
    "torch": _torch,
    "onnx": _onnx,
}


def probe(folder: Path) -> dict[str, dict[str, str]]:
    """Each of PROBES: {"found": what} or {"error": why not}."""
    said = {}
    for name, tried in PROBES.items():
        try:
            said[name] = {"found": tried(folder)}
        except Exception as error:  # whatever a broken library raises is what we are here for
            said[name] = {"error": (str(error).strip().splitlines() or [repr(error)])[0]}
    return said


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1]))))
