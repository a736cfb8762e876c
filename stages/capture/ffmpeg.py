"""What FFmpeg may open, and how quickly: the walls around its protocols, and its options by scheme."""

from __future__ import annotations

import errno
import ssl
from typing import Any

# What FFmpeg may open, by scheme: a playlist or a redirect can't leave this list (CVE-2016-1897).
PROTOCOLS = {
    "rtsp": "rtsp,rtp,rtcp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,rtcp,srtp,udp,tcp,tls",
    "http": "http,https,tcp,tls,crypto",
    "https": "https,tcp,tls,crypto",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "srt": "srt",
    "udp": "udp",
    "pipe": "pipe",
    "file": "file,crypto",
}
STDIN = "-"
MAX_PIXELS = 1 << 26  # of one decoded picture: a forged header asks for more memory than a host has
LIMITS = {"max_pixels": str(MAX_PIXELS)}
RTSP = ("rtsp", "rtsps")
TLS = ("rtsps", "https", "rtmps")
_NO_TIMESTAMPS, _TIMESTAMPS_JUMP = 0x0080, 0x0200  # AVFMT_NOTIMESTAMPS, AVFMT_TS_DISCONT


def scheme_of(url: str) -> str:
    """In small letters; "file" of a path, "pipe" of `-`."""
    head, mark, _ = url.partition("://")
    return head.lower() if mark else "pipe" if url == STDIN else "file"


def address_of(url: str) -> str:
    """`url` as FFmpeg takes it: it knows schemes in small letters only, and no bare path is one."""
    scheme = scheme_of(url)
    if scheme == "file":
        return f"file:{url}"
    return "pipe:0" if scheme == "pipe" else scheme + url[len(scheme) :]


def options_of(
    scheme: str, transport: str, *, tls_verify: bool, ca_file: str | None
) -> dict[str, str]:
    """For av.open."""
    options = {"protocol_whitelist": PROTOCOLS[scheme], **LIMITS}
    if scheme == "file":
        return options
    options["tls_verify"] = str(int(tls_verify))
    if trusted := ca_file or ssl.get_default_verify_paths().cafile:
        options["ca_file"] = trusted
    if scheme in RTSP:
        return options | {
            "rtsp_transport": transport,
            "allowed_media_types": "video",
            # The SDP tells what the stream is. FFmpeg would watch it for eight pictures of H.264, to know
            # whether they come in order, which is 4 s of a camera at 2 Hz.
            "probesize": "32",
        }
    # FFmpeg would watch a stream for 5 s if it announces a sound that it does not send, and then give
    # out 5 s of old pictures; the last part of a live playlist is the newest.
    return options | {"analyzeduration": "500000", "live_start_index": "-1"}


def opened(url: str, options: dict[str, str], timeouts_s: tuple[float, float]) -> Any:
    """av.open, with timeouts to open and to read."""
    import av

    # PyAV before 18 also hands `options` to the streams, and where a container tells those only later, as
    # FLV does, it frees what it has never had. Its probing then knows no MAX_PIXELS; its decoding does.
    name = "options" if int(av.__version__.split(".")[0]) >= 18 else "container_options"
    more: dict[str, Any] = {name: options}
    return av.open(url, timeout=timeouts_s, **more)


def reason_of(error: Exception, scheme: str, transport: str, *, tls_verify: bool = False) -> str:
    """FFmpeg's own words for an error, without the URL that PyAV appends to them, and what to do."""
    import av

    text = str(getattr(error, "strerror", None) or type(error).__name__)
    if isinstance(error, av.error.ProtocolNotFoundError):
        return f"FFmpeg here has no {scheme}://; install a PyAV that has, or choose another"
    if scheme in RTSP and getattr(error, "errno", 0) == errno.EPROTONOSUPPORT:
        other = "udp" if transport == "tcp" else "tcp"
        return f"it does not send over {transport.upper()}; write transport = {other!r}"
    if tls_verify and scheme in TLS and getattr(error, "errno", 0) == errno.EIO:
        return (
            f"{text}; if its certificate is one that it made itself, name that with ca_file, or write "
            "tls_verify = false and trust the network"
        )
    return text


def cause_of(error: Exception) -> str:
    """Of an error at opening: one of errors.CAUSES."""
    import av

    refused = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
    if isinstance(error, refused):
        return "login"
    unknown = (
        av.error.InvalidDataError,
        av.error.DecoderNotFoundError,
        av.error.DemuxerNotFoundError,
    )
    return "codec" if isinstance(error, unknown) else "network"


def invents_time(container: Any) -> bool:
    """Its pictures carry no times: FFmpeg counts them at 25 Hz, whatever the camera does."""
    one_by_one = container.format.name.endswith("_pipe")  # pictures, each on its own
    return one_by_one or bool(_flags(container) & _NO_TIMESTAMPS)


def jumps_in_time(container: Any) -> bool:
    """Its clock may jump where it was cut."""
    return bool(_flags(container) & _TIMESTAMPS_JUMP)


def is_playlist(container: Any) -> bool:
    """HLS: it comes in parts of seconds."""
    return bool(container.format.name == "hls")


def is_recording(container: Any, scheme: str) -> bool:
    """It has an end: a file, here or behind HTTP, stdin, or a playlist that is complete."""
    if scheme in ("file", "pipe"):
        return True
    if is_playlist(container):
        return container.duration is not None and container.duration > 0
    return has_end(container) and not invents_time(container)


def has_end(container: Any) -> bool:
    """HTTP has told how many bytes there are."""
    return (container.size or 0) > 0  # None where it is not known; before PyAV 19 a negative number


def _flags(container: Any) -> int:
    flags = container.format.flags
    return int(getattr(flags, "value", flags))
