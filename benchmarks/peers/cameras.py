"""What people write instead, for the same cameras and the same model.

    python -m benchmarks.peers.cameras NAME BUNDLE ENGINE      one of PEERS, in a process of its own

Orders come on stdin, a line of JSON each: {"urls": […], "log": FILE} to begin, {} to stop; the process
answers with a line when it is ready and after each stop. Everything that is not the peer's own is shared
with ours: the letterbox, the decoding with its threshold and NMS, the log. The model is loaded as people
do it: in ONNX Runtime with its own options, or in torch, and then frozen and channels_last, which few do;
each has as many threads as it chooses.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.sightings import Sightings
from benchmarks.peers.streams import number_of
from pipeline.detections import Detections
from pipeline.messages import Image
from stages.detector import archive
from stages.detector.bundle import Facts, read_facts
from stages.detector.decode import detections_from
from stages.detector.onnx_engine import Input
from stages.imaging.letterbox import prepare

WARM_UP_CALLS = 3
NAP_S = 0.001


Net = Callable[[Any], list[Any]]  # uint8 (B, H, W, 3) → the arrays of the batch


def in_torch(path: str, facts: Facts) -> Net:
    """The TorchScript file."""
    import torch

    warnings.filterwarnings("ignore", r"`torch\.jit\.")
    loaded = torch.jit.load(path).eval().to(memory_format=torch.channels_last)  # type: ignore[no-untyped-call]
    net = torch.jit.freeze(loaded)

    def run(batch: Any) -> list[Any]:
        x = torch.from_numpy(batch).permute(0, 3, 1, 2)
        if facts.input.dtype == "float32":
            x = x.float() * facts.input.scale
        with torch.inference_mode():
            found = net(x)
        return [t.numpy() for t in ([found] if torch.is_tensor(found) else found)]

    return run


def in_onnx(path: str, facts: Facts) -> Net:
    """The ONNX form inside, or the ONNX file."""
    import onnxruntime

    source = archive.read_twin(path, facts.twin) if facts.twin else path
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    inputs = [(i.name, i.type, tuple(i.shape)) for i in session.get_inputs()]
    fed = Input(inputs, facts, max(facts.batch_sizes), path)
    return lambda batch: list(session.run(None, fed.feed(batch)))


NETS = {"torchscript": in_torch, "onnx": in_onnx}


class Model:
    """The model in one of NETS, for pictures of any size."""

    def __init__(self, path: str, engine: str = "torchscript") -> None:
        self.facts = read_facts(path)
        self.net = NETS[engine](path, self.facts)
        size = self.facts.input
        for batch in self.facts.batch_sizes:
            for _ in range(WARM_UP_CALLS):
                self([np.zeros((size.height, size.width, 3), np.uint8)] * batch)

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        """What is in each picture, uint8 (H, W, 3) BGR; at most as many as the largest batch."""
        facts = self.facts
        inputs, fits = zip(*(prepare(i, facts.input, facts.resize) for i in images), strict=True)
        outputs = self.net(np.stack(inputs))
        return [
            detections_from(
                [array[i] for array in outputs], facts, fit, (image.shape[1], image.shape[0])
            )
            for i, (image, fit) in enumerate(zip(images, fits, strict=True))
        ]


class Task:
    """One order: the cameras, the model, whether to go on, and where results go."""

    def __init__(self, model: Model, urls: Sequence[str], log: str) -> None:
        self.model, self.urls = model, list(urls)
        self.stop = threading.Event()
        self._sightings = Sightings(log, len(urls))

    def seen(self, camera: int, image: Image, found: Detections) -> None:
        """There is a result."""
        self._sightings.add(camera, number_of(image), found)


# -- the blog post ---------------------------------------------------------------------------------


def blog(task: Task) -> None:
    """VideoCapture → model → next camera."""
    captures: list[Any] = [cv2.VideoCapture(url) for url in task.urls]
    while not task.stop.is_set():
        for camera, capture in enumerate(captures):
            ok, image = capture.read()
            if not ok:
                return
            task.seen(camera, image, task.model([image])[0])


# -- threads ---------------------------------------------------------------------------------------


class Newest(threading.Thread):
    """Reads a camera all the time and keeps the newest picture."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._capture: Any = cv2.VideoCapture(url)
        self._image: Image | None = None
        self._there = threading.Condition()

    def run(self) -> None:
        """Until the camera ends."""
        while True:
            ok, image = self._capture.read()
            if not ok:
                return
            with self._there:
                self._image = image
                self._there.notify()

    def take(self, timeout_s: float = 0.0) -> Image | None:
        """The newest picture, once; None: there is no new one."""
        with self._there:
            if self._image is None and timeout_s:
                self._there.wait(timeout_s)
            image, self._image = self._image, None
            return image


