"""Who is told of whom, and in which order: pools to their readers, senders to consumers, and back.

A process may send when its consumers know its name, and every reader knows its memory. So a producer is
told of a consumer last: what a process that is busy was not told yet it could not take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from pipeline.hop.control import MAX_FDS
from pipeline.plan.graph import Plan
from pipeline.supervision.child import Child, Pool
from pipeline.supervision.settling import Settling


class Run(Protocol):
    """Who there is at the moment; the supervisor."""

    @property
    def plan(self) -> Plan:
        """What runs."""

    @property
    def children(self) -> Mapping[str, Child]:
        """Its processes by name."""


class Introductions:
    """Of the processes of one run."""

    def __init__(self, run: Run, endpoint: Callable[[Child], str]) -> None:
        """endpoint: where this incarnation of a process has its inbox."""
        self._run, self._endpoint = run, endpoint
        self._unconnected: dict[tuple[str, str], None] = {}  # producer and consumer, in order
        self._passed_on: Settling[tuple[str, int]] = Settling()  # writer and epoch of a dead pool
        self._old_pools: dict[str, list[int]] = {}  # of dead incarnations, not yet forgotten
        self._grown: dict[tuple[str, int], Pool] = {}  # pools that their writers were not told of

    @property
    def pending(self) -> bool:
        """A producer waits to be told of a consumer, or of memory."""
        return bool(self._unconnected or self._grown)

    def ready_ones(self, names: Iterable[str]) -> list[Child]:
        """Those of these processes that can be told something."""
        children = map(self._run.children.get, names)
        return [child for child in children if child is not None and child.state == "ready"]

    def introduce(self, child: Child) -> None:
        """It is ready: all that have to do with it and are ready hear of it, and it of them."""
        # readers had until now to finish what they held of the dead incarnation
        self._forget(child, self._old_pools.pop(child.name, ()))
        self._attach(child, child.spec.reads)
        for reader in self._readers(child):
            self._attach(reader, (child.name,))
        for producer in self.ready_ones(self._run.plan.producers(child.name)):
            self._accept(producer, child)
        for consumer in self.ready_ones(edge.consumer for edge in child.spec.outputs):
            self._accept(child, consumer)
        self.connect()

    def acquaint(self, producer: Child, consumers: Iterable[str]) -> None:
        """It will send to these, too, from now on; who is not ready hears of it when it is."""
        if producer.state != "ready":
            return
        for consumer in self.ready_ones(consumers):
            if producer.name in consumer.spec.reads:
                self._attach(consumer, (producer.name,))
            self._accept(producer, consumer)
        self.connect()

    def connect(self) -> None:
        """Let producers send to consumers, once these know them and every reader knows their pools."""
        for (name, epoch), pool in list(self._grown.items()):
            (writer,) = self.ready_ones([name]) or (None,)
            if writer is not None and pool in writer.pools:
                if any(child.behind for child in self._readers(writer)):
                    continue
                writer.send("grow", [pool.fd], pool=pool.facts)
            del self._grown[name, epoch]
        for pair in list(self._unconnected):
            ready = self.ready_ones(pair)
            if len(ready) == len(pair) and not _is_late(*ready):
                producer, consumer = ready
                if any(child.behind for child in (consumer, *self._readers(producer))):
                    continue
                producer.send(
                    "connect",
                    consumer=consumer.name,
                    endpoint=self._endpoint(consumer),
                    code=consumer.code,
                )
            del self._unconnected[
                pair
            ]  # or one of them died or is going: both hear when it is back

    def grown(self, writer: Child, pool: Pool) -> None:
        """It has got more memory: all who read it hear of that, and then the writer."""
        for reader in self._readers(writer):
            reader.send("pools", [pool.fd], pools=[pool.facts])
        self._grown[writer.name, pool.epoch] = pool
        self.connect()

    def passes_on_nothing(self, name: str, pool: tuple[str, int] | None = None) -> None:
        """This process has no slot of a dead writer's pool to pass on any more; None: it died."""
        said = self._passed_on.died(name) if pool is None else self._passed_on.said(name, pool)
        self._tell_forgotten(said)

    def ended(self, child: Child) -> None:
        """It ended for good: nobody needs its pool any more once what is there is read."""
        old = self._old_pools.pop(child.name, [])
        self._forget(child, (*old, *(pool.epoch for pool in child.pools)))

    def died(self, child: Child) -> None:
        """It will be replaced: readers may finish what they hold until its successor is ready."""
        epochs = (pool.epoch for pool in child.pools)
        self._old_pools.setdefault(child.name, []).extend(epochs)

    def _readers(self, writer: Child) -> list[Child]:
        return self.ready_ones(self._run.plan.readers(writer.name))

    def _attach(self, reader: Child, writers: Iterable[str]) -> None:
        pools = [pool for child in self.ready_ones(writers) for pool in child.pools]
        for some in (pools[i : i + MAX_FDS] for i in range(0, len(pools), MAX_FDS)):
            fds, facts = [pool.fd for pool in some], [pool.facts for pool in some]
            reader.send("pools", fds, pools=facts)

    def _accept(self, producer: Child, consumer: Child) -> None:
        consumer.send("accept", sender=producer.identity)
        self._unconnected[producer.name, consumer.name] = None

    def _forget(self, writer: Child, pool_epochs: Iterable[int]) -> None:
        """Its readers let go of these pools once nobody passes on slots of them any more."""
        readers = self._run.plan.readers(writer.name)
        consumers = (edge.consumer for edge in writer.spec.outputs)
        between = self.ready_ones(name for name in consumers if name not in readers)
        pools = [(writer.name, epoch) for epoch in pool_epochs]
        if not between:
            return self._tell_forgotten(pools)
        for pool in pools:
            self._passed_on.begin(pool, [child.name for child in between])
            for child in between:
                child.send("forget", pool=pool)
        return None

    def _tell_forgotten(self, pools: Iterable[tuple[str, int]]) -> None:
        for pool in pools:
            for reader in self.ready_ones(self._run.plan.readers(pool[0])):
                reader.send("forget", pool=pool)


def _is_late(producer: Child, consumer: Child) -> bool:
    """Whether a consumer is to end, and its successor shall have what this producer has to account for:
    others were told to send it nothing more, and it may have ended before anything arrives."""
    edges = (edge for edge in producer.spec.outputs if edge.consumer == consumer.name)
    return consumer.is_closing and any(edge.paths for edge in edges)
