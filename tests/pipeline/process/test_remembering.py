"""A stage that is killed between counting and remembering counts nothing twice."""

from types import SimpleNamespace

from pipeline.accounts.layout import Layout
from pipeline.accounts.ledger import Ledger
from pipeline.accounts.states import FORGOTTEN, MAX_STATE_BYTES
from pipeline.process.memory import Memory

CAMERAS = ("gate", "yard")
SPEC = SimpleNamespace(name="scene", cameras=CAMERAS, remembers=True)


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


def ledger():
    counters = {"other": ("words",), "scene": ("words", FORGOTTEN)}
    return Ledger.local(Layout.of(CAMERAS, ("other", "scene"), counters, states=("scene",)))


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
    for word in "ab":
        stage.process("gate", word)
        memory.save("gate")
    stage.process("yard", "x")
    memory.save("yard")
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
    memory.save("gate")
    assert book.counted("scene", FORGOTTEN, "gate") == 1
    assert begun(book)[0].seen == {}
    book.states("scene").write(0, book.counters_of("scene", "gate").tobytes() + b"\xff")
    assert begun(book)[0].seen == {}
    assert book.counted("scene", FORGOTTEN, "gate") == 2


def test_who_remembers_nothing_is_not_asked():
    memory = Memory(None, SimpleNamespace(name="other", cameras=CAMERAS, remembers=False), ledger())
    for camera in CAMERAS:
        memory.restore(camera)
    memory.save("gate")
