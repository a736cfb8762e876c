"""As much of an RTSP camera as a benchmark needs: one H.264 track over TCP (RFC 2326, 6184, 3550)."""

from __future__ import annotations

import base64
import re
import socket
import struct
from collections.abc import Sequence

CLOCK_HZ = 90_000  # of RTP, for video
T0 = 90_000  # time stamp of the first frame; FFmpeg takes 0 for none
MAX_PAYLOAD = 60_000  # bytes; an interleaved packet has room for 65535
_PAYLOAD_TYPE = 96
_SPS, _PPS, _FU_A = 7, 8, 28  # types of NAL units
_START_CODE = re.compile(b"\0\0\0?\1")


def nal_units(annex_b: bytes) -> list[bytes]:
    """The NAL units of a piece of an Annex B stream, without their start codes.

    >>> nal_units(b"\\0\\0\\0\\1gA\\0\\0\\1hB")
    [b'gA', b'hB']
    """
    return [unit for unit in _START_CODE.split(annex_b) if unit]


class Track:
    """Numbers and time stamps of one track."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._sequence = 0

    def packets(self, number: int, annex_b: bytes) -> bytes:
        """Frame `number` as interleaved RTP packets of channel 0."""
        payloads = [part for unit in nal_units(annex_b) for part in _parts(unit)]
        t = (T0 + round(number * CLOCK_HZ / self._rate_hz)) & 0xFFFFFFFF
        out = []
        for left, payload in zip(range(len(payloads) - 1, -1, -1), payloads, strict=True):
            marker = 0x80 if left == 0 else 0  # on the last packet of a picture
            head = struct.pack(">BBHII", 0x80, marker | _PAYLOAD_TYPE, self._sequence, t, 1)
            self._sequence = (self._sequence + 1) & 0xFFFF
            out += [struct.pack(">cBH", b"$", 0, len(head) + len(payload)), head, payload]
        return b"".join(out)


def _parts(unit: bytes) -> list[bytes]:
    """A NAL unit as payloads: itself, or fragments (FU-A) if it is large."""
    if len(unit) <= MAX_PAYLOAD:
        return [unit]
    body = unit[1:]
    pieces = [body[i : i + MAX_PAYLOAD] for i in range(0, len(body), MAX_PAYLOAD)]
    indicator = unit[0] & 0xE0 | _FU_A
    return [
        bytes([indicator, (i == 0) << 7 | (i == len(pieces) - 1) << 6 | unit[0] & 0x1F]) + piece
        for i, piece in enumerate(pieces)
    ]


def until_play(connection: socket.socket, key_frames: Sequence[bytes]) -> int | None:
    """Answer a client until it has asked to play; returns the camera, None if it left before.

    The path of a URL is the number of a camera. key_frames: the first of each, with the parameter sets
    that the description of its stream states.
    """
    with connection.makefile("rb") as lines:
        while request := lines.readline().decode("ascii", "replace").split():
            headers = {}
            while line := lines.readline().decode("ascii", "replace").strip():
                key, _, value = line.partition(":")
                headers[key.lower()] = value.strip()
            method, url = request[0], request[1]
            camera = int(url.split("/")[3])
            connection.sendall(_response(method, url, headers, key_frames[camera]))
            if method == "PLAY":
                return camera
    return None


def _response(method: str, url: str, headers: dict[str, str], key_frame: bytes) -> bytes:
    lines = [f"CSeq: {headers.get('cseq', '0')}"]
    body = ""
    status = "200 OK"
    if method == "OPTIONS":
        lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
    elif method == "DESCRIBE":
        body = _description(key_frame)
        lines += [f"Content-Base: {url}/", "Content-Type: application/sdp"]
    elif method == "SETUP" and "TCP" not in headers.get("transport", ""):
        status = "461 Unsupported Transport"
    elif method == "SETUP":
        lines += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1;timeout=600"]
    elif method == "PLAY":
        lines += ["Session: 1", f"RTP-Info: url={url.rstrip('/')}/track;seq=0;rtptime={T0}"]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"RTSP/1.0 {status}", *lines, "", body]).encode()


def _description(key_frame: bytes) -> str:
    """SDP (RFC 4566) with the parameter sets (RFC 6184, 8.2.1)."""
    sets = [unit for unit in nal_units(key_frame) if unit[0] & 0x1F in (_SPS, _PPS)]
    text = ",".join(base64.b64encode(unit).decode() for unit in sets)
    return "\r\n".join(
        [
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=camera",
            "c=IN IP4 0.0.0.0",
            "t=0 0",
            f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}",
            f"a=rtpmap:{_PAYLOAD_TYPE} H264/{CLOCK_HZ}",
            f"a=fmtp:{_PAYLOAD_TYPE} packetization-mode=1;sprop-parameter-sets={text}",
            "a=control:track",
            "",
        ]
    )
