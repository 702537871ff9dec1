"""A service that stands before another and fails when told to: busy answers and cut lines."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class FlakyService:
    """Set the counters; every request of a kind uses one up."""

    def __init__(self, behind: str) -> None:
        self.behind = urlparse(behind).netloc
        self.busy = 0  # requests answered with 503
        self.cut = 0  # GETs cut in the middle of the body
        self.refuse_parts = False  # every uploaded part after the first: 500
        self.requests: list[str] = []  # method and path with query
        self.url = ""


@contextmanager
def flaky_service(behind: str) -> Iterator[FlakyService]:
    service = FlakyService(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service.requests.append(f"{self.command} {self.path}")
            if service.busy > 0:
                service.busy -= 1
                return self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            if service.refuse_parts and "partNumber=2" in self.path:
                return self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
            there = http.client.HTTPConnection(service.behind)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            data = answer.read()
            cut = self.command == "GET" and service.cut > 0 and answer.status in (200, 206)
            service.cut -= cut
            self._answer(answer.status, dict(answer.headers), data, cut=cut)
            there.close()

        def _answer(self, status: int, headers: dict, data: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length", str(len(data)))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            self.close_connection = cut

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

        def log_message(self, format: str, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
