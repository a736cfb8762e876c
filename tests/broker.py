"""A real MQTT broker, mosquitto, which can go away and come back, and somebody who listens to it."""

import getpass
import json
import shutil
import socket
import subprocess
import time
from contextlib import suppress

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from patience import BOUND_S

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

needs_broker = pytest.mark.skipif(
    MOSQUITTO is None,
    reason="NOT TESTED: there is no mosquitto here (apt-get install mosquitto)",
)


class Broker:
    """`lines`: of its configuration, beside its port. What it keeps outlives a restart."""

    def __init__(self, folder, *lines):
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._file, self._process = folder / "mosquitto.conf", None
        lines = lines or ("allow_anonymous true",)
        user = (
            getpass.getuser()
        )  # as root it would become another one, who may read nothing of ours
        text = [f"user {user}", f"listener {self.port} 127.0.0.1", "persistence true",
                f"persistence_location {folder}/", "max_queued_messages 0", *lines]  # fmt: skip
        self._file.write_text("\n".join(text) + "\n")
        self._log = folder / "log"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._file], stdout=log, stderr=log)
        end_s = time.monotonic() + BOUND_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end_s, self._log.read_text()
            time.sleep(0.01)

    def stop(self):
        """It keeps what it has."""
        self._process.terminate()
        self._process.wait(BOUND_S)


class Listener:
    """Hears all, also what is said while it is away."""

    def __init__(self, port, topic="#", name="listener"):
        self.heard = []  # (topic, payload, retained), in order
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5)
        self.ready = False
        self._client.on_connect = lambda *_: self._client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        end_s = time.monotonic() + BOUND_S
        while not self.ready:
            assert time.monotonic() < end_s
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic, payload):
        self._client.publish(topic, payload, qos=1)

    def ids(self):
        """Of alarms, in the order in which they came first."""
        alarms = (json.loads(payload) for topic, payload, _ in self.heard if "/alarms/" in topic)
        return list(dict.fromkeys(alarm["id"] for alarm in alarms))

    def last(self, topic):
        """What was said there last, or None."""
        return next((payload for t, payload, _ in reversed(self.heard) if t == topic), None)

    def _on_message(self, client, userdata, message):
        self.heard.append((message.topic, message.payload.decode(), message.retain))
