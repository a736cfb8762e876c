"""What several producers of one inbox are to each other; what each may rely on is in test_channels."""

import pytest

from pipeline.hop import transport
from pipeline.hop.transport import Inbox, Outbox
from pipeline.messages import MAX_MESSAGE_BYTES


@pytest.fixture
def link(tmp_path):
    """An inbox, and a maker of outboxes to it; all closed at the end."""
    context = transport.context()
    endpoint = f"ipc://{tmp_path}/inbox"
    inbox = Inbox(context, endpoint)
    made = []

    def outbox(name):
        made.append(Outbox(context, endpoint, name))
        return made[-1]

    yield inbox, outbox
    for channel in (inbox, *made):
        channel.close()
    context.term()


def wait_for(channel, n=1):
    messages = []
    while len(messages) < n:
        assert channel.socket.poll(5000), f"only {len(messages)} of {n} messages came"
        messages += channel.receive()
    return messages


def test_messages_come_with_the_name_of_their_sender_and_answers_find_back(link):
    inbox, outbox = link
    gate, yard = outbox(b"gate.0"), outbox(b"yard.0")
    gate.send(b"7")
    assert wait_for(inbox) == [(b"gate.0", b"7")]
    yard.send(b"hello")
    assert wait_for(inbox) == [(b"yard.0", b"hello")]
    assert inbox.answer(b"gate.0", b"done")
    assert wait_for(gate) == [b"done"]
    assert yard.receive() == []


def test_an_answer_to_a_stranger_is_refused_and_not_kept(link):
    inbox, _ = link
    assert not inbox.answer(b"nobody", b"done")


def test_a_message_over_the_limit_never_arrives_and_costs_only_its_sender(link):
    inbox, outbox = link
    hostile, honest = outbox(b"hostile"), outbox(b"honest")
    hostile.send(b"x" * (MAX_MESSAGE_BYTES + 1))
    honest.send(b"fine")
    assert wait_for(inbox) == [(b"honest", b"fine")]
