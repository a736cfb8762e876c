"""The parts of a run by stage, and the file that a start is waiting for."""

from benchmarks.startup import by_stage, has_detection


def test_the_processes_of_a_stage_are_one_row_the_largest_first():
    parts = [{"capture.a": 1.0, "capture.b": 2.0, "supervisor": 5.0}, {"capture.a": 1.0}]
    assert list(by_stage(parts).items()) == [("supervisor", 5.0), ("capture", 4.0)]
    assert by_stage([]) == {}


def test_a_detection_counts_when_its_line_is_whole(tmp_path):
    events = tmp_path / "events.jsonl"
    assert not has_detection(events)
    events.write_text("")
    assert not has_detection(events)
    events.write_text('{"detections": []}\n{"detections": [{"label"')
    assert not has_detection(events)
    events.write_text('{"detections": []}\n{"detections": [{"label": "car"}]}\n')
    assert has_detection(events)
