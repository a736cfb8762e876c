"""Where an RTSP camera sends its viewers on to: found out first, as FFmpeg logs in wherever it is sent.

OPTIONS and DESCRIBE are asked as FFmpeg will ask them (RFC 2326), with Basic or Digest (RFC 2617).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from pipeline.errors import ConfigError
from pipeline.redaction import shown
from stages.capture.credentials import Credentials

MAX_REDIRECTS = 5
MAX_BODY_BYTES = 1 << 16  # of an answer
_HASHES = {"MD5": "md5", "SHA-256": "sha256"}
_PORTS = {"rtsp": 554, "rtsps": 322}


@contextmanager
def destination(
    url: str, secrets: Credentials, *, trust: ssl.SSLContext, timeout_s: float
) -> Iterator[tuple[str, Credentials | None]]:
    """The address to open in place of `url`, and what to log in with there. Blocks up to `timeout_s`.

    None in place of the credentials: another host, or a way that is no longer encrypted; or there was
    no answer, and what is wrong is for FFmpeg to say. The connections stay open until the end of the
    context: a server that has just begun to make the picture would stop that, and refuse who comes next.

    Raises ConfigError if it is no address of RTSP.

    Args:
        url: rtsp:// or rtsps://, in small letters, as `Credentials.join` wants it.
        secrets: for the host in `url`.
        trust: for rtsps.
    """
    with ExitStack() as connections:
        yield _destination(url, secrets, trust, time.monotonic() + timeout_s, connections)


def _destination(
    url: str, secrets: Credentials, trust: ssl.SSLContext, end_s: float, connections: ExitStack
) -> tuple[str, Credentials | None]:
    address = secrets.join(url) if "{password}" in url else url
    for _ in range(MAX_REDIRECTS):
        try:
            peer = connections.enter_context(_connected(address, trust, end_s))
            onward = _onward(_Conversation(peer, peer.makefile("rb"), end_s), address, secrets)
        except (OSError, ValueError, LookupError, http.client.HTTPException):
            return url, None
        if onward is None:
            return url, secrets
        came_from, url = address, urljoin(address, onward)
        if urlsplit(url).scheme not in _PORTS:
            raise ConfigError(f"it sends on to {shown(url)}; wanted rtsp:// or rtsps://")
        if not _may_know(url, came_from):
            break
        address = url
    return url, None


def _may_know(url: str, came_from: str) -> bool:
    """The same host, on a way no less safe; another port is another door of the same house."""
    new, old = urlsplit(url), urlsplit(came_from)
    as_safe = new.scheme in ("rtsps", old.scheme)
    return new.hostname == old.hostname and as_safe and "@" not in new.netloc


def _connected(url: str, trust: ssl.SSLContext, end_s: float) -> socket.socket:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    peer = socket.create_connection((host, port), timeout=_left_s(end_s))
    return trust.wrap_socket(peer, server_hostname=host) if parts.scheme == "rtsps" else peer


def _onward(camera: _Conversation, url: str, secrets: Credentials) -> str | None:
    """The address that the camera answers with; None: it sends nobody on."""
    for method in ("OPTIONS", "DESCRIBE"):
        status, headers = camera.ask(method, url)
        if status == 401:
            login = _login(headers, secrets, method, url)
            status, headers = camera.ask(method, url, login)
        if 300 <= status < 400 and headers.get("Location"):
            return str(headers["Location"])
    return None


@dataclass(slots=True)
class _Conversation:
    """Questions and answers over one connection."""

    peer: socket.socket
    answers: BinaryIO
    end_s: float
    number: int = 0

    def ask(self, method: str, url: str, login: str = "") -> tuple[int, Message]:
        """Status and headers of the answer."""
        self.number += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self.number}", "Accept: application/sdp"]
        lines += [f"Authorization: {login}"] if login else []
        self.peer.settimeout(_left_s(self.end_s))
        self.peer.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        version, status, *_ = self.answers.readline(1024).split()
        if not version.startswith(b"RTSP/"):
            raise ValueError("no RTSP")
        headers = http.client.parse_headers(self.answers)
        self.answers.read(min(int(headers.get("Content-Length", 0)), MAX_BODY_BYTES))
        return int(status), headers


def _login(headers: Message, secrets: Credentials, method: str, url: str) -> str:
    """The answer to a challenge: the Digest if there is one; empty if none is known."""
    pair = f"{secrets.user}:{secrets.password}".encode()
    answer = ""
    for challenge in headers.get_all("WWW-Authenticate", []):
        kind, _, rest = challenge.partition(" ")
        asked = parse_keqv_list(parse_http_list(rest))
        if kind.lower() == "digest" and asked.get("algorithm", "MD5").upper() in _HASHES:
            return _digest(asked, secrets, method, url)
        if kind.lower() == "basic":
            answer = f"Basic {base64.b64encode(pair).decode()}"
    return answer


def _digest(asked: dict[str, str], secrets: Credentials, method: str, url: str) -> str:
    algorithm = asked.get("algorithm", "MD5").upper()

    def hashed(*parts: str) -> str:
        text = ":".join(parts).encode()
        return hashlib.new(_HASHES[algorithm], text, usedforsecurity=False).hexdigest()

    realm, nonce = asked["realm"], asked["nonce"]
    who, what = hashed(secrets.user, realm, secrets.password), hashed(method, url)
    fields = {"username": secrets.user, "realm": realm, "nonce": nonce, "uri": url}
    if "auth" in asked.get("qop", "").split(","):
        own = os.urandom(8).hex()
        fields |= {"response": hashed(who, nonce, "00000001", own, "auth", what), "cnonce": own}
        more = ", qop=auth, nc=00000001"
    else:
        fields["response"], more = hashed(who, nonce, what), ""
    if "opaque" in asked:
        fields["opaque"] = asked["opaque"]
    if "algorithm" in asked:
        more += f", algorithm={algorithm}"
    return "Digest " + ", ".join(f'{name}="{text}"' for name, text in fields.items()) + more


def _left_s(end_s: float) -> float:
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
