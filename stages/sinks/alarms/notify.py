"""Apprise: an alarm is a line of text, for mail, push and chats of a hundred services.

What a service is called and who may use it are in one secret URL, as https://github.com/caronc/apprise has
them: mailto://…, tgram://…, ntfys://…. These services know no ids: an alarm whose answer was lost is there
twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import credentials
from pipeline.errors import ConfigError
from stages.sinks.alarms.pictures import Kind, Picture
from stages.sinks.alarms.rules import Rule
from stages.sinks.alarms.target import NotDelivered, Target

KEY = "URL"  # the variable is NAME_URL
# of the library: they talk to the desktop of this host, some by running a program
_OF_THIS_HOST = ("dbus", "kde", "qt", "glib", "gnome", "macosx", "syslog", "windows")


@dataclass(frozen=True, kw_only=True)
class NotifyConfig:
    """Which service."""

    credentials: str  # NAME: NAME_URL, or NAME_FILE
    picture: Kind = ""  # attached, where the service takes one


class Notify(Target):
    """One message an alarm."""

    Config = NotifyConfig
    config: NotifyConfig
    needs = "apprise", "apprise"

    @classmethod
    def check(cls, config: NotifyConfig) -> None:
        """Raises ConfigError if the library does not know the URL."""
        _service(config.credentials)

    @classmethod
    def secrets(cls, config: NotifyConfig) -> tuple[str, ...]:
        """What its URL is in."""
        return credentials.variables(config.credentials, KEY)

    def open(self, rules: Sequence[Rule], wake: Callable[[], None]) -> None:
        """Read the URL."""
        self._service = _service(self.config.credentials)

    def deliver(self, message_id: str, document: str, picture: Picture | None) -> None:
        """One message; its title is the name of the alert."""
        alarm = json.loads(document)
        happening = alarm["happening"]
        body = f"{alarm['text']}\n{happening['time']}"
        attached = None if picture is None else _attached(picture)
        if not self._service.notify(body=body, title=alarm["alert"], attach=attached):
            raise NotDelivered(
                f"credentials '{self.config.credentials}': the service did not take it"
            )


def _attached(picture: Picture) -> Any:
    from apprise.attachment import memory

    make: Any = memory.AttachMemory
    name = picture.name.rpartition("/")[2]
    return make(content=picture.jpeg, name=name, mimetype="image/jpeg")


def _service(name: str) -> Any:
    """Raises ConfigError, never with the URL in it."""
    (url,) = credentials.read(name, KEY)
    try:
        import apprise
    except ImportError:
        raise ConfigError(
            "type 'apprise' needs a library: pip install 'manyeyes[apprise]'"
        ) from None
    # what it logs of a failure names hosts and users
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    scheme = url.partition("://")[0].lower()
    service = apprise.Apprise()
    if scheme in _OF_THIS_HOST or not service.add(url):
        raise ConfigError(
            f"credentials '{name}': wanted a URL that apprise knows, like ntfys://host/topic, of a service "
            "outside of this host"
        )
    return service
