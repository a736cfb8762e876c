"""Cameras that see the same place: an object there is one incident."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walks import result

from pipeline.errors import ConfigError
from pipeline.happenings import Happening
from pipeline.messages import FrameInfo, Result
from pipeline.plan import config as configuration
from pipeline.runtime import LocalRuntime
from stages.imaging.scenes import Scene as Rendered
from stages.imaging.shapes import CLASSES
from stages.scene.stage import Scene, SceneConfig
from stages.sinks.store import query
from stages.sinks.store.overlaps import Overlaps
from stages.sinks.store.stage import Store, StoreConfig

SECOND = 1_000_000_000
PLACE = ((("gate", "corner"), ("yard", "step")),)
ZONE = {"gate": "corner", "yard": "step"}
T0 = 1_763_805_600 * SECOND


def links(*acts, places=PLACE):
    """acts: (second, camera, kind, object, class)."""
    overlaps = Overlaps(places)
    return [
        link
        for t_s, camera, kind, track, label in acts
        for link in overlaps.see(kind, camera, ZONE[camera], track, label, int(t_s * SECOND))
    ]


def test_who_is_in_both_views_at_once_is_one():
    both = links(
        (0, "gate", "entered", 1, "person"), (0.4, "yard", "entered", 9, "person"),
        (5, "gate", "left", 1, "person"), (5, "yard", "left", 9, "person"),
    )  # fmt: skip
    assert both == [(("yard", 9), ("gate", 1))]


@pytest.mark.parametrize(
    "acts",
    [
        [(0, "gate", "entered", 1, "person"), (0, "yard", "entered", 9, "car")],  # a class
        [(0, "gate", "entered", 1, "person"), (0, "gate", "entered", 2, "person")],  # one camera
        [
            (0, "gate", "entered", 1, "person"), (1, "gate", "left", 1, "person"),
            (9, "yard", "entered", 9, "person"),
        ],
    ],
)  # fmt: skip
def test_of_another_class_camera_or_time_is_somebody_else(acts):
    assert links(*acts) == []


def test_each_is_taken_for_one_alone():
    two = links(
        (0, "gate", "entered", 1, "person"), (3, "gate", "entered", 2, "person"),
        (0.2, "yard", "entered", 8, "person"), (3.1, "yard", "entered", 9, "person"),
        (3.3, "yard", "entered", 10, "person"),
    )  # fmt: skip
    assert two == [(("yard", 8), ("gate", 1)), (("yard", 9), ("gate", 2))]


@given(st.lists(st.tuples(
    st.floats(0, 30), st.sampled_from(["gate", "yard"]), st.sampled_from(["entered", "left"]),
    st.integers(0, 5), st.sampled_from(["person", "car"]),
), max_size=40))  # fmt: skip
def test_nobody_is_two_of_one_camera(acts):
    found = links(*sorted(acts))
    assert len({who for who, _ in found}) == len(found)
    for who, first in found:
        assert who[0] != first[0]


def stored(path, results, overlaps=PLACE):
    store = Store(StoreConfig(path=str(path), overlaps=overlaps))
    store.runtime = LocalRuntime(("gate", "yard"))
    store.setup()
    for one in results:
        store.process(one)
    store.close()


def told(t_s, camera, *kinds, track, label="person", score=0.5):
    happened = tuple(
        Happening(kind, "5f3a", track, label, score, (1.0, 2.0, 3.0, 4.0),
                  place=ZONE[camera] if kind in ("entered", "left") else "")
        for kind in kinds
    )  # fmt: skip
    one = result(int(t_s * 10), {})
    info = one.info._replace(camera=camera, t_wall_ns=T0 + int(t_s * SECOND))
    return replace(one, info=info, happenings=happened)


def test_an_object_that_two_cameras_see_is_one_incident_also_across_a_restart(tmp_path):
    path = tmp_path / "s.db"
    stored(path, [told(0, "gate", "appeared", "entered", track=1)])
    stored(path, [told(1, "yard", "appeared", "entered", track=9, score=0.9)])  # a new process
    stored(
        path, [told(4, "gate", "left", "gone", track=1), told(8, "yard", "left", "gone", track=9)]
    )
    [one] = query.incidents(str(path))
    assert (one["camera"], one["object"], one["also"]) == (
        "gate",
        1,
        [{"camera": "yard", "object": 9}],
    )
    assert one["places"] == ["corner", "step"]
    assert one["score"] == 0.9
    assert one["kinds"] == ["appeared", "entered", "left", "gone"]
    for wanted in ({"camera": "yard"}, {"place": "step"}, {"kind": "left"}, {"camera": "gate"}):
        assert [row["object"] for row in query.incidents(str(path), **wanted)] == [1]
    assert not list(query.incidents(str(path), camera="street"))
    stored(path, [told(20, "gate", "appeared", track=5)], overlaps=())
    assert [row["object"] for row in query.incidents(str(path))] == [5, 1]


def test_two_views_of_a_rendered_scene_have_as_many_incidents_as_objects(tmp_path):
    """The same scene, seen twice as large by one of them; identities and the truth are the renderer's."""
    whole = [[0.02, 0], [0.98, 0], [0.98, 1], [0.02, 1]]
    sizes = {"gate": (320, 180), "yard": (640, 360)}
    zones = tuple({"name": ZONE[c], "camera": c, "polygon": whole} for c in sizes)
    stage = Scene(SceneConfig(classes=CLASSES, zones=zones))
    stage.runtime = LocalRuntime(tuple(sizes))
    views = {camera: Rendered(3, size) for camera, size in sizes.items()}
    results = []
    for n in range(200):  # 20 s
        for camera, view in views.items():
            truth = view.render(n / 10)[1]
            ids = truth.track_ids + (1000 if camera == "yard" else 0)
            info = FrameInfo(camera, n, n * SECOND // 10, T0 + n * SECOND // 10, *sizes[camera])
            found = replace(truth, track_ids=ids)
            results.append(stage.process(Result(info=info, detections=found)))
    stored(tmp_path / "s.db", results)
    stored(tmp_path / "apart.db", results, overlaps=())
    apart, one = (
        list(query.incidents(str(tmp_path / name), limit=999)) for name in ("apart.db", "s.db")
    )
    of_each = Counter(row["camera"] for row in apart)
    assert min(of_each.values()) >= 12  # a scene takes one for another now and then
    assert len(one) - max(of_each.values()) in (0, 1)
    begun = min(row["start"] for row in one)  # of those who are all there at once nobody can tell
    wrong = [
        row
        for row in one
        for other in row["also"]
        if row["start"] > begun and row["object"] % 1000 != other["object"] % 1000
    ]
    assert len(wrong) <= 1


CONFIG = """
[model]
engine = "stub"
[[camera]]
name = "gate"
source = "synthetic://?seed=1"
[[camera]]
name = "yard"
source = "synthetic://?seed=1"
[[zone]]
name = "corner"
camera = "gate"
polygon = [[0, 0], [1, 0], [1, 1]]
[[zone]]
name = "step"
camera = "yard"
polygon = [[0, 0], [1, 0], [1, 1]]
[[zone]]
name = "lawn"
camera = "yard"
polygon = [[0, 0], [1, 0], [1, 1]]
[[overlap]]
name = "crossing"
zones = ["gate/corner", "yard/step"]
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"yard/step"', '"yard/stepp"', "no zone 'yard/stepp' .* did you mean 'yard/step'"),
        ('"gate/corner"', '"yard/lawn"', "camera 'yard' is named twice"),
        (', "yard/step"', "", "two or more"),
        ('"gate/corner", "yard/step"', '"gate/corner", "gate/corner"', "is named twice"),
    ],
)
def test_an_overlap_that_cant_be_is_one_sentence(tmp_path, old, new, words):
    path = tmp_path / "street.toml"
    path.write_text(CONFIG)
    assert configuration.load(path).overlap[0].zones == ("gate/corner", "yard/step")
    path.write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        configuration.load(path)
