"""A real receiver of webhooks, which takes what it wants to take."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """`answers` says for the n-th request: a status, or what else to do: hang, drop, redirect."""

    def __init__(self, answers=lambda n: 204):
        self.answers, self.asked = answers, 0
        self.ids, self.bodies, self.headers = [], [], []  # of what it took, in order
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/alarms"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def distinct(self):
        """Ids in the order in which they came first."""
        return list(dict.fromkeys(self.ids))

    def _handler(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.asked += 1
                answer = receiver.answers(receiver.asked - 1)
                if answer == "hang":
                    receiver.over.wait()
                    return
                if answer == "drop":  # it has it, and nobody learns that
                    receiver.take(self.headers, body)
                    self.close_connection = True
                    return
                if answer == "redirect":
                    self.send_response(302)
                    self.send_header("location", "http://127.0.0.1:9/elsewhere?token=abc")
                else:
                    if 200 <= answer < 300:
                        receiver.take(self.headers, body)
                    self.send_response(answer)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        return Handler

    def take(self, headers, body):
        self.headers.append(dict(headers.items()))
        self.bodies.append(body)
        self.ids.append(json.loads(body)["id"])
        assert self.ids[-1] == headers["webhook-id"]
