"""What a run takes is told and, where it is not to be had, refused before anything starts."""

import patterns
import pytest

from pipeline.errors import ResourceError
from pipeline.supervision import needs
from pipeline.supervision.needs import Needs


def test_all_processes_count_and_not_shared_memory_alone(tmp_path, monkeypatch):
    plan = patterns.plan(tmp_path, cameras=2)
    wanted = Needs.of(plan)
    assert wanted.processes == 1 + len(plan.processes)
    assert wanted.own_bytes > sum(spec.memory_bytes for spec in plan.processes)
    monkeypatch.setattr(needs, "available_bytes", lambda: wanted.pool_bytes + wanted.own_bytes)
    wanted.check()
    monkeypatch.setattr(needs, "available_bytes", lambda: 2 * wanted.pool_bytes)
    with pytest.raises(ResourceError, match=r"wanted \d+ MiB .10 processes"):
        wanted.check()


@pytest.mark.parametrize(("cameras", "fits"), [(2, True), (400, False)])
def test_open_files_are_counted_for_the_process_that_has_most(tmp_path, monkeypatch, cameras, fits):
    wanted = Needs.of(patterns.plan(tmp_path, cameras=cameras))
    monkeypatch.setattr(needs, "available_bytes", lambda: 1 << 50)
    monkeypatch.setattr(needs.resource, "getrlimit", lambda _: (1024, 1024))
    if fits:
        wanted.check()
    else:
        with pytest.raises(ResourceError, match=rf"open files: wanted {wanted.files}"):
            wanted.check()


@pytest.mark.parametrize(("left", "fits"), [(None, True), (10_000, True), (30, False)])
def test_a_limit_of_processes_is_kept(tmp_path, monkeypatch, left, fits):
    wanted = Needs.of(patterns.plan(tmp_path, cameras=2))
    monkeypatch.setattr(needs, "available_bytes", lambda: 1 << 50)
    monkeypatch.setattr(needs, "threads_left", lambda: left)
    if fits:
        wanted.check()
    else:
        with pytest.raises(ResourceError, match=rf"wanted {wanted.threads} .*, got 30 more"):
            wanted.check()
