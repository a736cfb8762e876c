"""Passwords of cameras: named in the configuration, kept in the environment, joined at open.

`credentials = "GATE"` means GATE_USER and GATE_PASSWORD, or GATE_FILE: a file of mode 0600 with the
user in its first line and the password in its second. Where the camera wants them inside the path
or the query, the URL has {user} and {password} there; otherwise they go before the host.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus, urlsplit

from pipeline import credentials
from pipeline.errors import ConfigError
from pipeline.redaction import shown

KEYS = ("USER", "PASSWORD")
# FFmpeg's RTSP client keeps `user:password` in 128 bytes and cuts off the rest without a word.
MAX_ENCODED_CHARS = 127


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password that show themselves to nobody but `join`."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    def join(self, url: str) -> str:
        """`url` with user and password in it, percent-encoded. Never log what this returns."""
        user, password = quote(self.user, safe=""), quote(self.password, safe="")
        if "{password}" in url:
            return url.replace("{user}", user).replace("{password}", password)
        scheme, rest = url.split("://", 1)
        return f"{scheme}://{user}:{password}@{rest}"

    def scrub(self, text: str) -> str:
        """`text` with `***` for user and password, plain or in an encoding of URLs or HTTP."""
        pair = f"{self.user}:{self.password}".encode()
        shapes = {base64.b64encode(pair).decode()}
        for secret in (self.password, self.user):
            shapes |= {
                secret, quote(secret), quote(secret, safe=""), quote_plus(secret),
                repr(secret)[1:-1],
            }  # fmt: skip
        for shape in sorted(shapes - {""}, key=len, reverse=True):
            text = text.replace(shape, "***")
        return text


def variables(name: str) -> tuple[str, ...]:
    """The environment variables that hold the credentials of this name, or say where they are."""
    return credentials.variables(name, *KEYS)


def load(name: str, environ: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials of this name. Raises ConfigError, never with a secret in it."""
    found = Credentials(*credentials.read(name, *KEYS, environ=environ))
    size = len(quote(found.user, safe="")) + 1 + len(quote(found.password, safe=""))
    if size > MAX_ENCODED_CHARS:
        raise ConfigError(
            f"credentials '{name}': user and password together take {size} characters in a URL, "
            f"at most {MAX_ENCODED_CHARS} reach the camera; choose a shorter password"
        )
    return found


def refuse_secrets(url: str) -> None:
    """Raise ConfigError if `url` itself carries a user or a password; the text repeats neither."""
    try:
        parts = urlsplit(url)
        # A password with a '/' in it looks like a port that is no number.
        clean = "@" not in parts.netloc and (parts.port or True)
    except ValueError:
        clean = False
    query = re.search(r"(?i)[?&/;](user(name)?|pass(word|wd)?|pwd|usr)=(?!\{)", url)
    if not clean or query:
        raise ConfigError(
            f"source {shown(url)}: a user, a password or a port that is no number "
            'inside the URL; take them out and write credentials = "NAME", with NAME_USER and '
            "NAME_PASSWORD in the environment (a camera that wants them in its path or query gets "
            "them where the URL has {user} and {password})"
        )


def trusted(ca_file: str | None, *, tls_verify: bool) -> ssl.SSLContext:
    """Whom to believe that it is the host that it says: as FFmpeg is told for its own connections."""
    trust = ssl.create_default_context(cafile=ca_file)
    if not tls_verify:
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    return trust
