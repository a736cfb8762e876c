"""An HTTP server that no number of clients can use up."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

log = logging.getLogger("manyeyes")

MAX_CONNECTIONS = 64  # at once; more than any number of scrapers needs
_NO_DESCRIPTOR_S = 0.1


class BoundedServer(ThreadingHTTPServer):
    """A thread for each connection, and a bound: a new one ends the oldest, so that it is always heard."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """See socketserver."""
        try:
            return super().get_request()
        except OSError:  # no descriptor is free; it stays in the queue
            time.sleep(_NO_DESCRIPTOR_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """On the server's thread; ends the oldest connection for one too many."""
        with self._lock:
            self._connections[request] = None
            if len(self._connections) > MAX_CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread sees the end of it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """On the connection's thread, at its end."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or no thread for it, is no news; a bug of ours is."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) and str(error) != "can't start new thread":
            log.exception("metrics: a request failed")

    def server_bind(self) -> None:
        """See socketserver."""
        # HTTPServer asks the DNS for a name of ours, which takes seconds where there is none
        socketserver.TCPServer.server_bind(self)
