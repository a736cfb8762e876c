import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from pipeline.face.bounded import MAX_CONNECTIONS, BoundedServer


class Handler(BaseHTTPRequestHandler):
    timeout = 60

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with BoundedServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server):
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_clients_that_say_nothing_keep_neither_threads_nor_others_out(server):
    before = threading.active_count()
    silent = [socket.create_connection(server.server_address) for _ in range(3 * MAX_CONNECTIONS)]
    for one in silent:
        one.settimeout(30)
    assert get(server) == b"ok"
    oldest, newest = silent[: 2 * MAX_CONNECTIONS], silent[-1]
    assert [one.recv(1) for one in oldest] == [b""] * len(oldest), "they were ended"
    assert threading.active_count() - before <= MAX_CONNECTIONS + len(silent) - len(oldest)
    newest.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert newest.recv(15) == b"HTTP/1.0 200 OK"
    for one in silent:
        one.close()


def test_a_client_that_goes_away_is_no_news(server, capsys, caplog):
    for _ in range(20):
        with socket.create_connection(server.server_address) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert get(server) == b"ok"
    assert capsys.readouterr().err == ""
    assert caplog.text == ""
