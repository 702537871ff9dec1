"""The local page's server: who is answered, what acts do, and how what is wrong is said."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from page_elements import Elements
from sorted_run import crops_of_class

from gcdis_ray.curating.acts import parse_log
from gcdis_ray.errors import ConfigError
from gcdis_ray.naming.desk import Desk
from gcdis_ray.naming.server import NamingServer
from gcdis_ray.run.opened import open_run

CIRCLES, SQUARES, MIXED, ROUND = (crops_of_class(k) for k in (2, 3, 4, 5))
JSON = {"Content-Type": "application/json"}


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def what(self) -> str:
        return self.json["error"]["what"]


class Client:
    """Sends requests, each on a connection of its own."""

    def __init__(self, server: NamingServer) -> None:
        self.port, self.token = server.server_port, server.token

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Any = (),
        token: Any = None,
    ) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        token = self.token if token is None else token
        connection.request(method, f"/{token}/{path}", body, dict(headers))
        answer = connection.getresponse()
        found = Answered(answer.status, dict(answer.headers), answer.read())
        connection.close()
        return found

    def get(self, path: str, **more: Any) -> Answered:
        return self.send("GET", path, **more)

    def say(self, **body: Any) -> Answered:
        return self.send("POST", "acts", json.dumps(body).encode(), JSON)

    def act(self, seen: int, word: str, **act: Any) -> Answered:
        return self.say(seen=seen, act={"act": word, **act})


@contextmanager
def serving(desk: Desk, **more: Any) -> Iterator[NamingServer]:
    with NamingServer(desk, **more) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    with serving(desk) as server:
        yield Client(server)


@pytest.fixture(scope="module")
def still(shapes_made: Path) -> Iterator[Client]:
    """For requests that change nothing."""
    with serving(Desk(open_run(str(shapes_made)))) as server:
        yield Client(server)
        assert server.desk.look().acts == ()


@pytest.mark.parametrize("path", ["", "naming.js", "clusters", "crop/2.jpg", "names.json"])
def test_nothing_is_answered_without_the_token(still: Client, path: str):
    assert still.get(path).status == 200
    for token in ("", "x", still.token[:-1], still.token + "x", "%C3%A9"):
        wrong = still.get(path, token=token)
        assert wrong.status == 404
        assert wrong.json == {"error": {"what": "no such page", "where": None, "fix": None}}


def test_acts_need_the_token(client: Client, desk: Desk):
    body = json.dumps({"seen": 0, "act": {"act": "reject", "crop": SQUARES[0]}}).encode()
    assert client.send("POST", "acts", body, JSON, token="x" * 32).status == 404
    assert desk.look().acts == ()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "[::1]:{port}"]
)
def test_another_host_name_is_refused(still: Client, host: str):
    """A name of somebody else's that points here would have his page read ours."""
    wrong = still.get("clusters", headers={"Host": host.format(port=still.port)})
    assert wrong.status == 421
    assert still.get("clusters", headers={"Host": f"localhost:{still.port}"}).status == 200


