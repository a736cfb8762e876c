"""The hops that are timed carry every frame, whole and in order, to everyone who reads it."""

import pytest

from benchmarks import hops
from pipeline.supervision.supervisor import Options, Supervisor


@pytest.mark.parametrize("policy", ["newest", "every"])
def test_every_reader_gets_every_frame_of_an_order(tmp_path, monkeypatch, policy):
    monkeypatch.setitem(hops.SIZES, policy, dict.fromkeys(("fan", "one"), hops.SMALL))
    ends = {"fan": hops.MAX_READERS, "one": 1}
    lines = [
        hops.Hop(desk=hops.Desk(tmp_path / camera), pids=(), readers=readers)
        for camera, readers in ends.items()
    ]
    carried = []

    def order(supervisor):
        if supervisor.live and not carried:
            for hop in lines:
                hop.check(40)  # more than there are slots
            carried.extend(hop.readers for hop in lines)
            supervisor.stop()

    Supervisor(hops.plan(policy, tmp_path), Options(to_bgr=None), order).run()
    assert carried == list(ends.values())
