"""MQTT: an alarm is a retained message, and whether we are there is one, too.

    <topic>/alarms/<alert>     the last alarm of each alert: JSON, QoS 1
    <topic>/pictures/<alert>   the JPEG that belongs to it, said before it; empty: it has none
    <topic>/status             online; offline as our last will

One message is under way at a time, so their order holds; it counts as delivered when the broker has said
PUBACK without an error. Home Assistant finds us by itself (`home_assistant.py`).
"""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from pipeline import credentials
from pipeline.errors import ConfigError
from pipeline.redaction import shown
from stages.sinks.alarms import home_assistant
from stages.sinks.alarms.pictures import Kind, Picture
from stages.sinks.alarms.rules import OF_OBJECTS, Rule
from stages.sinks.alarms.target import NotDelivered, Target

log = logging.getLogger("manyeyes")

KEYS = ("USER", "PASSWORD")
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_KEEPALIVE_S = 20  # a broker that is silent for half as long again is away
_RECONNECT_S = 1, 15
_MAX_BYTES = 268_435_455  # of a message, where the broker says nothing
_HEAD_BYTES = 32  # of one, beside its topic and what it says


@dataclass(frozen=True, kw_only=True)
class MqttConfig:
    """Which broker."""

    url: str  # mqtt:// or mqtts://, without user and password
    credentials: str | None = None  # NAME: NAME_USER and NAME_PASSWORD, or NAME_FILE
    ca_file: str | None = None  # mqtts: PEM of the authorities; None: those of the host
    topic: str = "manyeyes"  # what all of ours begin with; another one for each machine
    home_assistant: str = "homeassistant"  # its discovery prefix; "": it is told nothing
    picture: Kind = ""  # in a topic of its own
    timeout_s: float = 10.0  # for the answer of the broker


