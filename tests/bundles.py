"""Bundles made of the demo model's, with other facts."""

import json
import zipfile

from pipeline.plan.model_path import demo_model


def with_facts(path, change):
    """The demo model, and what `change` has made of the dict of its facts; returns the path."""
    with zipfile.ZipFile(demo_model()) as demo, zipfile.ZipFile(path, "w") as changed:
        for item in demo.infolist():
            data = demo.read(item)
            if item.filename.endswith("manyeyes.json"):
                facts = json.loads(data)
                change(facts)
                data = json.dumps(facts).encode()
            changed.writestr(item, data)
    return path


def spoilt(path):
    """One that does not find what its golden record says."""

    def spoil(facts):
        for found in facts["golden"]["picture"]:
            found["xyxy"] = [edge + 20.0 for edge in found["xyxy"]]

    return with_facts(path, spoil)


def with_classes(path, *classes):
    """One that has these names for person, car and bicycle."""

    def rename(facts):
        names = dict(zip(facts["classes"], classes, strict=True))
        facts["classes"] = list(classes)
        for found in (*facts["golden"]["pattern"], facts["golden"]["picture"]):
            for one in found:
                one["label"] = names[one["label"]]

    return with_facts(path, rename)
