"""What may be shown of a source. A URL may hold a password, above all one that is misspelt.

Pure: any text will do, nothing is raised.
"""

from __future__ import annotations

import re

_SCHEMES = "rtsps?|rtmps?|https?|srt|udp|tcp|ftp|file|synthetic"
_AT = re.compile(r"@|%40")
_URL = re.compile(
    r"(?i)([a-z][a-z0-9+.-]*://(?:[\w.-]+|\[[0-9a-f:.]+])?(?::\d+)?)(?=[/?#]|$)(.*)", re.S
)
_MISSPELT = re.compile(rf"(?i)\s*(?:{_SCHEMES})(?::|;?//)")
_MEANT_AS_URL = re.compile(rf"(?i)\s*([a-z][a-z0-9+.-]*(?=:)|(?:{_SCHEMES})(?=;?//))")
_KEY = re.compile(
    r"(?i)[\w.-]*(?:user|usr|login|pass|pwd|pw|token|key|secret|auth|cred|sig)[\w.-]*(?:=|%3d)"
)
_HOST = re.compile(r"[\w.:-]*")


def shown(source: str) -> str:
    """`source`, whatever the user wrote, as sentences, logs and tables may show it.

    Of a URL scheme, host and port: paths and queries hold tokens. Of what is none, but holds an @: what
    stands directly behind it. A path is shown as it is, up to a key that looks like that of a secret.

    >>> shown("rtsp://10.0.0.7:554/stream1?token=abc"), shown("rtsp:/me:secret@10.0.0.7/1")
    ('rtsp://10.0.0.7:554/…', '***@10.0.0.7…')
    >>> shown("clips/street.mp4"), shown("10.0.0.7/1?password=abc")
    ('clips/street.mp4', '10.0.0.7/1?password=***')
    """
    key = _KEY.search(source)
    if parts := list(_AT.finditer(source)):
        behind = "" if key else _HOST.match(source, parts[-1].end())[0]  # type: ignore[index]
        return f"***@{behind}…"
    if url := _URL.fullmatch(source):
        more = "…" if url[1].endswith("/") else "/…"
        return url[1] + more * bool(url[2])
    if word := _MEANT_AS_URL.match(source):
        return f"{word[1]}:…"
    return source if key is None else f"{source[: key.end()]}***"


def is_misspelt(source: str) -> bool:
    """Whether it begins as a URL, but is none: `rtsp:/10.0.0.7/1`, `rtsp//10.0.0.7`."""
    return "://" not in source and _MISSPELT.match(source) is not None