class Mqtt(Target):
    """One connection, which is kept and made again in the background."""

    Config = MqttConfig
    config: MqttConfig
    needs = "paho", "alarms"

    @classmethod
    def check(cls, config: MqttConfig) -> None:
        """Raises ConfigError for a URL, a topic, credentials or a file that can't be."""
        if _address(config.url) is None:
            raise ConfigError(
                "url must be mqtt://host or mqtts://host, with a port or none, without user and "
                f'password, got {shown(config.url)}; these go by credentials = "NAME"'
            )
        for key in ("topic", "home_assistant"):
            text = getattr(config, key)
            parts = text.split("/")
            if (
                set("+#$\0") & set(text)
                or (text and not all(parts))
                or not (text or key != "topic")
            ):
                raise ConfigError(f"{key} must be a topic without +, # and $, got {shown(text)!r}")
        if not 0 < config.timeout_s <= 60:
            raise ConfigError(f"timeout_s must be within 0..60, got {config.timeout_s:g}")
        if config.credentials is not None:
            credentials.read(config.credentials, *KEYS)
        credentials.check_ca_file(config.ca_file)

    @classmethod
    def secrets(cls, config: MqttConfig) -> tuple[str, ...]:
        """What its credentials are in."""
        name = config.credentials
        return () if name is None else credentials.variables(name, *KEYS)

    def open(self, rules: Sequence[Rule], wake: Callable[[], None]) -> None:
        """Begin to connect."""
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self._rules, self._wake = rules, wake
        self._shown = {  # alerts that have pictures
            rule.name for rule in rules if self.config.picture and set(rule.kinds) & set(OF_OBJECTS)
        }
        self._problem = "is not connected yet"
        self._sent_id, self._mid = "", 0  # of the message that is under way
        self._picture_mid = 0  # 0: it has none
        self._most_bytes = _MAX_BYTES  # that the broker takes in a message
        self._answers: dict[int, Any] = {}
        self._answered = threading.Condition()
        host, port, tls = _address(self.config.url) or ("", 0, False)
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if self.config.credentials is not None:
            client.username_pw_set(*credentials.read(self.config.credentials, *KEYS))
        if tls:
            client.tls_set_context(ssl.create_default_context(cafile=self.config.ca_file))
        client.will_set(self._status, "offline", qos=1, retain=True)
        client.reconnect_delay_set(*_RECONNECT_S)
        client.connect_timeout = self.config.timeout_s
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.connect_async(host, port, keepalive=_KEEPALIVE_S)
        client.loop_start()

    def deliver(self, message_id: str, document: str, picture: Picture | None) -> None:
        """One PUBLISH, whose answer is waited for, behind that of its picture. What is under way is not
        sent anew: the library does that when the broker is back."""
        where = shown(self.config.url)
        if message_id != self._sent_id:
            if not self._client.is_connected():
                raise NotDelivered(f"{where}: {self._problem}")
            self._answers.clear()  # of what nobody waited for
            alert = message_id.rpartition(":")[2]
            self._picture_mid = self._show(alert, picture)
            topic = f"{self.config.topic}/alarms/{alert}"
            self._mid = self._client.publish(topic, document, qos=1, retain=True).mid
            self._sent_id = message_id
        with self._answered:
            self._answered.wait_for(lambda: self._mid in self._answers, self.config.timeout_s)
            answer = self._answers.get(self._mid)
            of_picture = self._answers.get(self._picture_mid)
        if answer is None:
            raise NotDelivered(f"{where}: {self._problem or 'does not answer'}")
        self._sent_id = ""
        if answer.is_failure:
            raise NotDelivered(f"{where}: does not take the message: {answer}")
        if of_picture is not None and of_picture.is_failure:
            log.warning("target %r: %s: does not take pictures: %s", self.name, where, of_picture)

    def _show(self, alert: str, picture: Picture | None) -> int:
        """Say the picture of an alarm, or that it has none, where its alert has any; returns its number."""
        if alert not in self._shown:
            return 0
        topic = f"{self.config.topic}/pictures/{alert}"
        jpeg = b"" if picture is None else picture.jpeg
        if len(topic) + len(jpeg) + _HEAD_BYTES > self._most_bytes:
            jpeg = b""
        mid: int = self._client.publish(topic, jpeg, qos=1, retain=True).mid
        return mid

    def close(self) -> None:
        """Say goodbye; who can't be told learns it by our last will."""
        self._client.publish(self._status, "offline", qos=1, retain=True)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def _status(self) -> str:
        return f"{self.config.topic}/status"

    # -- called by the library, in its thread ------------------------------------------------------

    def _on_connect(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._problem = f"refuses us: {reason}"
            return
        self._problem = ""
        self._most_bytes = getattr(properties, "MaximumPacketSize", _MAX_BYTES)
        client.publish(self._status, "online", qos=1, retain=True)
        if self.config.home_assistant:
            self._introduce()
            client.subscribe(f"{self.config.home_assistant}/status", qos=1)
        self._wake()

    def _on_connect_fail(self, client: Any, _: Any) -> None:
        self._problem = f"can't be reached: {sys.exception()}"  # called while it is handled

    def _on_disconnect(self, client: Any, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._problem:
            self._problem = f"the connection is lost: {reason}"

    def _on_publish(self, client: Any, _: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._answered:
            self._answers[mid] = reason
            self._answered.notify()

    def _on_message(self, client: Any, _: Any, message: Any) -> None:
        if message.payload == b"online":  # Home Assistant was started, and may know nobody
            self._introduce()

    def _introduce(self) -> None:
        device = home_assistant.device(
            self.config.topic, self._rules, _version(), has_pictures=bool(self.config.picture)
        )
        topic = home_assistant.topic(self.config.home_assistant, self.config.topic)
        self._client.publish(topic, json.dumps(device), qos=1, retain=True)


def _address(url: str) -> tuple[str, int, bool] | None:
    """Host, port, whether with TLS; None: it is no such URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query:
        return None
    return parts.hostname, port, parts.scheme == "mqtts"


def _version() -> str:
    try:
        return version("manyeyes")
    except PackageNotFoundError:
        return "unknown"
