"""Webhook: an alarm is a POST of JSON, signed as https://www.standardwebhooks.com says.

    webhook-id: 5f3a9c1e-gate-120-0:night      the same whenever the alarm comes
    webhook-timestamp: 1763805600              of this attempt
    webhook-signature: v1,…                    HMAC-SHA256 of "id.timestamp.body", base64

A picture is a member of that JSON, in base64 or as a link, so that it is signed, too.
Any answer of 2xx means that the alarm has arrived; every other one, that it has to come again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline import credentials
from pipeline.errors import ConfigError
from pipeline.redaction import shown
from stages.sinks.alarms.age import wall_s
from stages.sinks.alarms.pictures import Kind, Picture
from stages.sinks.alarms.rules import Rule
from stages.sinks.alarms.target import NotDelivered, Target

KEY = "SECRET"  # the variable is NAME_SECRET
_PREFIX = "whsec_"
_MIN_KEY_BYTES = 24  # as the standard wants it
_MAX_ANSWER_BYTES = 1 << 16
_TOO_LARGE = 413


@dataclass(frozen=True, kw_only=True)
class WebhookConfig:
    """Who is asked to take alarms."""

    url: str  # http:// or https://, without user and password
    credentials: str | None = None  # NAME: NAME_SECRET or NAME_FILE signs; None: nothing is signed
    ca_file: str | None = None  # PEM of the authorities; None: those of the host
    picture: Kind = ""  # in the body, in base64
    picture_url: str | None = None  # where the store's pictures are served: a link instead
    timeout_s: float = 10.0  # for each step of an attempt


class Webhook(Target):
    """One connection, which is kept. Redirects are not followed: an alarm goes where the user says."""

    Config = WebhookConfig
    config: WebhookConfig
    needs = "httpx2", "alarms"

    @classmethod
    def check(cls, config: WebhookConfig) -> None:
        """Raises ConfigError for a URL, a key or a file that can't be."""
        if not _is_web(config.url):
            raise ConfigError(
                f"url must be http:// or https:// without user and password, got {shown(config.url)}; "
                'a key that signs goes by credentials = "NAME"'
            )
        if config.picture_url is not None:
            _check_link(config.picture_url, config.picture)
        if not 0 < config.timeout_s <= 60:
            raise ConfigError(f"timeout_s must be within 0..60, got {config.timeout_s:g}")
        if config.credentials is not None:
            _signing_key(config.credentials)
        credentials.check_ca_file(config.ca_file)

    @classmethod
    def secrets(cls, config: WebhookConfig) -> tuple[str, ...]:
        """What its key is in."""
        name = config.credentials
        return () if name is None else credentials.variables(name, KEY)

    def open(self, rules: Sequence[Rule], wake: Callable[[], None]) -> None:
        """Import httpx2, read the key."""
        import httpx2

        name = self.config.credentials
        self._key = None if name is None else _signing_key(name)
        self._refused = httpx2.HTTPError
        self._client: Any = httpx2.Client(
            timeout=self.config.timeout_s,
            verify=_tls(self.config.ca_file),
            headers={"content-type": "application/json", "user-agent": "manyeyes"},
        )

    def deliver(self, message_id: str, document: str, picture: Picture | None) -> None:
        """One POST; what the answer says beside its status is nobody's business."""
        status, location = self._post(message_id, self._with(document, picture))
        if status == _TOO_LARGE and picture is not None:
            status, location = self._post(message_id, document)
        where = shown(self.config.url)
        if 300 <= status < 400:
            raise NotDelivered(
                f"{where}: answers {status}, see {shown(location)}; write the URL that is meant"
            )
        if not 200 <= status < 300:
            raise NotDelivered(f"{where}: answers {status}")

    def _with(self, document: str, picture: Picture | None) -> str:
        if picture is None:
            return document
        url, there = self.config.picture_url, {"media_type": "image/jpeg"}
        if url is None:
            there["base64"] = base64.b64encode(picture.jpeg).decode()
        else:
            there["url"] = f"{url.rstrip('/')}/{picture.name}"
        return json.dumps(json.loads(document) | {"picture": there}, ensure_ascii=False)

    def _post(self, message_id: str, document: str) -> tuple[int, str]:
        """Status of the answer, and where it sends us. Raises NotDelivered if there is none."""
        body, headers = document.encode(), {"webhook-id": message_id}
        timestamp = str(wall_s())
        headers["webhook-timestamp"] = timestamp
        if self._key is not None:
            headers["webhook-signature"] = signature(self._key, message_id, timestamp, body)
        try:
            with self._client.stream(
                "POST", self.config.url, content=body, headers=headers
            ) as answer:
                _read_on(answer, time.monotonic() + self.config.timeout_s)
                return answer.status_code, answer.headers.get("location", "")
        except self._refused as error:
            where = shown(self.config.url)
            raise NotDelivered(f"{where}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _is_web(url: str) -> bool:
    """Whether it is http:// or https:// with a host, and without user and password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port  # which raises for one that is no number
    except ValueError:
        return False
    is_whole = bool(host) and port != 0 and "@" not in parts.netloc
    return is_whole and parts.scheme in ("http", "https")


def _check_link(url: str, picture: Kind) -> None:
    if not _is_web(url):
        raise ConfigError(
            "picture_url must be http:// or https:// without user and password, "
            f"got {shown(url)}; write where the folder of the store's pictures is served"
        )
    if not picture:
        raise ConfigError(
            'picture_url says where, and not which; add picture = "object" or "frame"'
        )


def _read_on(answer: Any, until_s: float) -> None:
    """To the end of a short answer, so that its connection can be used again."""
    nbytes = 0
    for piece in answer.iter_raw():
        nbytes += len(piece)
        if nbytes > _MAX_ANSWER_BYTES or time.monotonic() > until_s:
            return


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The header, of a key as bytes."""
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _signing_key(name: str) -> bytes:
    """Raises ConfigError, never with the key in it."""
    (text,) = credentials.read(name, KEY)
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_PREFIX) or len(key) < _MIN_KEY_BYTES:
        raise ConfigError(
            f"credentials '{name}': wanted a key as the standard of webhooks has it, {_PREFIX} and "
            f"{_MIN_KEY_BYTES} bytes or more in base64; make one with "
            f'echo "{_PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def _tls(ca_file: str | None) -> Any:
    import ssl

    return ssl.create_default_context(cafile=ca_file)
