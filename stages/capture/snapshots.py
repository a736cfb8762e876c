"""A camera that gives one picture for each request of HTTP: polled, as bgr24.

A camera that knows ETag or Last-Modified is asked for newer pictures only, and 304 is an answer like
another: such a camera is up, without a picture.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from pipeline.credentials import check_ca_file
from pipeline.errors import ConfigError, FrameError, SourceError
from pipeline.redaction import shown
from pipeline.stage import Picture, Source
from stages.capture.credentials import (
    Credentials,
    load,
    refuse_secrets,
    trusted,
    variables,
)
from stages.capture.sizes import check_max_size, write_bgr

MAX_BYTES = 32 << 20  # of one answer
TURN_S = 1.0  # that one call waits for the next request, at most
IDLE_S = 0.02  # before it is asked once more whether anybody wants a picture


@dataclass(frozen=True, kw_only=True)
class SnapshotsConfig:
    """Which camera, and how often it is asked."""

    url: str  # http:// or https://, without user and password
    credentials: str | None = None  # NAME: see stages/capture/credentials.py
    tls_verify: bool = True  # https: only who has a certificate of a trusted authority
    ca_file: str | None = None  # PEM of the authorities, or of the camera; None: those of the host
    rate_hz: float = 1.0  # requests a second
    max_size: tuple[int, int] = (1920, 1080)  # px; a picture with more pixels is scaled down
    read_timeout_s: float = 5.0  # for one answer


class SnapshotsSource(Source):
    """One request, one picture. Credentials are sent when the camera asks for them, to it alone."""

    Config = SnapshotsConfig
    config: SnapshotsConfig

    def __init__(self, config: SnapshotsConfig) -> None:
        super().__init__(config)
        self.turn_s = 2 * config.read_timeout_s + TURN_S + 1.0
        self._name = shown(config.url)
        self._opener: urllib.request.OpenerDirector | None = None
        self._due_s = 0.0  # of the next request
        self._newer: dict[str, str] = {}  # headers that ask for what we do not have

    @classmethod
    def check(cls, config: SnapshotsConfig) -> None:
        """Refuse other schemes, passwords in the URL, credentials that are not there, odd numbers."""
        try:
            scheme = urlsplit(config.url).scheme.lower()
        except ValueError as error:  # a bracket where an address has none
            raise ConfigError(f"the address of the snapshots is no URL: {error}") from None
        if scheme not in ("http", "https"):
            raise ConfigError("snapshots come over http:// or https://; remove reader")
        refuse_secrets(config.url)
        if config.credentials is not None:
            load(config.credentials)
        check_ca_file(config.ca_file)
        check_max_size(config.max_size)
        if not 0 < config.rate_hz <= 100:
            raise ConfigError(
                f"rate_hz must be within 0..100 requests a second, got {config.rate_hz}"
            )
        if not 0 < config.read_timeout_s <= 3600:
            raise ConfigError(
                "read_timeout_s must be above 0 and at most 3600 seconds, "
                f"got {config.read_timeout_s:g}"
            )

    @classmethod
    def slot_bytes(cls, config: SnapshotsConfig, frame_bytes: int) -> int:
        """Room for a bgr24 picture of `max_size`."""
        width, height = config.max_size
        return width * height * 3

    @classmethod
    def counters(cls, config: SnapshotsConfig) -> tuple[str, ...]:
        """`scaled`: too large for a slot; `unchanged`: answers that there is nothing newer."""
        return ("scaled", "unchanged")

    @classmethod
    def secrets(cls, config: SnapshotsConfig) -> tuple[str, ...]:
        """What its credentials are in."""
        return () if config.credentials is None else variables(config.credentials)

    def setup(self) -> None:
        """Import OpenCV and Pillow, which shall not warn of tags that nobody reads."""
        import stages.imaging.decoding  # noqa: F401

        warnings.filterwarnings("ignore", module=r"PIL\.")

    def open(self) -> None:
        """Nothing is connected yet: each picture has a request of its own."""
        self._newer = {}
        try:
            secrets = None if self.config.credentials is None else load(self.config.credentials)
        except ConfigError as error:
            raise SourceError(f"source {self._name}: {error}", "login") from None
        self._opener = _opener(self.config, secrets)
        self._url = self.config.url
        if secrets is not None and "{password}" in self._url:
            self._url = secrets.join(self._url)

    def read(self, buffer: npt.NDArray[np.uint8]) -> Picture | None:
        """The next picture as bgr24; None: it is not time yet, or there is no newer one."""
        data = self._next()
        if data is None:
            return None
        from stages.imaging.decoding import decoded

        try:
            pixels = decoded(data)
        except ValueError as error:
            raise FrameError(
                f"source {self._name}: {len(data)} bytes that are no picture: {error}"
            ) from None
        width, height = write_bgr(pixels, buffer)
        if (width, height) != pixels.shape[1::-1]:
            self.runtime.count("scaled", self.runtime.cameras[0])
        return Picture(
            width=width,
            height=height,
            source_size=pixels.shape[1::-1],
            format="bgr24",
            keyframe=True,
        )

    def skip(self) -> bool:
        """A picture that nobody wants is not asked for, so there is none."""
        time.sleep(max(IDLE_S, min(self._due_s - time.monotonic(), TURN_S)))
        return False

    def close(self) -> None:
        """Nothing stays open between two requests."""
        self._opener = None

    def _is_due(self) -> bool:
        time.sleep(max(0.0, min(self._due_s - time.monotonic(), TURN_S)))
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        period_s = 1 / self.config.rate_hz
        # from the last due time, so that the rate is kept; after a late answer from now
        late = now_s - self._due_s > period_s
        self._due_s = (now_s if late else self._due_s) + period_s
        return True

    def _next(self) -> bytes | None:
        """The bytes of the next picture. Raises SourceError when the camera is not there."""
        if self._opener is None:
            raise SourceError(f"source {self._name}: is not open")
        if not self._is_due():
            return None
        limit_s, problem, cause = self.config.read_timeout_s, "", "network"
        request = urllib.request.Request(self._url, headers=self._newer)
        try:
            with self._opener.open(request, timeout=limit_s) as answer:
                return self._body(answer)
        except urllib.error.HTTPError as error:
            if error.code == 304:
                self.runtime.count("unchanged", self.runtime.cameras[0])
                return None
            problem = f"answered {error.code} {error.reason}"
            cause = "login" if error.code in (401, 403) else cause
        except TimeoutError:
            problem = f"no answer in {limit_s:g} s"
        except urllib.error.URLError as error:
            late = isinstance(error.reason, TimeoutError)
            reason = getattr(error.reason, "strerror", None) or error.reason
            problem = f"no answer in {limit_s:g} s" if late else str(reason)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = getattr(error, "strerror", None) or type(error).__name__
        raise SourceError(f"source {self._name}: lost: {problem}", cause)

    def _body(self, answer: Any) -> bytes:
        kind = answer.headers.get_content_type()
        if kind.startswith(("multipart/", "video/")):
            raise SourceError(
                f"source {self._name}: is a stream ({kind}) and not one picture; write reader = 'av'",
                "codec",
            )
        data: bytes = answer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise FrameError(f"source {self._name}: more than {MAX_BYTES} bytes for one picture")
        if answer.length:
            raise SourceError(f"source {self._name}: lost: {answer.length} bytes did not come")
        asked = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
        self._newer = {
            asked[name]: value for name in asked if (value := answer.headers.get(name)) is not None
        }
        return data


def _opener(config: SnapshotsConfig, secrets: Credentials | None) -> urllib.request.OpenerDirector:
    """For http and https alone; it knows the credentials of the camera's own address."""
    url, trust = config.url, trusted(config.ca_file, tls_verify=config.tls_verify)
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=trust),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPRedirectHandler(),
    ]
    if secrets is not None and "{password}" not in url:
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        parts = urlsplit(url)
        known.add_password(
            None, f"{parts.scheme}://{parts.netloc}/", secrets.user, secrets.password
        )
        handlers += [
            urllib.request.HTTPBasicAuthHandler(known),
            urllib.request.HTTPDigestAuthHandler(known),
        ]
    for handler in handlers:
        opener.add_handler(handler)
    return opener
