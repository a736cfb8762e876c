"""The same hop by other means: one memcpy, imagezmq, multiprocessing.Queue, shared_memory + Queue.

Each sender owns RING frames, more memory than the caches hold, and sends them in turn. With
shared_memory + Queue the frame is copied into the block, as people do it, and its place travels; "in
place" leaves the copy out, as if a decoder had written there: a queue of numbers and no account of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hops import FULL_HD, Desk, Hop, content

RING = 12  # frames of 6.2 MB: 75 MB a side
_NBYTES = FULL_HD[0] * FULL_HD[1] * 3
_SHAPE = (FULL_HD[1], FULL_HD[0], 3)
_QUEUED = 2  # frames under way, as with ours


class Peers:
    """All of them, started and idle, by name."""

    def __init__(self, folder: Path) -> None:
        self._spawn = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._memory = SharedMemory(create=True, size=RING * _NBYTES)
        address = f"ipc://{folder}/imagezmq"
        sizes = (_QUEUED, RING, RING, RING, RING)
        # kept: their semaphores live as long as these
        self._queues = queue, ready, free, *places = [self._spawn.Queue(n) for n in sizes]
        for place in range(RING):
            free.put(place)
            places[1].put(place)
        name = self._memory.name
        self.hops = {
            "memcpy": self._pair(folder / "memcpy", (copy,)),
            "queue": self._pair(folder / "queue", (send_queue, queue), (receive_queue, queue)),
            "shm": self._pair(
                folder / "shm",
                (send_place, name, ready, free, True),
                (receive_place, name, ready, free),
            ),
            "in place": self._pair(
                folder / "in-place",
                (send_place, name, *places, False),
                (receive_place, name, *places),
            ),
        }
        if has_imagezmq():
            self.hops["imagezmq"] = self._pair(
                folder / "imagezmq.desk", (send_imagezmq, address), (receive_imagezmq, address)
            )

    def _pair(self, path: Path, *sides: tuple[Any, ...]) -> Hop:
        desk = Desk(path)
        started: list[Any] = []
        for side, *arguments in sides:
            process = self._spawn.Process(target=side, args=(path, *arguments), daemon=True)
            process.start()
            started.append(process)
        self._processes += started
        return Hop(desk=desk, pids=[process.pid for process in started])

    def close(self) -> None:
        """End them all."""
        for process in self._processes:
            process.kill()
            process.join()
        self._memory.close()
        self._memory.unlink()


def has_imagezmq() -> bool:
    """Whether it is installed (extra `dev`)."""
    try:
        import imagezmq  # noqa: F401
    except ImportError:
        return False
    return True


def _ring() -> np.ndarray[Any, Any]:
    return np.stack([content(_NBYTES, place) for place in range(RING)])


def _send(path: Path, send: Callable[[np.ndarray[Any, Any]], object]) -> None:
    """Sign each frame of the order and send it, as (height, width, 3)."""
    desk, ring = Desk(path), _ring()
    for number in desk.frames():
        if number is not None:
            flat = ring[number % RING]
            desk.sign(flat, number)
            send(flat.reshape(_SHAPE))


def copy(path: Path) -> None:
    """Both sides in one: the time of a copy, and nothing else."""
    desk, ring = Desk(path), _ring()
    there = np.zeros_like(ring)
    for number in desk.frames():
        if number is not None:
            place = number % RING
            desk.sign(ring[place], number)
            np.copyto(there[place], ring[place])
            desk.receive(there[place])


def send_imagezmq(path: Path, address: str) -> None:
    """REQ/REP, the default of imagezmq."""
    import imagezmq

    sender = imagezmq.ImageSender(connect_to=address)
    _send(path, lambda frame: sender.send_image("camera", frame))


def receive_imagezmq(path: Path, address: str) -> None:
    """The hub."""
    import imagezmq

    desk, hub = Desk(path), imagezmq.ImageHub(open_port=address)
    while True:
        _, frame = hub.recv_image()
        desk.receive(frame.reshape(-1))
        hub.send_reply(b"OK")


def send_queue(path: Path, queue: Any) -> None:
    """The frame itself through a multiprocessing.Queue."""
    _send(path, queue.put)


def receive_queue(path: Path, queue: Any) -> None:
    """The other end."""
    desk = Desk(path)
    while True:
        desk.receive(queue.get().reshape(-1))


def send_place(path: Path, name: str, ready: Any, free: Any, copies: bool) -> None:
    """The frame lies in shared memory, its place goes through a queue, and comes back."""
    memory = SharedMemory(name)
    ring = np.ndarray((RING, _NBYTES), np.uint8, memory.buf)
    desk, frames = Desk(path), _ring()
    for number in desk.frames():
        if number is not None:
            place = free.get()
            if copies:
                desk.sign(frames[number % RING], number)
                ring[place] = frames[number % RING]
            else:
                desk.sign(ring[place], number)
            ready.put((place, _SHAPE))


def receive_place(path: Path, name: str, ready: Any, free: Any) -> None:
    """The other end."""
    memory = SharedMemory(name)
    ring = np.ndarray((RING, _NBYTES), np.uint8, memory.buf)
    desk = Desk(path)
    while True:
        place, _ = ready.get()
        desk.receive(ring[place])
        free.put(place)
