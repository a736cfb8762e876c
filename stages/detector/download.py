"""A file from the network: whole and checked, or not there at all."""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError
from stages.detector import archive

TIMEOUT_S = 20.0  # without a byte
_CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server tells


class Unreachable(ConfigError):
    """The address did not give the file; its text is only the reason."""


def fetch(url: str, path: Path, sha256: str, progress: Progress = lambda *_: None) -> None:
    """Put what is at `url` under `path`. Blocks; a proxy is taken from the environment (https_proxy).

    sha256: of the file, or its first digits; empty: it can't be checked.
    Raises Unreachable; ConfigError: another file came, or it can't be written.
    """
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_opened(url)) as answer, part.open("wb") as out:
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdecimal() else None
            done = 0
            while chunk := _read(answer):
                out.write(chunk)
                done += len(chunk)
                progress(done, total)
        if total is not None and done != total:
            raise Unreachable(f"it ended after {done} of {total} bytes")
        got = archive.sha256(part)
        if not got.startswith(sha256):
            raise ConfigError(
                f"{url}: wanted a file whose sha256 begins with {sha256}, got {got}: it was changed, or "
                "something between here and there answered in its place; nothing was kept"
            )
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: can't be written: {error.strerror or error}; free some room, or set "
            "XDG_CACHE_HOME to another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _opened(url: str):  # type: ignore[no-untyped-def]  # http.client.HTTPResponse or its like
    try:
        # not urlopen, which knows the proxy of its first call for ever
        return urllib.request.build_opener().open(url, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise Unreachable(f"the server answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise Unreachable(_reason(error)) from None


def _read(answer) -> bytes:  # type: ignore[no-untyped-def]
    try:
        chunk: bytes = answer.read(_CHUNK_BYTES)
    except OSError as error:
        raise Unreachable(_reason(error)) from None
    return chunk


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner)
