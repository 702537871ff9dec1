"""A service that stands before another and fails when told to: busy answers and cut lines. Or it
behaves as some services do that know a part of the protocol."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
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
        self.lacks: dict[str, tuple[int, str]] = {}  # one of LACKS -> status and code of the answer
        self.ignores_conditions = False  # a PUT with If-None-Match writes over what is there
        self.after = 0  # requests that go well though it lacks what they ask for
        self.says: dict[int, int] = {}  # statuses -> what it says in their place
        self.requests: list[str] = []  # method and path with query
        self.url = ""


def _has(headers: Mapping[str, str], *starts: str) -> bool:
    return any(name.lower().startswith(starts) for name in headers)


LACKS = {  # what a request asks for
    "batch delete": lambda method, path, headers: method == "POST" and "?delete" in path,
    "conditional put": lambda method, path, headers: _has(headers, "if-none-match"),
    "checksums": lambda method, path, headers: _has(
        headers, "x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"
    ),
    "delete": lambda method, path, headers: method == "DELETE" or "?delete" in path,
    "put": lambda method, path, headers: method == "PUT",
    "list": lambda method, path, headers: "list-type=2" in path,
}


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
            headers = dict(self.headers)
            for wish, (status, code) in service.lacks.items():
                if LACKS[wish](self.command, self.path, headers):
                    service.after -= 1
                    if service.after >= 0:
                        continue
                    text = f"<Error><Code>{code}</Code><Message>no {wish}</Message></Error>"
                    return self._answer(status, {}, text.encode() if code else b"")
            if service.ignores_conditions:
                headers = {k: v for k, v in headers.items() if k.lower() != "if-none-match"}
            there = http.client.HTTPConnection(service.behind)
            there.request(self.command, self.path, body, headers)
            answer = there.getresponse()
            data = answer.read()
            cut = self.command == "GET" and service.cut > 0 and answer.status in (200, 206)
            service.cut -= cut
            status = service.says.get(answer.status, answer.status)
            self._answer(status, dict(answer.headers), data, cut=cut)
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
