"""Secrets by name: kept in the environment, named in the configuration, shown to nobody.

`credentials = "GATE"` means the variables GATE_USER and GATE_PASSWORD (or whatever keys the part wants), or
GATE_FILE: a file of mode 0600 with one of them in each line, in that order. There are at most two.

What reads a file waits for its disk and for nothing else; nothing is raised but where it is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.redaction import shown

_NAME = re.compile(r"[A-Za-z_]\w*")


def variables(name: str, *keys: str) -> tuple[str, ...]:
    """The environment variables that hold the secrets of this name, or say where they are.

    >>> variables("GATE", "USER", "PASSWORD")
    ('GATE_USER', 'GATE_PASSWORD', 'GATE_FILE')
    """
    return tuple(f"{name}_{key}" for key in (*keys, "FILE"))


def by_their_looks(environ: Mapping[str, str]) -> frozenset[str]:
    """Names of variables that may be secrets, whoever they are meant for: also a camera that joins later.

    >>> sorted(by_their_looks({"GATE_USER": "", "GATE_PASSWORD": "", "HOOK_SECRET": "", "DB_USER": ""}))
    ['GATE_PASSWORD', 'GATE_USER', 'HOOK_SECRET']
    """
    passwords = {name for name in environ if name.endswith("_PASSWORD")}
    users = {f"{name.removesuffix('_PASSWORD')}_USER" for name in passwords}
    secrets = {name for name in environ if name.endswith("_SECRET")}
    return frozenset((passwords | users | secrets) & environ.keys())


def read(name: str, *keys: str, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The secrets of this name, one for each key. Raises ConfigError, never with a secret in it."""
    if not _NAME.fullmatch(name):  # perhaps the secret itself
        raise ConfigError(
            "credentials must be a NAME of letters, digits and _, and not a secret itself; write one like "
            f'credentials = "GATE" and set {" and ".join(variables("GATE", *keys)[:-1])} in the environment'
        )
    *wanted, file = variables(name, *keys)
    if file in environ:
        return _from_file(name, keys, Path(environ[file]))
    if all(variable in environ for variable in wanted):
        return tuple(environ[variable] for variable in wanted)
    raise ConfigError(
        f"credentials '{name}': wanted {' and '.join(wanted)}, or {file}, in the environment, "
        f"found neither; set {'them' if len(keys) > 1 else 'one'} where manyeyes is started"
    )


def _from_file(name: str, keys: tuple[str, ...], path: Path) -> tuple[str, ...]:
    lines_wanted = ("one line", "two lines")[len(keys) - 1]
    wanted = f"{lines_wanted}: {', then '.join(key.lower() for key in keys)}"
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"credentials '{name}': {path} from {name}_FILE can't be read "
            f"({type(error).__name__}); wanted a text file of {wanted}"
        ) from None
    if mode & 0o077:
        raise ConfigError(
            f"credentials '{name}': {path} has mode {mode & 0o777:04o}, so others may read it; "
            f"run chmod 600 {path}"
        )
    if len(lines) != len(keys):
        raise ConfigError(f"credentials '{name}': {path} has {len(lines)} lines, wanted {wanted}")
    return tuple(lines)


def check_ca_file(path: str | None) -> None:
    """Raise ConfigError unless certificates can be read there; None: those of the host."""
    if path is None:
        return
    import ssl  # late: it is large, and every process of a run knows this module

    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # of what is no certificate, too
        raise ConfigError(
            f"ca_file: {shown(path)}: no certificates can be read there "
            f"({error.strerror or error.args[-1]}); wanted a PEM file"
        ) from None
