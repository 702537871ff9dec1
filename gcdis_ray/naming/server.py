"""The local page of ``gcdis name --serve``.

It listens on 127.0.0.1 only. Its address has a random token, without which nothing is answered:
other users of the machine, and pages of other sites in the same browser, do not know it. Requests
by another host name are refused, since a name that somebody else owns can be pointed at 127.0.0.1.
Acts are accepted as JSON only, which no form of another site can send.

    GET  clusters?which=discovered&order=largest&find=&page=0     listing.page_of
    GET  crops?of=CROP&start=0                                    listing.crops_of
    GET  names?of=CROP                                            suggested names
    GET  crop/NUMBER.jpg                                          a picture
    GET  names.json                                               the log
    POST acts    {"seen": 3, "act": {"act": "merge", "crops": [12, 845]}}
    POST acts    {"seen": 3, "split": 12}                         the suggested split of its cluster

What is wrong is answered as ``{"error": {"what", "where", "fix"}}``: 400 for an act that cannot be,
409 for one about clusters that have changed since its page was loaded.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socket import SHUT_RD, socket
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from gcdis_ray.curating.acts import Act, Note, Split, read_act, to_line
from gcdis_ray.errors import ConfigError, CurationError, GcdisError
from gcdis_ray.naming.again import what_follows
from gcdis_ray.naming.clusters import Cluster
from gcdis_ray.naming.desk import Desk, Outdated, Standing, concerned
from gcdis_ray.naming.listing import Query, Suggest, crops_of, page_of

HOST = "127.0.0.1"
_MOST_BYTES = 16 << 20  # of a request: a split by hand of a million crops
_TIMEOUT_S = 30
_JSON, _JPEG = "application/json; charset=utf-8", "image/jpeg"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_STATIC = {
    "": ("gcdis_ray.naming", "page/naming.html", "text/html; charset=utf-8"),
    "icon.svg": ("gcdis_ray.naming", "page/icon.svg", "image/svg+xml"),
    "page.css": ("gcdis_ray.report", "page.css", "text/css; charset=utf-8"),
    "naming.css": ("gcdis_ray.naming", "page/naming.css", "text/css; charset=utf-8"),
    "naming.js": ("gcdis_ray.naming", "page/naming.js", "text/javascript; charset=utf-8"),
}


class Answer(NamedTuple):
    """To one request."""

    body: bytes
    kind: str = _JSON
    status: HTTPStatus = HTTPStatus.OK
    kept: bool = False  # by the browser: it never changes


class NamingServer(ThreadingHTTPServer):
    """Answers until :meth:`shutdown`.

    Args:
        port: 0: one that is free.
        namer: suggests names of a cluster; None: nobody does.

    Raises:
        ConfigError: the port cannot be had.
    """

    daemon_threads = False  # one that ends with the process may be in the middle of an act

    def __init__(self, desk: Desk, port: int = 0, namer: Suggest | None = None) -> None:
        self.desk, self.namer = desk, namer
        self.connections: set[socket] = set()
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            what = getattr(error, "strerror", None) or str(error)
            raise ConfigError(what, where=f"--port {port}", fix="choose another port") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def server_close(self) -> None:
        """Ends what is open, once it is answered."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(SHUT_RD)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One who has gone before he was answered is no mistake."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def answer(self, path: str, query: Mapping[str, str]) -> Answer | None:
        """To a GET; None if there is no such thing.

        Args:
            path: without the token.
        """
        if path in _STATIC:
            package, file, kind = _STATIC[path]
            return Answer(files(package).joinpath(file).read_bytes(), kind)
        if path.startswith("crop/") and path.endswith(".jpg"):
            jpeg = self.desk.pictures.jpeg(_number(path[len("crop/") : -len(".jpg")], "crop"))
            return Answer(jpeg, _JPEG, kept=True) if jpeg else None
        if path == "names.json":
            text = "".join(f"{to_line(act)}\n" for act in self.desk.look().acts)
            return Answer(text.encode())
        answers = {"clusters": self._clusters, "crops": self._crops, "names": self._names}
        return answers[path](query) if path in answers else None

    def take(self, body: Mapping[str, Any]) -> Answer:
        """Carry out what a page says."""
        if not {"act", "split"} & body.keys() or body.keys() - {"act", "split", "seen"}:
            raise CurationError("neither an act nor a split", where="request")
        seen = body.get("seen")
        if type(seen) is not int:
            raise CurationError("does not say what was seen", where="request")
        with self.desk.lock:
            before = self.desk.look()
            act = self._act(body, before, seen)
            after = self.desk.take([act], seen)
        crops = concerned(act)
        cluster = after.holding(crops[0]) if crops else None
        said = what_follows(self.desk.run, before.acts, after.acts)
        return _json({"said": said, "crop": cluster and cluster.crop})

    def _act(self, body: Mapping[str, Any], now: Standing, seen: int) -> Act:
        note = Note(at=datetime.now(UTC).isoformat(timespec="seconds"))
        if "split" in body:
            if seen != len(now.acts):
                raise Outdated(
                    "acts have come since, so nothing was split",
                    where="split",
                    fix="look at it again, then say so again",
                )
            cluster = _held(now, _number(str(body["split"]), "split"))
            return Split(tuple(self.desk.suggestion(cluster).crops_M.tolist()), note)
        plain = body["act"]
        plain = {**plain, "at": note.at} if isinstance(plain, dict) else plain
        return read_act(plain, "act")

    def _clusters(self, query: Mapping[str, str]) -> Answer:
        told = {name: query[name] for name in ("which", "order", "find") if name in query}
        asked: Any = Query(**told, page=_number(query.get("page", "0"), "page"))  # pyright: ignore[reportArgumentType]  it checks
        page = page_of(self.desk, self.desk.look(), asked)
        return _json(page | {"suggests_names": self.namer is not None})

    def _crops(self, query: Mapping[str, str]) -> Answer:
        cluster = _held(self.desk.look(), _number(query.get("of", ""), "of"))
        return _json(crops_of(self.desk, cluster, _number(query.get("start", "0"), "start")))

    def _names(self, query: Mapping[str, str]) -> Answer | None:
        if self.namer is None:
            return None
        cluster = _held(self.desk.look(), _number(query.get("of", ""), "of"))
        return _json({"names": self.namer(cluster)})


