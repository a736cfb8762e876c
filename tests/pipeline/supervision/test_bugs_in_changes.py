"""A bug in a change of the plan ends no run."""

from types import SimpleNamespace

import patterns
import pytest

from pipeline.supervision.apply import Changes


def test_a_turn_that_fails_is_logged_and_tried_again_a_moment_later(tmp_path, caplog):
    crew = SimpleNamespace(plan=patterns.plan(tmp_path))  # and nobody is in it
    changes = Changes(SimpleNamespace(crew=crew, stopping=False, accounts=None))
    with pytest.raises(AttributeError):
        changes.apply(patterns.plan(tmp_path, cameras=1))
    assert changes.target is crew.plan
    changes._settled = False
    for now_s in (0.0, 0.9, 1.1):
        changes.step(now_s)
    said = [record.message for record in caplog.records if "trying again" in record.message]
    assert len(said) == 2
    assert "the change failed by an error of the program, see its log: AttributeError" in said[0]
