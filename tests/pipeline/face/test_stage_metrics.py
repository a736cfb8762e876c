"""What stages count, as metrics, while models take over from each other and cameras come and go."""

from pipeline.accounts.books import Accounts
from pipeline.accounts.layout import DETECT, Layout
from pipeline.face import stage_metrics
from pipeline.plan.graph import Plan, ProcessSpec

CAMERAS = ("gate", "yard")
COUNTERS = ("detections:car", "entered:door", "missed")


def spec(name, *cameras):
    return ProcessSpec(
        name=name,
        role="stage",
        run="",
        config={},
        cameras=cameras,
        paths=(DETECT,),
        counters=COUNTERS,
    )


def plan(*processes):
    return Plan(cameras=CAMERAS, policy="newest", processes=processes)


def accounts():
    return Accounts(Layout.of(CAMERAS, ("old",), {"old": COUNTERS}, spare=3))


def shown(plan, book):
    """(metric, labels) → value; none is there twice."""
    found = [
        (sample.name, tuple(sample.labels.values()), sample.value)
        for family in stage_metrics.counted(plan, book, lambda n, *key: n)
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
    assert len({row[:2] for row in found}) == len(found)
    return {row[:2]: row[2] for row in found}


def cars(plan, book):
    found = shown(plan, book).items()
    return {labels[0]: n for (name, labels), n in found if name == "manyeyes_detections_total"}


def leaves(book, camera):
    book.leave(camera)
    book.count_if_due(float("inf"), {})
    assert not book.has_account(camera)


def test_detections_are_the_sum_of_all_models_that_a_camera_had():
    book = accounts()
    old = spec("old", *CAMERAS)
    book.ledger.count("old", "detections:car", "gate", 5)
    assert cars(plan(old), book) == {"gate": 5, "yard": 0}
    book.admit("new", COUNTERS)
    book.ledger.count("new", "detections:car", "gate", 2)
    assert cars(plan(old, spec("new", "gate")), book)["gate"] == 7  # while it goes over
    assert cars(plan(spec("old"), spec("new", *CAMERAS)), book)["gate"] == 7  # the old one is kept
    book.dismiss("old")
    after = plan(spec("new", *CAMERAS))
    assert cars(after, book) == {"gate": 7, "yard": 0}
    book.admit("old", COUNTERS)  # rolled back
    book.ledger.count("old", "detections:car", "gate", 1)
    assert cars(plan(old), book)["gate"] == 8


def test_a_camera_that_left_keeps_what_was_counted_and_goes_on_from_there():
    book = accounts()
    for name in COUNTERS:
        book.ledger.count("old", name, "gate", 3)
    leaves(book, "gate")
    assert cars(plan(spec("old", "yard")), book) == {"gate": 3, "yard": 0}
    book.join("gate", is_viewed=False)
    for name in COUNTERS:
        book.ledger.count("old", name, "gate", 1)
    after = shown(plan(spec("old", *CAMERAS)), book)
    assert after["manyeyes_detections_total", ("gate", "car")] == 4
    assert after["manyeyes_stage_events_total", ("old", "gate", "missed")] == 4
    assert after["manyeyes_zone_entered_total", ("gate", "door")] == 1  # who is inside now


def test_settings_that_end_a_counter_take_nothing_of_it():
    book = accounts()
    book.ledger.count("old", "detections:car", "gate", 3)
    book.change("old", ("detections:van",), ())
    after = shown(plan(spec("old", *CAMERAS)), book)
    assert after["manyeyes_detections_total", ("gate", "car")] == 3
    assert after["manyeyes_detections_total", ("gate", "van")] == 0
