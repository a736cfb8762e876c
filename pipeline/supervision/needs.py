"""What a run takes of its host, told before anything is started, and refused if it is not to be had.

The memory of a process beside its pools is what its class says (`memory_bytes`), measured as its own
pages: an estimate within about a tenth, since libraries are shared and models differ.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

from pipeline.errors import ResourceError
from pipeline.host.machine import threads_left
from pipeline.host.memory import available_bytes
from pipeline.plan.graph import Plan
from pipeline.supervision.originals import nbytes

_SUPERVISOR_BYTES = 40 << 20
_FILES_OF_ALL = 24  # standard streams, ledger, sockets of ZeroMQ's own, log, metrics
_THREADS_OF_SUPERVISOR = 4  # with janitor, log and metrics
_THREADS_OF_A_CHILD = 4  # its own, two of ZeroMQ, and that of a camera's reader or of a library
_FILES_OF_A_CHILD = 3  # in the supervisor: control channel, pidfd, pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Of one run."""

    processes: int
    pool_bytes: int  # shared memory: of pixels, and of models
    own_bytes: int  # of all processes, pools left out
    files: int  # open ones, of the process that has most
    threads: int  # of all processes; limits of processes count them

    @classmethod
    def of(cls, plan: Plan) -> Needs:
        """Reads the plan and nothing else."""
        files = _FILES_OF_A_CHILD * len(plan.processes)
        for spec in plan.processes:
            peers = len(plan.producers(spec.name)) + len(spec.outputs)
            files = max(files, 1 + len(spec.reads) + peers)
        return cls(
            processes=1 + len(plan.processes),
            pool_bytes=plan.pool_bytes + nbytes(plan.files),
            own_bytes=_SUPERVISOR_BYTES + sum(spec.memory_bytes for spec in plan.processes),
            files=_FILES_OF_ALL + files,
            threads=_THREADS_OF_SUPERVISOR + _THREADS_OF_A_CHILD * len(plan.processes),
        )

    @classmethod
    def between(cls, old: Plan, new: Plan) -> Needs:
        """What `new` takes beyond what `old`, which runs, has taken already."""
        before, after = cls.of(old), cls.of(new)
        return cls(
            processes=max(0, after.processes - before.processes),
            pool_bytes=max(0, after.pool_bytes - before.pool_bytes),
            own_bytes=max(0, after.own_bytes - before.own_bytes),
            files=after.files,
            threads=max(0, after.threads - before.threads),
        )

    def check(self) -> None:
        """Raise ResourceError for what the host or the container has not.

        Asked before the first pool is made: in a container the kernel kills instead of refusing.
        """
        wanted, available = self.pool_bytes + self.own_bytes, available_bytes()
        if wanted > available:
            raise ResourceError(
                f"memory: wanted {wanted / 2**20:.0f} MiB ({self}), got {available / 2**20:.0f} MiB "
                "available; use fewer cameras, a smaller max_size, fewer workers, or a machine "
                "(container limit) with more memory"
            )
        left = threads_left()
        if left is not None and self.threads > left:
            raise ResourceError(
                f"processes and threads: wanted {self.threads} ({self}), got {left} more that the limit "
                "allows; raise it (ulimit -u, or the container's pids limit), or use fewer cameras"
            )
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY and self.files > limit:
            raise ResourceError(
                f"open files: wanted {self.files} in one process ({self}), got a limit of {limit}; "
                f"raise it with `ulimit -n {self.files}` or LimitNOFILE, or use fewer cameras"
            )

    def __str__(self) -> str:
        return (
            f"{self.processes} processes, {self.pool_bytes / 2**20:.0f} MiB of shared memory "
            f"and about {self.own_bytes / 2**20:.0f} MiB of their own"
        )
