"""Cameras join and leave: their accounts open, close and go on, and their rows are used again."""

import pytest

from pipeline.accounts.books import Accounts
from pipeline.accounts.layout import DETECT, Layout
from pipeline.accounts.ledger import holder_code
from pipeline.errors import ResourceError

CODE = holder_code(0, 0)


@pytest.fixture
def books():
    accounts = Accounts(
        Layout.of(("gate",), ("post",), {"post": ("hits",)}, has_view=False, spare=1)
    )
    yield accounts
    accounts.close()


def count(books):
    books._due = 0.0
    books.count_if_due(1e6, {})


def frames(books, camera, n, *, delivered=True):
    row = books.layout.cameras[camera]
    ids = [books.ledger.capture(row, CODE) for _ in range(n)]
    for frame_id in ids if delivered else ():
        books.ledger.deliver(row, DETECT, frame_id)
    return ids


def test_a_row_is_used_again_when_its_frames_are_settled_and_not_before(books):
    row = books.join("yard", is_viewed=False)
    (late,) = frames(books, "yard", 1, delivered=False)
    books.leave("yard")
    count(books)
    assert books.has_account("yard")
    with pytest.raises(
        ResourceError, match=r"'door': this run has room for 2 cameras.*max_cameras"
    ):
        books.join("door", is_viewed=False)
    books.ledger.deliver(row, DETECT, late)
    count(books)
    assert not books.has_account("yard")
    assert books.join("door", is_viewed=False) == row
    assert frames(books, "door", 2) == [0, 1]


def test_who_comes_back_goes_on_where_it_was(books):
    books.join("yard", is_viewed=False)
    assert frames(books, "yard", 3) == [0, 1, 2]
    books.ledger.count("post", "hits", "yard", 5)
    books.leave("yard")
    count(books)
    assert books.totals["yard", "detect"].captured == 3  # its sums stay

    row = books.join("yard", is_viewed=False)
    assert int(books.ledger["began_at"][row]) == 3
    assert frames(books, "yard", 2) == [3, 4]
    assert books.ledger.oldest_unsettled(row, DETECT, 4) == 4
    count(books)
    totals = books.totals["yard", "detect"]
    assert (totals.captured, totals.delivered, totals.in_flight, totals.error) == (5, 5, 0, 0)
    # what a stage has counted for it begins anew; of all cameras together it goes on
    assert books.ledger.counted("post", "hits", "yard") == 0
    assert books.ledger.counted_in_all("post", "hits") == 5


def test_rows_of_processes_go_to_the_next_one_and_begin_at_nothing(books):
    books.admit("capture.yard", ("scaled",))
    index = books.ledger.process_index["capture.yard"]
    books.join("yard", is_viewed=False)
    books.ledger.count("capture.yard", "scaled", "yard", 7)
    books.ledger.add("processed", (index, 0), 4)
    spare = books.layout.room[1] - len(books.layout.processes)
    for n in range(spare):
        books.admit(f"capture.{n}", ())
    with pytest.raises(ResourceError, match=r"'capture.door': this run has no room"):
        books.admit("capture.door", ())
    books.dismiss("capture.yard")
    books.admit("capture.door", ("copied",))
    assert books.ledger.process_index["capture.door"] == index
    assert books.ledger.counted("capture.door", "copied", "yard") == 0
    assert int(books.ledger["processed"][index].sum()) == 0
    books.dismiss("capture.door")
    with pytest.raises(ResourceError, match="9999 counters"):
        books.admit("capture.window", tuple(map(str, range(9999))))


def test_a_process_that_counts_other_things_keeps_the_rows_of_those_that_it_had(books):
    books.ledger.count("post", "hits", "gate", 5)
    books.change("post", ("new", "hits"), ("seconds",))
    counted = [books.ledger.counted("post", name, "gate") for name in ("new", "hits")]
    assert counted == [0, 5]
    books.ledger.count("post", "new", "gate", 7)
    books.ledger.measure("post", "seconds", 0.1)
    gone = books.layout.counters["post"]["new"]
    books.change("post", ("hits",), ())
    for n in range(books.layout.room[2]):  # a row that comes round is empty
        books.change("post", ("hits", str(n)), ("seconds",))
        assert books.ledger.counted("post", str(n), "gate") == 0
        if books.layout.counters["post"][str(n)] == gone:
            break
        books.ledger.count("post", str(n), "gate")
    assert books.layout.counters["post"][str(n)] == gone
    with pytest.raises(ResourceError, match=r"'post': this run has no room for \d+ more counters"):
        books.change("post", tuple(map(str, range(9999))), ())
    assert books.ledger.counted("post", "hits", "gate") == 5


WAY = 2  # of a sink


def offered(books, frame_id, fate=None):
    books.ledger.offer(0, WAY, frame_id, CODE)
    if fate == "taken":
        books.ledger.deliver(0, WAY, frame_id)
    elif fate is not None:
        books.ledger.drop(0, WAY, frame_id, fate)
    books.ledger.deliver(0, DETECT, frame_id)


def test_a_sink_has_an_account_from_the_first_frame_on_that_it_is_offered(books):
    frames(books, "gate", 3)
    late, *new = frames(books, "gate", 3, delivered=False)  # on the way when it comes
    books.admit("sink.a", sink=(WAY, DETECT))
    for frame_id in (late, *new[:1]):
        offered(books, frame_id, "taken")
    offered(books, new[1])
    count(books)
    account = books.sink_totals["gate", "sink.a"]
    assert (account.captured, account.delivered, account.in_flight) == (3, 2, 1)
    path = books.totals["gate", "detect"]
    assert (path.captured, path.delivered, path.in_flight, path.error) == (6, 5, 1, 0)
    assert books.waits_for("sink.a")


def test_what_a_sink_made_of_frames_stays_so_when_another_one_has_its_way(books):
    books.admit("sink.a", sink=(WAY, DETECT))
    lost, taken, waits = frames(books, "gate", 3, delivered=False)
    offered(books, taken, "taken")
    offered(books, lost, "error")
    assert not books.waits_for("sink.a")
    with pytest.raises(
        ResourceError, match=r"'sink.b': this run has room for 4 sinks, and none is"
    ):
        books.admit("sink.b", sink=(WAY, DETECT))
    books.dismiss("sink.a")
    books.admit("sink.b", sink=(WAY, DETECT))
    offered(books, waits, "taken")
    count(books)
    path = books.totals["gate", "detect"]
    assert (path.delivered, path.dropped["sink"], path.in_flight, path.error) == (2, 1, 0, 0)
    accounts = books.sink_totals["gate", "sink.a"], books.sink_totals["gate", "sink.b"]
    assert [(a.captured, a.delivered, a.lost) for a in accounts] == [(2, 1, 1), (1, 1, 0)]
    assert len(books.layout.sinks) == 1
    # and nobody is told of a sink that never had a frame
    books.dismiss("sink.b")
    books.admit("sink.c", sink=(WAY, DETECT))
    books.dismiss("sink.c")
    count(books)
    assert "sink.c" not in books.of_sinks()
    assert books.totals["gate", "detect"].dropped["sink"] == 1


def test_who_remembers_gets_an_empty_memory(books):
    books.admit("track", remembers=True)
    books.ledger.states("track").write(0, b"of another")
    books.dismiss("track")
    books.admit("other", histograms=("a",))
    books.admit("scene", remembers=True)
    assert books.ledger.states("scene").read(0) is None
    assert books.layout.histograms["other"].keys() == {"a"}
