"""The slot protocol: no slot is both free and leased, each generation is freed exactly once, and a
reader that compares generations never takes the pixels of another frame for its own."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from pipeline.hop.slots import Slots

SLOTS = 4


class SlotProtocol(RuleBasedStateMachine):
    """A writer and three readers; readers may forget (die), come late, or release twice."""

    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.generations = np.zeros(SLOTS, np.uint64)
        self.memory = [0] * SLOTS  # what a slot holds: the number of the frame
        self.slots = Slots(self.generations)
        self.writing = []
        self.held = {}  # (slot, generation) -> holders
        self.freed = []
        self.frame = 0

    @rule()
    def take(self):
        slot = self.slots.take()
        if slot is None:
            assert len(self.writing) + len({s for s, _ in self.held}) == SLOTS
            return
        assert slot not in self.writing
        assert slot not in {s for s, _ in self.held}
        assert self.generations[slot] % 2 == 1
        self.frame += 1
        self.memory[slot] = self.frame
        self.writing.append(slot)

    @rule(target=leases, holders=st.sets(st.sampled_from("abc"), min_size=1))
    def ready(self, holders):
        if not self.writing:
            return multiple()
        slot = self.writing.pop()
        generation = self.slots.ready(slot, set(holders))
        assert generation % 2 == 0
        self.held[slot, generation] = set(holders)
        frame = self.memory[slot]
        return multiple(*((slot, generation, holder, frame) for holder in sorted(holders)))

    @rule(target=leases, lease=consumes(leases), heir=st.sampled_from("def"))
    def share(self, lease, heir):
        slot, generation, _holder, frame = lease
        if heir in self.held[slot, generation]:
            return multiple(lease)
        assert self.slots.share(slot, generation, heir)
        assert not self.slots.share(slot, generation - 2, heir)
        self.held[slot, generation].add(heir)
        return multiple(lease, (slot, generation, heir, frame))

    @rule()
    def cancel(self):
        if self.writing:
            self.slots.cancel(self.writing.pop())

    @rule(lease=consumes(leases))
    def release(self, lease):
        slot, generation, holder, frame = lease
        if int(self.generations[slot]) == generation:  # what every reader checks, before and after
            assert self.memory[slot] == frame, "torn: the generation did not tell"
        assert self.slots.release(slot, generation, holder)
        self.held[slot, generation].discard(holder)
        if not self.held[slot, generation]:
            del self.held[slot, generation]
            assert (slot, generation) not in self.freed
            self.freed.append((slot, generation))

    @rule(lease=leases, stranger=st.sampled_from("xyz"))
    def release_of_what_is_not_held(self, lease, stranger):
        slot, generation, _, _ = lease
        free = self.slots.free
        assert not self.slots.release(slot, generation, stranger)
        assert not self.slots.release(slot, generation - 2, "a")
        assert self.slots.free == free

    @invariant()
    def all_slots_are_accounted_for(self):
        assert self.slots.free + len(self.writing) + self.slots.leased == SLOTS
        assert self.slots.leased == len(self.held)


TestSlotProtocol = SlotProtocol.TestCase
TestSlotProtocol.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_late_reader_sees_that_its_slot_holds_another_frame():
    generations = [0]
    slots = Slots(generations)
    generation = slots.ready(slots.take(), {"reader"})
    slots.release(0, generation, "reader")  # the supervisor said that the reader died
    slots.take()
    assert generations[0] != generation


def test_ready_without_a_holder_would_leak_the_slot():
    slots = Slots([0])
    with pytest.raises(ValueError, match="at least one holder"):
        slots.ready(slots.take(), set())
