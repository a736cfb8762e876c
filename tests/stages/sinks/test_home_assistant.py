"""What Home Assistant is told of us, against a strict schema written from its documentation.

https://www.home-assistant.io/integrations/mqtt, event.mqtt, image.mqtt and binary_sensor.mqtt

Its own schemas are asked, too, where a Python that has them is named; the package brings a hundred others:

    MANYEYES_HOME_ASSISTANT=ha/bin/python python -m pytest tests/stages/sinks/test_home_assistant.py
"""

import json
import os
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Literal

import pytest
from alarming import happening
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import happenings
from stages.sinks.alarms import home_assistant, rules
from stages.sinks.alarms.rules import Rule

Topic = Annotated[str, Field(pattern="^[^+#]+$", max_length=65535)]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Device(Strict):
    identifiers: Annotated[list[Text], Field(min_length=1)]
    name: Text | None = None
    manufacturer: Text | None = None
    model: Text | None = None
    sw_version: Text | None = None


class Origin(Strict):
    name: Text
    sw_version: Text | None = None
    support_url: Text | None = None


class Entity(Strict):
    unique_id: Text
    name: Text | None = None
    state_topic: Topic
    availability_topic: Topic | None = None
    value_template: Text | None = None
    entity_category: Literal["config", "diagnostic"] | None = None
    qos: Literal[0, 1, 2] = 0


class Event(Entity):
    platform: Literal["event"]
    event_types: Annotated[list[Text], Field(min_length=1)]


class BinarySensor(Entity):
    platform: Literal["binary_sensor"]
    device_class: Literal["connectivity", "motion", "occupancy", "problem"] | None = None
    payload_on: Text = "ON"
    payload_off: Text = "OFF"


class Image(Strict):
    platform: Literal["image"]
    unique_id: Text
    name: Text | None = None
    image_topic: Topic
    content_type: Text = "image/jpeg"
    availability_topic: Topic | None = None
    qos: Literal[0, 1, 2] = 0


class Discovery(Strict):
    device: Device
    origin: Origin
    components: dict[str, Annotated[Event | BinarySensor | Image, Field(discriminator="platform")]]


RULES = [
    Rule(name="visitor", kinds=("entered", "loitering"), to=("home",)),
    Rule(name="full", kinds=("crowded",), to=("home",)),
]


def message(base="home/manyeyes", **options):
    return json.loads(json.dumps(home_assistant.device(base, RULES, "0.1.0", **options)))


def test_who_has_pictures_has_one_of_each_alert_about_objects():
    found = Discovery.model_validate(message(has_pictures=True))
    assert set(found.components) == {"visitor", "full", ".status", ".picture.visitor"}
    picture = found.components[".picture.visitor"]
    assert picture.image_topic == "home/manyeyes/pictures/visitor"
    ids = [entity.unique_id for entity in found.components.values()]
    assert len(set(ids)) == 4


def test_its_schema_takes_the_message():
    found = Discovery.model_validate(message())
    assert set(found.components) == {"visitor", "full", ".status"}
    ids = [entity.unique_id for entity in found.components.values()]
    assert len(set(ids)) == 3
    assert found.components["visitor"].event_types == ["entered", "loitering"]
    assert found.components["full"].state_topic == "home/manyeyes/alarms/full"
    assert home_assistant.topic("homeassistant", "home/manyeyes") == (
        "homeassistant/device/home_manyeyes/config"
    )


# what is wrong → what it says
SPOILED = (
    (lambda m: m.pop("origin"), "origin"),
    (lambda m: m["device"].update(identifiers=[]), "identifiers"),
    (lambda m: m["components"]["visitor"].pop("platform"), "platform"),
    (lambda m: m["components"]["visitor"].update(platform="alarm_bell"), "platform"),
    (lambda m: m["components"]["full"].pop("event_types"), "event_types"),
    (lambda m: m["components"]["full"].update(state_topic="home/#/full"), "state_topic"),
    (lambda m: m["components"]["full"].pop("unique_id"), "unique_id"),
)


@pytest.mark.parametrize(("spoil", "words"), SPOILED)
def test_it_takes_no_spoiled_one(spoil, words):
    spoiled = deepcopy(message())
    spoil(spoiled)
    with pytest.raises(ValidationError, match=words):
        Discovery.model_validate(spoiled)


@pytest.mark.parametrize(
    "one",
    [happening(), happening("loitering", seconds=31.0), happening("crowded", -1, "", total=4)],
)
def test_what_it_makes_of_an_alarm_is_an_event_that_it_knows(one):
    document = happenings.to_json(one, 0, camera="gate", frame_id=3, time="2026-11-22T10:00:00Z")
    rule = RULES[one.kind == "crowded"]
    component = message()["components"][rule.name]
    environment = ImmutableSandboxedEnvironment()
    environment.filters["to_json"] = json.dumps
    alarm = json.loads(json.dumps(rules.to_json(rule, document)))
    text = environment.from_string(component["value_template"]).render(value_json=alarm)
    event = json.loads(text)
    assert event.pop("event_type") in component["event_types"]
    assert event["text"].startswith("gate: ")
    assert event["camera"] == "gate"


@pytest.mark.skipif(
    "MANYEYES_HOME_ASSISTANT" not in os.environ,
    reason="Home Assistant is not here: MANYEYES_HOME_ASSISTANT names a Python that has it",
)
def test_its_own_schemas_take_our_messages_and_no_spoiled_one():
    spoiled = [deepcopy(message()) for _ in SPOILED]
    for one, (spoil, _) in zip(spoiled, SPOILED, strict=True):
        spoil(one)
    asked = subprocess.run(
        [os.environ["MANYEYES_HOME_ASSISTANT"], Path(__file__).parents[2] / "home_assistant.py"],
        input=json.dumps([message(), message(has_pictures=True), *spoiled]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    taken, with_pictures, *complaints = json.loads(asked.stdout)
    assert (taken, with_pictures) == (None, None)
    assert None not in complaints
