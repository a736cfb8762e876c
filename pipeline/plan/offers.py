"""Which frames are for which sinks: who ends a path offers each frame on the ways of the sinks behind it.

Who comes between it and a sink has to know a way before a frame is offered on it, and for as long as one
may come that was. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.plan.graph import EdgeSpec, Plan, ProcessSpec, place_of_sink


def with_ways(spec: ProcessSpec, known: ProcessSpec) -> ProcessSpec:
    """`spec` with the ways of another state of the same process, on the edges that it has there."""
    ways = {edge.consumer: edge.paths for edge in known.outputs}
    outputs = tuple(replace(e, paths=ways.get(e.consumer, e.paths)) for e in spec.outputs)
    return replace(spec, paths=known.paths, outputs=outputs)


def like(running: Plan, new: ProcessSpec) -> ProcessSpec:
    """A process that is new, and offers what the others offer to whom they feed, too."""
    if not new.delivers:
        return new
    ways = {
        edge.consumer: edge.paths
        for spec in running.processes
        if spec.delivers
        for edge in spec.outputs
    }
    outputs = tuple(replace(e, paths=ways.get(e.consumer, e.paths)) for e in new.outputs)
    return replace(new, outputs=outputs)


def offering(running: Plan, target: Plan, *, is_ahead: bool = False) -> Plan:
    """`running` when frames are offered to the sinks of `target`, and to no other.

    is_ahead: only on edges on which nothing travels yet.
    """
    wanted = target.by_name

    def known(spec: ProcessSpec) -> ProcessSpec:
        edges = wanted[spec.name].outputs
        idle = {edge.consumer for edge in spec.outputs if not edge.cameras}
        return replace(spec, outputs=tuple(e for e in edges if not is_ahead or e.consumer in idle))

    processes = (
        with_ways(spec, known(spec)) if spec.delivers and spec.name in wanted else spec
        for spec in running.processes
    )
    return replace(running, processes=tuple(processes))


def lingering(running: Plan, target: Plan) -> dict[str, int]:
    """Sinks that go, but not before those that feed them have passed on what was offered to them: with
    their ways. One that is fed by who ends the path needs nothing of that."""
    found = {}
    for spec in running.processes:
        place = place_of_sink(spec)
        if place is None or spec.name in target.by_name or not spec.cameras:
            continue
        feeders = (running.by_name[name] for name in running.producers(spec.name))
        if any(not f.delivers and f.name in target.by_name and _edge(f, spec) for f in feeders):
            found[spec.name] = place[0]
    return found


def is_offered(running: Plan, way: int) -> bool:
    """Whether frames are for the sink of this way."""
    return any(
        way in edge.paths and bool(edge.cameras)
        for spec in running.processes
        if spec.delivers
        for edge in spec.outputs
    )


def with_sinks(target: Plan, running: Plan, names: set[str]) -> Plan:
    """`target`, and these sinks as they run, at all cameras of who feeds them there: who is told to offer
    frames to a sink offers it those of every camera, also of one that goes over only now. What they get
    from who ends the path itself, as before something came in between, they get no more."""
    if not names:
        return target
    processes = []
    at: dict[str, set[str]] = {name: set() for name in names}
    for spec in target.processes:
        now = running.by_name.get(spec.name)
        edges = () if now is None or now.delivers else now.outputs
        more = [replace(e, cameras=spec.cameras) for e in edges if e.consumer in names]
        for edge in more:
            at[edge.consumer].update(edge.cameras)
        processes.append(replace(spec, outputs=(*spec.outputs, *more)))
    for name in names:
        cameras = tuple(camera for camera in target.cameras if camera in at[name])
        processes.append(replace(running.by_name[name], cameras=cameras))
    return replace(target, processes=tuple(processes))


def _edge(producer: ProcessSpec, sink: ProcessSpec) -> EdgeSpec | None:
    """With what the sink has to account for."""
    return next((e for e in producer.outputs if e.consumer == sink.name and e.paths), None)