class _Handler(BaseHTTPRequestHandler):
    server: NamingServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S
    server_version, sys_version = "gcdis", ""

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(OSError):  # who asked may have gone
            super().finish()

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _get(self, path: str, query: str) -> Answer | None:
        return self.server.answer(path, dict(parse_qsl(query, keep_blank_values=True)))

    def _post(self, path: str, query: str) -> Answer | None:
        if path != "acts":
            return None
        if self.headers.get_content_type() != "application/json":
            return _wrong(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "acts are JSON")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            return _wrong(HTTPStatus.FORBIDDEN, "of another site")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return _wrong(HTTPStatus.LENGTH_REQUIRED, "a request says how long it is")
        if int(length) > _MOST_BYTES:
            return _wrong(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request has 16 MiB at most")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise CurationError("not JSON", where="request") from None
        if not isinstance(body, dict):
            raise CurationError("not an object", where="request")
        return self.server.take(body)

    def _respond(self, answering: Callable[[str, str], Answer | None]) -> None:
        self._send(self._answer(answering))

    def _answer(self, answering: Callable[[str, str], Answer | None]) -> Answer:
        if self.headers.get("Host") not in self.server.hosts:
            return _wrong(HTTPStatus.MISDIRECTED_REQUEST, "this is the page of another address")
        try:
            parts = urlsplit(self.path)
        except ValueError:
            return _wrong(HTTPStatus.NOT_FOUND, "no such page")
        token, _, path = parts.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            return _wrong(HTTPStatus.NOT_FOUND, "no such page")
        try:
            return answering(path, parts.query) or _wrong(HTTPStatus.NOT_FOUND, "no such page")
        except Outdated as error:
            return _said(HTTPStatus.CONFLICT, error)
        except GcdisError as error:
            return _said(HTTPStatus.BAD_REQUEST, error)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "private, max-age=86400" if answer.kept else "no-store")
        if answer.status >= HTTPStatus.BAD_REQUEST:  # what was sent may not have been read
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: lines would have the token in them."""


def _held(standing: Standing, crop: int) -> Cluster:
    """The cluster of a crop.

    Raises:
        CurationError: there is no such crop, or its cluster is rejected.
    """
    there = crop < len(standing.curated.cluster_N)
    cluster = standing.holding(crop) if there else None
    if cluster is None:
        what = "its cluster is rejected" if there else "there is no such crop"
        raise CurationError(what, where=f"crop {crop}", fix="look again")
    return cluster


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise CurationError("is no number of 0 or more", where=where)
    return int(text)


def _json(document: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(json.dumps(document).encode(), _JSON, status)


def _said(status: HTTPStatus, error: GcdisError) -> Answer:
    parts = {"what": error.what, "where": error.where, "fix": error.fix}
    return _json({"error": parts}, status)


def _wrong(status: HTTPStatus, what: str) -> Answer:
    return _said(status, GcdisError(what))