def test_only_json_of_this_page_is_an_act(client: Client, desk: Desk):
    body = json.dumps({"seen": 0, "act": {"act": "reject", "crop": SQUARES[0]}}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert client.send("POST", "acts", body, {"Content-Type": kind}).status == 415
    other = JSON | {"Origin": "http://evil.example"}
    assert client.send("POST", "acts", body, other).status == 403
    assert client.send("GET", "acts", body, JSON).status == 404
    assert client.send("PUT", "acts", body, JSON).status == 501
    assert client.send("POST", "clusters", body, JSON).status == 404
    assert client.send("POST", "acts", body, JSON | {"Content-Length": "x"}).status == 411
    assert client.send("POST", "acts", b"", JSON | {"Content-Length": "99999999"}).status == 413
    assert desk.look().acts == ()
    own = JSON | {"Origin": f"http://127.0.0.1:{client.port}"}
    assert client.send("POST", "acts", body, own).status == 200


def test_pages_may_load_from_here_alone_and_run_our_script_only(still: Client):
    for path in ("", "clusters", "crop/2.jpg", "nothing"):
        headers = still.get(path).headers
        rules = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert rules.pop("default-src") == "'none'"
        assert set(rules.values()) == {"'self'", "'none'"}
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_what_its_script_and_a_keyboard_need(still: Client):
    page = Elements(still.get("").body.decode())
    assert not page.misnested
    (script,) = page.of("script")
    assert script["src"] == "naming.js"
    outside = [a for _, a in page.found if any(k in a for k in ("style", "onclick", "srcset"))]
    assert not outside
    ids = {attributes.get("id") for _, attributes in page.found}
    text = files("gcdis_ray.naming").joinpath("page/naming.js").read_text()
    assert {name.split('"')[1] for name in text.split("$(")[1:] if name[0] == '"'} <= ids
    keys = " ".join(page.text)
    for key in ("J", "K", "N", "M", "Shift M", "S", "P", "A", "X", "U", "[", "]", "/", "?"):
        assert key in keys


def test_pictures_and_pages_are_served(still: Client):
    picture = still.get(f"crop/{CIRCLES[0]}.jpg")
    assert picture.body[:2] == b"\xff\xd8"
    assert "max-age" in picture.headers["Cache-Control"]
    assert still.get("clusters").headers["Cache-Control"] == "no-store"
    page = still.get("clusters?which=unnamed&order=number&find=&page=0").json
    assert [c["name"] for c in page["clusters"]] == [f"novel {k}" for k in (1, 2, 3, 4)]
    assert not page["suggests_names"]
    crops = still.get(f"crops?of={MIXED[0]}&start=20").json
    assert crops == {"crops": MIXED[20:], "total": 24}


@pytest.mark.parametrize(
    ("path", "status", "what"),
    [
        ("crop/9999.jpg", 404, "no such page"),
        ("crop/x.jpg", 400, "is no number"),
        ("crop/-1.jpg", 400, "is no number"),
        ("crop/../../names.json", 400, "is no number"),
        ("..%2Fpage.css", 404, "no such page"),
        ("clusters?order=color", 400, "is none of"),
        ("clusters?page=-1", 400, "is no number"),
        ("crops?of=9999", 400, "no such crop"),
        ("crops", 400, "is no number"),
        ("names?of=2", 404, "no such page"),
    ],
)
def test_what_is_not_there_is_said(still: Client, path: str, status: int, what: str):
    found = still.get(path)
    if path.endswith("names.json"):
        assert found.status == 404
        return
    assert found.status == status
    assert what in found.what


def test_acts_are_in_the_log_at_once(client: Client, desk: Desk):
    told = client.act(0, "name", crop=CIRCLES[4], name=" circle ").json
    assert told == {"said": "renamed: nothing to train", "crop": CIRCLES[0]}
    told = client.act(1, "merge", crops=[CIRCLES[0], ROUND[0]]).json
    assert told["said"].startswith("merged: ")
    told = client.act(2, "split", crops=MIXED[:3]).json
    assert told["crop"] == MIXED[0]
    assert client.act(3, "reject", crop=SQUARES[0]).json["crop"] is None
    log = client.get("names.json").body.decode()
    acts = parse_log(log, "log")
    assert [type(act).__name__ for act in acts] == ["Name", "Merge", "Split", "Reject"]
    assert all(act.note.at for act in acts)
    page = client.get("clusters?order=number").json
    assert [c["name"] for c in page["clusters"]] == ["circle", "novel 3", "novel 6"]
    assert client.act(4, "undo").json["crop"] is None
    assert client.get("clusters").json["undo"] == "split of 3 crops"


def test_a_suggested_split_is_taken(client: Client):
    assert client.say(seen=0, split=MIXED[0]).status == 200
    sizes = [c["size"] for c in client.get("clusters?order=number").json["clusters"]]
    assert sizes == [12, 12, 12, 8, 12]
    again = client.say(seen=1, split=MIXED[0])
    assert again.status == 400
    assert "does not clearly look like two" in again.what
    late = client.say(seen=0, split=MIXED[0])
    assert late.status == 409


@pytest.mark.parametrize(
    ("act", "what"),
    [
        ({"act": "name", "crop": CIRCLES[0], "name": ""}, "1 to 100 printable"),
        ({"act": "name", "crop": CIRCLES[0], "name": "x" * 101}, "1 to 100 printable"),
        ({"act": "name", "crop": CIRCLES[0], "name": "a\u0000b"}, "1 to 100 printable"),
        ({"act": "name", "crop": CIRCLES[0], "name": "\u202e"}, "1 to 100 printable"),
        ({"act": "name", "crop": CIRCLES[0], "name": "dog"}, "is another class's"),
        ({"act": "name", "crop": 9999, "name": "circle"}, "no crop 9999"),
        ({"act": "merge", "crops": [2, 10]}, "known classes"),
        ({"act": "merge", "crops": [2]}, "no list of 2 or more"),
        ({"act": "merge", "crops": 2}, "no list"),
        ({"act": "reject", "crop": True}, "no crop_index"),
        ({"act": "reject", "crop": 2}, "is a known class"),
        ({"act": "undo"}, "no act is left"),
        ({"act": "explode"}, "act is 'explode'"),
        ({"act": "undo", "by": 3}, "no text"),
        ("undo", "not an object"),
        (None, "not an object"),
    ],
)
def test_acts_that_cannot_be_are_named(still: Client, act: Any, what: str):
    found = still.say(seen=0, act=act)
    assert found.status == 400
    assert what in found.what


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"act": {}}', b'{"seen": "0", "act": {}}',
     b'{"seen": 0}', b'{"seen": 0, "split": -1}', b'{"seen": 0, "split": [1]}',
     b'{"seen": 0, "act": {"act": "undo"}, "more": 1}'],
)  # fmt: skip
def test_requests_that_are_none_are_named(still: Client, body: bytes):
    found = still.send("POST", "acts", body, JSON)
    assert found.status == 400
    assert found.what


