"""An RTSP camera for tests, with faults on request: H.264 over TCP on loopback.

    with Camera(fault="stall", after=20) as camera:
        source = AvSource(AvConfig(url=camera.url))

RTSP 1.0 (RFC 2326) with interleaved RTP; H.264 as single NAL units and FU-A fragments (RFC 6184). Each
PLAY begins with a keyframe. Also a program: `python tests/cameras.py --port 8554 --fault trickle`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import random
import re
import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

from clips import h264_loop

FAULTS = {
    "mute": "accepts the connection and never answers",
    "mute_describe": "answers OPTIONS, never DESCRIBE",
    "huge_length": "announces a DESCRIBE answer of 2 GB",
    "redirect": "answers DESCRIBE with 302 to `redirect_to`",
    "stall": "sends nothing more; the connection stays open",
    "trickle": "no more pictures, but an RTCP sender report each 0.3 s",
    "half": "announces a packet of 1,400 bytes and sends two of them",
    "close": "closes the connection",
    "reset": "closes the connection with a TCP reset",
    "reschange": "goes on with pictures of `second_size`",
    "garble": "replaces bytes of the pictures at random",
    "nonsense": "goes on with packets in which there is no picture",
    "udp_only": "refuses RTP over TCP, and has no other",
    "mute_teardown": "never answers TEARDOWN",
}
PAYLOAD = 1390
NONCE = "dcd98b7102dd2f0e8b11d0f600bfb0c093"


class Camera:
    """A camera that can be switched off and on again at the same port."""

    def __init__(
        self,
        *,
        fault: str | None = None,
        after: int = 25,  # frames of a connection before its fault
        size: tuple[int, int] = (320, 240),
        second_size: tuple[int, int] = (160, 120),
        fps: float = 25.0,
        port: int = 0,
        login: str | None = None,  # "user:password", asked for with HTTP Basic
        digest: str | None = None,  # or with HTTP Digest: "MD5", "SHA-256"
        redirect_to: str = "",
        tls: ssl.SSLContext | None = None,  # rtsps
        seed: int = 0,
    ) -> None:
        if fault is not None and fault not in FAULTS:
            raise ValueError(f"fault must be one of {', '.join(FAULTS)}, got {fault!r}")
        self.fault, self.after, self.fps, self.login = fault, after, fps, login
        self.redirect_to, self.tls, self.digest = redirect_to, tls, digest
        self.port, self.connections, self.frames_sent = port, 0, 0
        self.logins: list[str] = []  # Authorization headers that came
        self._streams = (h264_loop(size), h264_loop(second_size))
        self._random = random.Random(seed)
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._peers: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where to watch it; without the login."""
        return f"rtsp{'s' if self.tls else ''}://127.0.0.1:{self.port}/stream"

    def start(self) -> Camera:
        """Listen; at the port of the last time, if there was one."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """Close the listener and every connection; returns when all threads have ended."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for peer in self._peers:
                with suppress(OSError):  # the client hung up first
                    peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def __enter__(self) -> Camera:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if self.tls is not None:  # the handshake comes with the first recv
                peer = self.tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                self._peers.add(peer)
            self.connections += 1
            self._spawn(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        try:
            _Session(self, peer).run()
        except OSError:
            pass  # the client is gone, or stop() was called
        finally:
            with self._lock:
                self._peers.discard(peer)
                peer.close()


class _Session:
    """One connection: requests in, answers and pictures out, in one thread."""

    def __init__(self, camera: Camera, peer: socket.socket) -> None:
        self.camera, self.peer = camera, peer
        self.received = b""
        self.playing = False
        self.sent = 0  # frames
        self.sequence = 0
        self.t_due_s = 0.0
        self.faulty = False  # the fault that comes after k frames is there

    def run(self) -> None:
        while True:
            wait_s = max(0.0, self.t_due_s - time.monotonic()) if self.playing else None
            if select.select([self.peer], [], [], wait_s)[0]:
                data = self.peer.recv(65536)
                if not data:
                    return
                self.received += data
                self._requests()
            if self.playing and time.monotonic() >= self.t_due_s and not self._picture():
                return

    def _requests(self) -> None:
        while self.received:
            if self.received[0] == 0x24:  # '$': RTCP from the client
                size = int.from_bytes(self.received[2:4], "big") + 4
                if len(self.received) < max(4, size):
                    return
                self.received = self.received[size:]
                continue
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            self.received = rest
            self._answer(head.decode())

    def _answer(self, request: str) -> None:
        method, url = request.split()[:2]
        fault = self.camera.fault
        if fault == "mute" or (fault, method) in (
            ("mute_describe", "DESCRIBE"),
            ("mute_teardown", "TEARDOWN"),
        ):
            return None
        headers = dict(re.findall(r"(?m)^([\w-]+): *(.*?)\r?$", request))
        self.sequence_number = headers.get("CSeq", "0")
        login = self.camera.login
        if "Authorization" in headers:
            self.camera.logins.append(headers["Authorization"])
        if login is not None and method != "OPTIONS":
            given, digest = headers.get("Authorization", ""), self.camera.digest
            if digest is not None and not _knows(login, digest, method, given):
                asked = f'Digest realm="camera", nonce="{NONCE}", algorithm={digest}'
                return self._reply("401 Unauthorized", f"WWW-Authenticate: {asked}")
            wanted = "Basic " + base64.b64encode(login.encode()).decode()
            if digest is None and given != wanted:
                return self._reply("401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"')
        if method == "OPTIONS":
            return self._reply("200 OK", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
        if method == "DESCRIBE" and fault == "redirect":
            return self._reply("302 Found", f"Location: {self.camera.redirect_to}")
        if method == "DESCRIBE":
            length = 2_000_000_000 if fault == "huge_length" else None
            return self._reply(
                "200 OK", f"Content-Base: {url}/", "Content-Type: application/sdp",
                body=self._sdp(), length=length,
            )  # fmt: skip
        over_tcp = "interleaved" in headers.get("Transport", "")
        if method == "SETUP" and (not over_tcp or fault == "udp_only"):
            return self._reply("461 Unsupported Transport")
        if method == "SETUP":
            return self._reply(
                "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"
            )
        if method == "PLAY":
            self.playing, self.t_due_s = True, time.monotonic()
        return self._reply("200 OK", "Session: 1")

    def _reply(self, status: str, *headers: str, body: str = "", length: int | None = None) -> None:
        size = len(body) if length is None else length
        lines = (
            f"RTSP/1.0 {status}", f"CSeq: {self.sequence_number}", *headers,
            f"Content-Length: {size}", "", body,
        )  # fmt: skip
        self.peer.sendall("\r\n".join(lines).encode())

    def _sdp(self) -> str:
        nals = self.camera._streams[0][0]
        sets = ",".join(base64.b64encode(n).decode() for n in nals if n[0] & 31 in (7, 8))
        return (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
            "a=rtpmap:96 H264/90000\r\na=control:track1\r\n"
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\n"
        )

    def _picture(self) -> bool:
        """Send the next frame, or do what the fault says. False: close the connection."""
        camera = self.camera
        if camera.fault is not None and self.sent >= camera.after:
            first, self.faulty = not self.faulty, True
            if camera.fault == "close":
                return False
            if camera.fault == "reset":
                self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            if camera.fault in ("stall", "half"):
                if camera.fault == "half" and first:
                    self.peer.sendall(b"$\x00" + (1400).to_bytes(2, "big") + b"\x80\x60")
                self.t_due_s = time.monotonic() + 3600
                return True
            if camera.fault == "trickle":
                report = struct.pack(">BBHIQIII", 0x80, 200, 6, 1, 0, 0, 0, 0)
                self.peer.sendall(b"$\x01" + len(report).to_bytes(2, "big") + report)
                self.t_due_s = time.monotonic() + 0.3
                return True
        stream, index = camera._streams[0], self.sent
        if self.faulty and camera.fault == "reschange":
            stream, index = camera._streams[1], self.sent - camera.after
        nonsense = self.faulty and camera.fault == "nonsense"
        self._send([b"\x0c\xff\x80"] if nonsense else stream[index % len(stream)])
        self.sent += 1
        camera.frames_sent += 1
        self.t_due_s += 1 / camera.fps
        return True

    def _send(self, nals: list[bytes]) -> None:
        out = bytearray()
        for i, nal in enumerate(nals):
            data = self._garbled(nal) if self.faulty and self.camera.fault == "garble" else nal
            packets = fragments(data)
            for j, payload in enumerate(packets):
                last = i == len(nals) - 1 and j == len(packets) - 1
                rtp = struct.pack(
                    ">BBHII", 0x80, 96 | last << 7, self.sequence & 0xFFFF,
                    int(self.sent * 90_000 / self.camera.fps) & 0xFFFFFFFF, 1,
                )  # fmt: skip
                self.sequence += 1
                out += b"$\x00" + (len(rtp) + len(payload)).to_bytes(2, "big") + rtp + payload
        self.peer.sendall(out)

    def _garbled(self, nal: bytes) -> bytes:
        data = bytearray(nal)
        for i in range(40, len(data)):
            if self.camera._random.random() < 0.002:
                data[i] = self.camera._random.randrange(256)
        return bytes(data)


def _knows(login: str, digest: str, method: str, given: str) -> bool:
    """Whether this is the answer to our challenge (RFC 2069, as without qop)."""

    def hashed(text: str) -> str:
        return hashlib.new(digest.replace("-", ""), text.encode()).hexdigest()

    user, _, password = login.partition(":")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', given))
    who, what = hashed(f"{user}:camera:{password}"), hashed(f"{method}:{fields.get('uri')}")
    return fields.get("response") == hashed(f"{who}:{NONCE}:{what}")


def fragments(nal: bytes) -> list[bytes]:
    """The RTP payloads of a NAL unit: itself, or FU-A fragments."""
    if len(nal) <= PAYLOAD:
        return [nal]
    parts = [nal[i : i + PAYLOAD] for i in range(1, len(nal), PAYLOAD)]
    marks = [0x80, *[0] * (len(parts) - 2), 0x40]  # first, middle, last
    head, kind = nal[0] & 0xE0 | 28, nal[0] & 31
    return [bytes((head, mark | kind)) + part for mark, part in zip(marks, parts, strict=True)]


def main() -> None:
    """Run one camera until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", choices=FAULTS)
    parser.add_argument("--after", type=int, default=25, help="frames before the fault")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=float, default=25.0)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with Camera(
        fault=options.fault,
        after=options.after,
        size=(width, height),
        fps=options.fps,
        port=options.port,
    ) as camera:
        print(f"READY {camera.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
