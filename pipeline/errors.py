"""Every error of manyeyes, as one tree.

ManyeyesError
├── ConfigError            exit 78: what the user wrote cannot work; one sentence, no traceback
│   ├── ResourceError      exit 78: too little memory, a port in use, a folder that is not writable
│   ├── ModelError         exit 78: a model file that is not what it should be
│   ├── ModelNotHere       exit 78: a model that is known by name and was not fetched yet
│   └── DataError          exit 78: a data set that is not what it should be
├── AlreadyRunning         exit 75: another run holds the run directory
├── DeviceLost             exit 70: the accelerator is gone for this process; it must be replaced
├── SourceError            a camera can't be opened or went away; it is retried for ever
│   └── BrokenSource       what a recording holds can't be read: it ends, and the run fails at its end
├── FrameError             one frame (or one picture) is unusable; it is counted and thrown away
│   └── TornFrame          its slot was written again while it was read
├── MessageError           bytes that are no message of this build
└── ChannelError           what a channel can answer instead of passing a message:
    ├── Full               not now: no credit or no room; try again after the next DONE
    ├── Closed             never again: this side closed it
    ├── PeerGone           never again: the process at the other side died
    └── EndOfStream        never again, and all is well: the source has no more frames

The text of an error says what, where, wanted, got and what to do, in one sentence. Stage, camera and
frame are attached once, by the runner.
"""

from __future__ import annotations

CAUSES = (
    "",  # none is known: it was never up
    "network",  # it does not answer, or sends nothing any more
    "login",  # it wants another user or password
    "codec",  # it sends what can't be decoded, or no video
    "paused",  # somebody asked for that
    "process",  # the process that reads it died, and the next one has no frame yet
)
"""Why a camera is down."""


class ManyeyesError(Exception):
    """The root: everything that manyeyes raises on purpose."""

    exit_code = 1


class ConfigError(ManyeyesError):
    """What the user wrote cannot work; the text is all that the user sees."""

    exit_code = 78


class ResourceError(ConfigError):
    """The machine lacks something that the configuration needs."""


class ModelError(ConfigError):
    """A model file is not what its facts or the configuration say."""


class ModelNotHere(ConfigError):
    """A model that a command makes ready first: `command`, the words behind `manyeyes model`."""

    def __init__(self, text: str, *command: str) -> None:
        super().__init__(text)
        self.command = command


class DataError(ConfigError):
    """A data set is not what its files or the command line say."""


class AlreadyRunning(ManyeyesError):
    """Another run holds the run directory."""

    exit_code = 75


class DeviceLost(ManyeyesError):
    """The accelerator refuses all further work of this process; only a new process helps."""

    exit_code = 70


class SourceError(ManyeyesError):
    """A camera can't be opened or went away. The runner closes the source, waits and opens again.

    cause: one of CAUSES, for those who are told that a camera is down.
    """

    def __init__(self, text: str, cause: str = "network") -> None:
        super().__init__(text)
        self.cause = cause


class BrokenSource(SourceError):
    """A recording can't be read, and trying again would not help. The runner ends the source."""


class FrameError(ManyeyesError):
    """One frame or picture is unusable; the next one may be fine."""


class TornFrame(FrameError):
    """The slot of a frame was written again while it was read, so what was read is worthless."""


class PoolGone(FrameError):
    """The memory of a frame went with the last of the processes that had it: its writer and a reader."""


class MessageError(ManyeyesError):
    """Bytes arrived that are no message of this build."""


class ChannelError(ManyeyesError):
    """A channel did not pass a message; the subclass says whether trying again can help."""


class Full(ChannelError):
    """Not now: the consumer has no credit left or the queue has no room."""


class Closed(ChannelError):
    """Never again: this side has closed the channel."""


class PeerGone(ChannelError):
    """Never again: the process at the other side died."""


class EndOfStream(ChannelError):
    """Never again, and all is well: the source has delivered its last frame."""
