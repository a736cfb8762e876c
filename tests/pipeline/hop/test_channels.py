"""Every channel of the code keeps what channels promise: `tests/channels.py` says what that is."""

from functools import partial

import channels
import pytest
from hops import Hop

from pipeline.hop import control, transport

CHANNELS = {
    "control, to the child": partial(channels.ControlPair, downward=True),
    "control, to the supervisor": partial(channels.ControlPair, downward=False),
    "ZeroMQ, messages": channels.MessagePair,
    "ZeroMQ, answers": channels.AnswerPair,
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_a_channel_keeps_its_promises(kind, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(control, "_MAX_WAITING", channels.LIMIT)
    monkeypatch.setattr(transport, "_HIGH_WATER", channels.LIMIT)
    folder = tmp_path_factory.mktemp("c")  # short: a socket's path has an end
    channels.check_channel(partial(CHANNELS[kind], folder))


@pytest.mark.parametrize("role", ["sink", "batch"])
@pytest.mark.parametrize("policy", ["newest", "every"])
def test_a_hop_keeps_its_promises(policy, role, tmp_path_factory):
    hops = []

    def make(**options):
        folder = tmp_path_factory.mktemp("h") / "hop"
        hops.append(Hop(folder, slots=8, cameras=("gate", "yard"), role=role, **options))
        return hops[-1]

    try:
        channels.check_hop(make, every=policy == "every")
    finally:
        for hop in hops:
            hop.close()
