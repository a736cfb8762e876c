"""Asks Home Assistant about discovery messages: a JSON list comes in, one of complaints goes out.

    PYTHON tests/home_assistant.py < messages.json

PYTHON: one that has the package homeassistant, which is too large for our own environment. A complaint is
null if the message is taken. As Home Assistant does it: the schema of the device first, then that of each
component's platform, which gets device and origin with it. Keys that it would ignore are complained about.
"""

import importlib
import json
import sys

import voluptuous
from homeassistant.components.mqtt.schemas import DEVICE_DISCOVERY_SCHEMA


def complaint(message):
    """None if Home Assistant takes it, else what it says."""
    try:
        common = DEVICE_DISCOVERY_SCHEMA(message)
        for name, component in message["components"].items():
            platform = importlib.import_module(
                f"homeassistant.components.mqtt.{component['platform']}"
            )
            given = {**component, "device": common["device"], "origin": common["origin"]}
            taken = platform.DISCOVERY_SCHEMA(given)
            if ignored := given.keys() - {str(key) for key in taken} - {"platform"}:
                return f"{name}: ignored keys {sorted(ignored)}"
    except voluptuous.Invalid as error:
        return f"{error}"
    return None


if __name__ == "__main__":
    print(json.dumps([complaint(message) for message in json.load(sys.stdin)]))
