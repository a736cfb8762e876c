"""The host: its cores, a container's share of them, and how its libraries should use them."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
from collections.abc import Mapping, Set
from pathlib import Path

from pipeline.credentials import by_their_looks
from pipeline.host import cgroup

CHILD_ENVIRONMENT = {
    # One thread a process: pools of threads of several processes on the same cores slow each other down.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    # What OpenCV reads when it is imported, so that it is too late for whoever imports it. A PNG of 140 kB
    # can ask for 144 million pixels; the largest telephones make 50 million.
    "OPENCV_IO_MAX_IMAGE_PIXELS": os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26)),
    "OPENCV_LOG_LEVEL": os.environ.get("OPENCV_LOG_LEVEL", "ERROR"),
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",  # s, for a picture of a webcam; 10 without it
    # glibc gives memory of this size back at once, and every frame would fault its pages in again
    # (53 times in preprocess, 75 in inference, 2 % of all CPU time); mallopt(3)
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
"""For every process of a run: how its libraries use the host. Others may be set beside them."""


def child_environment(own: Mapping[str, str], without: Set[str] = frozenset()) -> dict[str, str]:
    """The environment of a process that is started from this one: `own` over what there is here.

    without: names of variables that it does not get, beside those that look like a secret of anybody.
    """
    without = without | by_their_looks(os.environ)
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    if "PYTHONPATH" in inherited:  # an empty part of it is the current folder, before all libraries
        folders = inherited["PYTHONPATH"].split(os.pathsep)
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    return {**inherited, **own}


_MOST_FILES = 1 << 16  # some libraries go through all that could be open


def open_as_many_files_as_allowed() -> None:
    """Raise the limit of this process and of those that it starts; a camera takes a few of 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def visible_cores() -> int:
    """Cores that this process may be scheduled on."""
    return len(os.sched_getaffinity(0))


def quota_cores() -> float | None:
    """Cores' worth of time that the container may use (cgroup v2, v1); None: no limit."""
    quotas = []
    for folder in cgroup.groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota_us, period_us = (
                int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
            )
            if quota_us > 0:
                quotas.append(quota_us / period_us)
    return min(quotas, default=None)


def threads_left() -> int | None:
    """How many more threads, which count as processes, may be started; None: as many as one likes.

    By the limit of the container (pids) and that of the user, which does not hold for root.
    """
    limits = [left for _, left in cgroup.left("pids", ("pids.max", "pids.current"))]
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit != resource.RLIM_INFINITY and os.getuid() != 0:
        limits.append(max(0, limit - _threads_of(os.getuid())))
    return min(limits, default=None)


def _threads_of(uid: int) -> int:
    n = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if process.stat().st_uid == uid:
                n += len(os.listdir(process / "task"))
    return n


def cores() -> float:
    """Cores' worth of time that there is: those visible, or less in a container."""
    return min(float(visible_cores()), quota_cores() or float("inf"))


def core_wants(pid: int) -> tuple[tuple[bool, float], tuple[bool, float]]:
    """Of a process' main thread, and of all of its threads: whether one wants a core, and the CPU time.

    Now, and so far in seconds. (False, 0.0) twice where there is no such process.
    """
    main, every = (False, 0.0), (False, 0.0)
    with contextlib.suppress(OSError, ValueError, IndexError):
        main, every = _scheduled(f"{pid}/task/{pid}"), _scheduled(str(pid))
        others = Path(f"/proc/{pid}/task").iterdir()  # its own state is that of its main thread
        every = any(_scheduled(f"{pid}/task/{one.name}")[0] for one in others), every[1]
    return main, every


def _scheduled(task: str) -> tuple[bool, float]:
    # proc(5): behind the name in brackets come the state, and as 12th and 13th the times
    fields = Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_bfloat16() -> bool:
    """Whether the cores compute in it; elsewhere it is slower than float32."""
    return any(name in Path("/proc/cpuinfo").read_text() for name in ("avx512_bf16", "amx_bf16"))


def cpu_name() -> str:
    """Of the model, as the kernel calls it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_gpu() -> bool:
    """Whether there is one of NVIDIA's, as far as its driver's device files tell."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