def test_one_whose_page_is_old_is_told(client: Client):
    assert client.act(0, "name", crop=CIRCLES[0], name="circle").status == 200
    assert client.act(0, "merge", crops=[CIRCLES[0], ROUND[0]]).status == 200
    late = client.act(1, "reject", crop=ROUND[0])
    assert late.status == 409
    assert "somebody else has changed that" in late.what
    assert client.act(1, "undo").status == 409


def test_many_at_once_lose_nothing(client: Client):
    crops = [CIRCLES[0], SQUARES[0], MIXED[0], ROUND[0]]

    def name(turn: int) -> int:
        return client.act(0, "name", crop=crops[turn % 4], name=f"shape {turn}").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(name, range(24))) == {200}
    acts = parse_log(client.get("names.json").body.decode(), "log")
    assert len(acts) == 24


def test_names_are_suggested_where_somebody_does(desk: Desk):
    with serving(desk, namer=lambda cluster: [f"like {cluster.name}"]) as server:
        client = Client(server)
        assert client.get("clusters").json["suggests_names"]
        assert client.get(f"names?of={CIRCLES[0]}").json == {"names": ["like novel 1"]}


def test_a_port_in_use_is_named(desk: Desk):
    with serving(desk) as server:
        for port in (server.server_port, 99999):
            with pytest.raises(ConfigError, match=f"--port {port}"):
                NamingServer(desk, port)


def test_it_listens_on_this_machine_alone(desk: Desk):
    with NamingServer(desk) as server:
        assert server.server_address[0] == "127.0.0.1"
        parts = urlsplit(server.address)
        assert parts.hostname == "127.0.0.1"
        assert len(parts.path) > 30


def test_a_line_that_is_no_address_is_answered(still: Client):
    with socket.create_connection(("127.0.0.1", still.port), timeout=20) as line:
        host = f"Host: 127.0.0.1:{still.port}"
        line.sendall(f"GET http://[/{still.token}/ HTTP/1.1\r\n{host}\r\n\r\n".encode())
        assert b" 404 " in line.recv(100)


def test_a_connection_that_is_kept_open_does_not_hold_the_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gcdis_ray.naming.server._Handler.timeout", None)  # else it ends by itself
    with serving(desk) as server:
        line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        line.request("GET", f"/{server.token}/")
        line.getresponse().read()
        assert line.sock is not None
    assert line.sock.recv(1) == b""
