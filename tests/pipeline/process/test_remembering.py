"""A stage that is killed between counting and remembering counts nothing twice, and says the same again."""

from types import SimpleNamespace

from pipeline.accounts.layout import Layout
from pipeline.accounts.ledger import Ledger
from pipeline.accounts.states import FORGOTTEN, MAX_STATE_BYTES
from pipeline.process.memory import Memory

CAMERAS = ("gate", "yard")
COUNTERS = {"other": ("words",), "scene": ("words", FORGOTTEN)}
SPEC = SimpleNamespace(name="scene", cameras=CAMERAS, remembers=True, counters=COUNTERS["scene"])


class Counting:
    """Its state is what it has seen."""

    def __init__(self, ledger):
        self.ledger, self.seen = ledger, {}

    def process(self, camera, word):
        self.seen[camera] = self.seen.get(camera, "") + word
        self.ledger.count("scene", "words", camera)

    def save(self, camera):
        return self.seen[camera].encode()

    def restore(self, camera, state):
        self.seen[camera] = state.decode()


def nowhere(frame_id):
    """No answer has arrived."""
    return False


def ledger():
    return Ledger.local(Layout.of(CAMERAS, ("other", "scene"), COUNTERS, states=("scene",)))


def begun(book):
    stage = Counting(book)
    memory = Memory(stage, SPEC, book)
    for camera in CAMERAS:
        memory.restore(camera)
    return stage, memory


def test_what_was_counted_and_not_saved_is_counted_anew():
    book = ledger()
    book.count("other", "words", "gate", 7)
    stage, memory = begun(book)
    for n, word in enumerate("ab"):
        stage.process("gate", word)
        memory.save("gate", n, None, nowhere)
    stage.process("yard", "x")
    memory.save("yard", 0, None, nowhere)
    stage.process("gate", "c")  # and is killed
    assert book.counted("scene", "words", "gate") == 3
    stage, memory = begun(book)
    assert stage.seen == {"gate": "ab", "yard": "x"}
    assert book.counted("scene", "words", "gate") == 2
    stage.process("gate", "c")
    assert [book.counted("scene", "words", c) for c in CAMERAS] == [3, 1]
    assert book.counted("other", "words", "gate") == 7


def test_what_is_too_large_or_of_another_version_is_forgotten_and_counted():
    book = ledger()
    stage, memory = begun(book)
    stage.process("gate", "x" * MAX_STATE_BYTES)
    memory.save("gate", 0, None, nowhere)
    assert book.counted("scene", FORGOTTEN, "gate") == 1
    assert begun(book)[0].seen == {}
    stage.save = lambda camera: b"\xff"
    memory.save("gate", 1, None, nowhere)
    assert begun(book)[0].seen == {}
    assert book.counted("scene", FORGOTTEN, "gate") == 2


def test_who_remembers_nothing_is_not_asked():
    memory = Memory(
        None, SimpleNamespace(name="other", cameras=CAMERAS, remembers=False, counters=()), ledger()
    )
    for camera in CAMERAS:
        memory.restore(camera)
    memory.save("gate", 0, b"", nowhere)


def test_all_that_has_not_arrived_is_given_again_by_the_next_one():
    """Frames 0 to 5, of which 0 to 2 had arrived when the process was killed; so was the one after it."""
    book = ledger()
    stage, memory = begun(book)
    for n in range(6):
        assert not memory.has_seen("gate", n)
        stage.process("gate", str(n))
        memory.save("gate", n, b"answer %d" % n, lambda k: k < 3)
    for _ in range(2):
        stage, memory = begun(book)
        assert [memory.has_seen("gate", n) for n in range(7)] == 6 * [True] + [False]
        assert [memory.answer("gate", n) for n in range(3, 6)] == [
            b"answer %d" % n for n in range(3, 6)
        ]
        assert memory.answer("gate", 0) is None
        assert not memory.has_seen("yard", 0)
    memory.save("gate", 6, b"answer 6", lambda k: True)
    assert [memory.answer("gate", n) for n in (5, 6)] == [None, b"answer 6"]


def test_answers_that_there_is_no_room_for_are_lost_the_oldest_first():
    book = ledger()
    stage, memory = begun(book)
    for n in range(3):
        stage.process("gate", str(n))
        memory.save("gate", n, bytes(MAX_STATE_BYTES // 2 - 100), nowhere)
        assert not memory.is_lost("gate", n)
    stage, memory = begun(book)
    assert stage.seen == {"gate": "012"}
    assert [memory.is_lost("gate", n) for n in range(4)] == [True, False, False, False]
    assert book.counted("scene", FORGOTTEN, "gate") == 0


def test_a_camera_that_leaves_begins_anew():
    book = ledger()
    stage, memory = begun(book)
    stage.process("gate", "a")
    memory.save("gate", 7, b"answer", nowhere)
    memory.leave("gate")
    assert not memory.has_seen("gate", 0)
    assert memory.answer("gate", 7) is None
