"""Two models in one run, each with its cameras."""

import json

import pytest
import tiny_models

from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor

CAMERA = """
[[camera]]
name = "{name}"
source = "synthetic://?seed=1&size=320x240&rate=50&frames=30"
{model}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A model that finds one thing of class `van` in every picture, 32 px wide."""
    from stages.detector.importing import import_model

    folder = tmp_path_factory.mktemp("models")
    script = tiny_models.save(tiny_models.Candidates(), folder / "vans.torchscript")
    import_model(
        script, str(folder / "vans.bundle"), layout="candidates", classes="car,van", size="32x32",
        color="rgb", scale=1.0, mean=None, std=None, pad=114, align="center",
        interpolation="linear", resize="letterbox",
    )  # fmt: skip
    return folder / "vans.bundle"


def toml(folder, bundle, *cameras):
    text = '[run]\npolicy = "every"\n[[sink]]\ntype = "events"\npath = "events.jsonl"\n'
    for name, own in cameras:
        text += CAMERA.format(name=name, model=f'model = "{bundle}"' if own else "")
    path = folder / "street.toml"
    path.write_text(text)
    return path


def test_every_camera_has_its_own_model_and_the_labels_are_those_of_the_run(tmp_path, bundle):
    plan = make(configuration.load(toml(tmp_path, bundle, ("a", False), ("b", True), ("c", False))))
    assert plan.detectors == {"a": "postprocess", "b": "postprocess.vans", "c": "postprocess"}
    supervisor = Supervisor(plan, Options())
    supervisor.run()
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    labels = {camera: set() for camera in "abc"}
    for row in rows:
        labels[row["camera"]] |= {(d["label"], d["class_id"]) for d in row["detections"]}
    assert labels["b"] == {("van", 3)}  # behind the three of the demo model
    assert labels["a"] | labels["c"] <= {("person", 0), ("car", 1), ("bicycle", 2)}
    assert labels["a"]
    for camera in "abc":
        totals = supervisor.totals[camera, "detect"]
        assert (totals.captured, totals.delivered, totals.error) == (30, 30, 0)
        assert [r["frame_id"] for r in rows if r["camera"] == camera] == list(range(30))


def test_a_model_that_nobody_looks_with_is_not_started(tmp_path, bundle):
    plan = make(configuration.load(toml(tmp_path, bundle, ("a", True))))
    models = [p.config["model"] for p in plan.processes if p.role == "batch"]
    assert set(models) == {str(bundle)}


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"camera 'b': model: there is no file .*nope.bundle"):
        configuration.load(toml(tmp_path, "nope.bundle", ("a", False), ("b", True)))


def test_a_model_that_is_none_names_the_camera(tmp_path):
    (tmp_path / "odd.bundle").write_text("no archive")
    config = configuration.load(toml(tmp_path, "odd.bundle", ("a", False), ("b", True)))
    with pytest.raises(ConfigError, match="camera 'b': "):
        make(config)