def threads(task: Task) -> None:
    """A thread per camera keeps its newest picture, another one puts it through the shared model."""
    readers = [Newest(url) for url in task.urls]
    for reader in readers:
        reader.start()

    def work(camera: int) -> None:
        while not task.stop.is_set():
            image = readers[camera].take(0.1)
            if image is not None:
                task.seen(camera, image, task.model([image])[0])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(readers))]
    for thread in workers:
        thread.start()
    for thread in (*workers, *readers):
        thread.join()


# -- a loader that waits for all -------------------------------------------------------------------


class WaitsForAll:
    """One picture of every stream at a time, as Ultralytics documents its LoadStreams.

    A thread per stream keeps the newest picture (`stream_buffer=False`); the iterator looks for a
    stream's picture every 1 / min(fps) s until it has one of each.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._captures: list[Any] = [cv2.VideoCapture(url) for url in urls]
        rates_hz = [capture.get(cv2.CAP_PROP_FPS) or 30.0 for capture in self._captures]
        self._nap_s = 1 / min(rates_hz)
        self._images: list[Image | None] = [None] * len(urls)
        self.threads = [
            threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(len(urls))
        ]
        for thread in self.threads:
            thread.start()

    def _read(self, camera: int) -> None:
        while True:
            ok, image = self._captures[camera].read()
            if not ok:
                return
            self._images[camera] = image

    def __iter__(self) -> Iterator[list[Image]]:
        while True:
            images = []
            for camera, thread in enumerate(self.threads):
                while (image := self._images[camera]) is None:
                    if not thread.is_alive():
                        return
                    time.sleep(self._nap_s)
                self._images[camera] = None
                images.append(image)
            yield images


def loader(task: Task) -> None:
    """A batch of all streams, when all have something."""
    streams = WaitsForAll(task.urls)
    for images in streams:
        for camera, found in enumerate(task.model(images)):
            task.seen(camera, images[camera], found)
        if task.stop.is_set():
            break
    for thread in streams.threads:
        thread.join()


# -- supervision, Roboflow -------------------------------------------------------------------------


def supervision(task: Task) -> None:
    """Its generator for each camera, a picture of each in turn, as a batch."""
    from supervision import get_video_frames_generator

    for images in zip(*map(get_video_frames_generator, task.urls), strict=False):
        for camera, found in enumerate(task.model(images)):
            task.seen(camera, images[camera], found)
        if task.stop.is_set():
            return


def roboflow(task: Task, **options: Any) -> None:
    """InferencePipeline.init_with_custom_logic, its sink notes the results.

    Its buffers drop the oldest frame, as its documentation advises for the newest ones. Its default drops
    all but every 17th frame while a camera seems to deliver less than it announces, as any does that
    has just been opened.
    """
    from streamvision.camera.buffer_strategies import BufferFillingStrategy
    from streamvision.stream.pipeline import InferencePipeline

    def predict(frames: list[Any]) -> list[Detections]:
        return task.model([frame.image for frame in frames])

    def note(predictions: Any, frames: Any) -> None:
        if not isinstance(frames, list):
            predictions, frames = [predictions], [frames]
        for found, frame in zip(predictions, frames, strict=True):
            if frame is not None:
                task.seen(frame.source_id, frame.image, found)

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=task.urls,
        on_video_frame=predict,
        on_prediction=note,
        source_buffer_filling_strategy=BufferFillingStrategy.DROP_OLDEST,
        **options,
    )
    pipeline.start(use_main_thread=False)
    task.stop.wait()
    pipeline.terminate()
    pipeline.process.join()


def roboflow_auto(task: Task) -> None:
    """The same with its newer way to collect batches."""
    roboflow(task, video_processing_mode="auto")


PEERS: dict[str, tuple[Callable[[Task], None], str]] = {  # and the package that it needs
    "blog": (blog, ""),
    "threads": (threads, ""),
    "loader": (loader, ""),
    "supervision": (supervision, "supervision"),
    "roboflow": (roboflow, "streamvision"),
    "roboflow-auto": (roboflow_auto, "streamvision"),
}


# -- the process -----------------------------------------------------------------------------------


LIBRARIES = {"torchscript": "torch", "onnx": "onnxruntime"}


def versions(package: str, engine: str) -> str:
    """What is installed of what matters here."""
    names = (package, "opencv-python", LIBRARIES[engine], "numpy")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names if name)


def main() -> None:
    """Load the model, carry out the orders."""
    name, bundle, engine = sys.argv[1:]
    run, package = PEERS[name]
    try:
        words = versions(package, engine)
    except metadata.PackageNotFoundError as error:
        answer(missing=error.name)
        return
    model = Model(bundle, engine)
    answer(versions=words)
    for line in sys.stdin:
        order = json.loads(line)
        task = Task(model, order["urls"], order["log"])
        thread = threading.Thread(target=run, args=(task,))
        thread.start()
        sys.stdin.readline()
        task.stop.set()
        thread.join()
        answer()


def answer(**words: Any) -> None:
    """A line for the driver."""
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    main()
