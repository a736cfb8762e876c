"""What Home Assistant is told of us over MQTT, so that alarms are there without a word of configuration.

Device discovery, https://www.home-assistant.io/integrations/mqtt: one retained message a machine, in which
each alert is an `event` entity, its picture an `image`, and whether we are there a `binary_sensor`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stages.sinks.alarms.rules import OF_OBJECTS, Rule

# An event has a type, and everything else are its attributes.
_EVENT = (
    "{{ dict(value_json.happening, event_type=value_json.happening.kind, text=value_json.text)"
    " | to_json }}"
)


def topic(prefix: str, base: str) -> str:
    """Where the message goes. prefix: Home Assistant's; base: what our own topics begin with."""
    return f"{prefix}/device/{_node(base)}/config"


def device(
    base: str, rules: Sequence[Rule], version: str, *, has_pictures: bool = False
) -> dict[str, Any]:
    """The message. base: as for `topic`."""
    node = _node(base)
    status = f"{base}/status"
    events = {
        rule.name: {
            "platform": "event",
            "unique_id": f"{node}_{rule.name}",
            "name": rule.name,
            "state_topic": f"{base}/alarms/{rule.name}",
            "event_types": list(rule.kinds),
            "value_template": _EVENT,
            "availability_topic": status,
            "qos": 1,
        }
        for rule in rules
    }
    # names that no alert can have
    images = {
        f".picture.{rule.name}": {
            "platform": "image",
            "unique_id": f"{node}.picture.{rule.name}",
            "name": f"{rule.name} picture",
            "image_topic": f"{base}/pictures/{rule.name}",
            "content_type": "image/jpeg",
            "availability_topic": status,
            "qos": 1,
        }
        for rule in rules
        if has_pictures and set(rule.kinds) & set(OF_OBJECTS)
    }
    return {
        "device": {
            "identifiers": [node],
            "name": base,
            "manufacturer": "manyeyes",
            "sw_version": version,
        },
        "origin": {"name": "manyeyes", "sw_version": version},
        "components": {
            **events,
            **images,
            ".status": {
                "platform": "binary_sensor",
                "unique_id": f"{node}.status",
                "name": "status",
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "state_topic": status,
                "payload_on": "online",
                "payload_off": "offline",
            },
        },
    }


def _node(base: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", base)
