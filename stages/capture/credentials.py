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
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

from pipeline.errors import ConfigError
from pipeline.redaction import shown

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


def variables(name: str) -> tuple[str, str, str]:
    """The environment variables that hold the credentials of this name, or say where they are."""
    return f"{name}_USER", f"{name}_PASSWORD", f"{name}_FILE"


def load(name: str, environ: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials of this name. Raises ConfigError, never with a secret in it."""
    user, password, file = variables(name)
    if file in environ:
        found = _from_file(name, Path(environ[file]))
    elif user in environ and password in environ:
        found = Credentials(environ[user], environ[password])
    else:
        raise ConfigError(
            f"credentials '{name}': wanted {user} and {password}, or {file}, "
            "in the environment, found neither; set them where manyeyes is started"
        )
    size = len(quote(found.user, safe="")) + 1 + len(quote(found.password, safe=""))
    if size > MAX_ENCODED_CHARS:
        raise ConfigError(
            f"credentials '{name}': user and password together take {size} characters in a URL, "
            f"at most {MAX_ENCODED_CHARS} reach the camera; choose a shorter password"
        )
    return found


def _from_file(name: str, path: Path) -> Credentials:
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"credentials '{name}': {path} from {name}_FILE can't be read "
            f"({type(error).__name__}); wanted a text file of two lines, user and password"
        ) from None
    if mode & 0o077:
        raise ConfigError(
            f"credentials '{name}': {path} has mode {mode & 0o777:04o}, so others may read it; "
            f"run chmod 600 {path}"
        )
    if len(lines) != 2:
        raise ConfigError(
            f"credentials '{name}': {path} has {len(lines)} lines, wanted two: user, then password"
        )
    return Credentials(*lines)


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


def check_ca_file(path: str | None) -> None:
    """Raise ConfigError unless certificates can be read there; None: those of the host."""
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # of what is no certificate, too
        raise ConfigError(
            f"ca_file: {path}: no certificates can be read there ({error.strerror or error.args[-1]}); "
            "wanted a PEM file"
        ) from None
