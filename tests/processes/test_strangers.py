"""Another process of the same user, which may open every socket of a run."""

import time

import patterns

from pipeline.hop import transport
from pipeline.hop.transport import Outbox
from pipeline.supervision.supervisor import Options, Supervisor

CONSUMERS = ("preprocess", "render")


class Squatter:
    """Takes the names that a camera's next lives would have by counting, then ends the first life."""

    def __init__(self, folder):
        self.folder = folder
        self.context = transport.context()
        self.outboxes = []
        self.captured = None  # when the camera's process was killed
        self.bound = time.monotonic() + 30

    def __call__(self, supervisor):
        if not supervisor.live or supervisor.stopping:
            return
        assert time.monotonic() < self.bound, f"c0 is served no more: {supervisor.totals}"
        capture = supervisor.children["capture.c0"]
        if not self.outboxes and supervisor.totals["c0", "detect"].delivered:
            self.squat(supervisor)
        elif self.captured is None and self.outboxes and self.is_heard(supervisor.ledger):
            capture.signal(9)
            self.captured = int(supervisor.ledger["captured"][0])
        elif self.captured is not None and capture.incarnation:
            rows = patterns.rows(self.folder, "results")
            if any(row[0] == "c0" and row[1] > self.captured for row in rows):
                supervisor.stop()

    def squat(self, supervisor):
        for consumer in CONSUMERS:
            child = supervisor.children[consumer]
            endpoint = supervisor._directory.endpoint(child.index, child.incarnation)
            for n in range(3):
                outbox = Outbox(self.context, endpoint, f"capture.c0.{n}".encode())
                outbox.send(b"let me in")
                self.outboxes.append(outbox)

    def is_heard(self, ledger):
        return all(ledger["garbage"][ledger.process_index[name]] >= 3 for name in CONSUMERS)

    def close(self):
        for outbox in self.outboxes:
            outbox.close()
        self.context.term()


def test_nobody_can_take_the_name_of_a_producer_that_is_to_come(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)
    squatter = Squatter(tmp_path)
    try:
        plan = patterns.plan(tmp_path, cameras=2)
        supervisor = Supervisor(plan, Options(to_bgr=None), squatter)
        supervisor.run()
    finally:
        squatter.close()
    assert supervisor.children["capture.c0"].incarnation == 1
    patterns.assert_accounts_are_in_files(tmp_path, supervisor)
