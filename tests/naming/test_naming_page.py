"""The local page in a browser, with keys alone. What it does has to be in the log at once, and has
to be there again after a reload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Thread

import pytest
from browser import Browser, Page, browser, program
from sorted_run import crops_of_class

from gcdis_ray.curating.acts import Merge, Name, Reject, Split, Undo
from gcdis_ray.naming.desk import Desk
from gcdis_ray.naming.server import NamingServer

pytestmark = pytest.mark.thorough

CIRCLES, SQUARES, MIXED, ROUND = (crops_of_class(k) for k in (2, 3, 4, 5))
CARDS = "[...document.querySelectorAll('.card')]"
TITLES = f"{CARDS}.map(card => card.querySelector('h3').textContent)"
FOCUSED = "(document.activeElement.closest('.card')||{dataset:{}}).dataset.crop"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program()
    with browser() as found:
        yield found


@pytest.fixture
def address(desk: Desk) -> Iterator[str]:
    with NamingServer(desk, namer=lambda cluster: ["zebra", "horse"]) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.address
        server.shutdown()
        thread.join()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    found = opened(chromium, address)
    chromium.complaints.clear()
    yield found
    assert chromium.complaints == []


def opened(chromium: Browser, address: str) -> Page:
    page = chromium.open(address)
    page.wait(f"{CARDS}.length")
    return page


def is_titled(page: Page, *titles: str) -> None:
    page.wait(f"JSON.stringify({TITLES}) === JSON.stringify({json.dumps(titles)})")


def test_keys_alone_name_merge_split_reject_and_undo(page: Page, desk: Desk):
    is_titled(page, "novel 3", "novel 1", "novel 2", "novel 4")
    page.press("j")
    assert page.value(FOCUSED) == str(MIXED[0])
    page.press("s")  # as suggested
    is_titled(page, "novel 1", "novel 2", "novel 3", "novel 6", "novel 4")
    page.wait(f"{FOCUSED} === '{MIXED[0]}' || {FOCUSED} === '{MIXED[12]}'")
    page.press("k", "k", "k", "k")
    assert page.value(FOCUSED) == str(CIRCLES[0])
    page.press("n")
    page.type("circle & <b>")
    page.press("Enter")
    page.wait(f"{TITLES}[0] === 'circle & <b>'")
    assert page.value(FOCUSED) == str(CIRCLES[0])
    page.press("m", "j", "j", "j", "j", "m")
    assert page.text("#marks") == "circle & <b>novel 4"
    page.press("Shift+M")
    is_titled(page, "circle & <b>", "novel 2", "novel 3", "novel 6")
    page.press("j", "x")
    is_titled(page, "circle & <b>", "novel 3", "novel 6")
    page.wait("document.querySelector('#said').textContent.startsWith('rejected: ')")
    assert "label, segment" in page.text("#said")
    page.press("u")
    is_titled(page, "circle & <b>", "novel 2", "novel 3", "novel 6")
    kinds = [Split, Name, Merge, Reject, Undo]
    assert [type(act) for act in desk.look().acts] == kinds
    page.reload()
    is_titled(page, "circle & <b>", "novel 2", "novel 3", "novel 6")
    assert page.text("#undo").strip() == "U Undo merge of 2 clusters"


def test_picked_crops_are_split_out(page: Page, desk: Desk):
    page.press("j", "j", "n", "Escape")
    assert page.value(FOCUSED) == str(CIRCLES[0])
    page.value(f"document.querySelector('[data-pick=\"{CIRCLES[2]}\"]').focus()")
    page.press(" ", "Tab", " ")
    assert page.value("document.activeElement.dataset.pick") == str(CIRCLES[3])
    assert "Split out 2 picked" in page.text("main")
    page.press("p")
    page.wait(f"{TITLES}.includes('novel 6')")
    (act,) = desk.look().acts
    assert act == Split((CIRCLES[2], CIRCLES[3]))


def test_more_crops_are_shown_as_they_are_asked_for(page: Page):
    page.press("j", "a")
    page.wait(f"document.querySelectorAll('.card:first-child [data-pick]').length === {len(MIXED)}")
    assert page.value(FOCUSED) == str(MIXED[0])
    page.wait("[...document.images].slice(0, 8).every(image => image.naturalWidth > 0)")


def test_what_is_shown_is_in_the_address(page: Page):
    page.press("/")
    page.type("novel 4")
    is_titled(page, "novel 4")
    page.reload()
    is_titled(page, "novel 4")
    assert page.value("document.querySelector('#find').value") == "novel 4"


def test_suggested_names_are_taken_by_a_button(page: Page, desk: Desk):
    page.wait("document.querySelectorAll('.suggested button').length === 8")
    page.value("document.querySelector('.suggested button').focus()")
    page.press("Enter")
    page.wait(f"{TITLES}[0] === 'zebra'")
    assert desk.look().acts == (Name(MIXED[0], "zebra"),)


def test_two_pages_lose_nothing(chromium: Browser, address: str, desk: Desk):
    first, second = opened(chromium, address), opened(chromium, address)
    first.press("j", "x")
    first.wait(f"{CARDS}.length === 3")
    second.press("j", "x")  # what the other has rejected
    second.wait("!document.querySelector('#problem').hidden")
    assert "somebody else has changed that" in second.text("#problem")
    is_titled(second, "novel 1", "novel 2", "novel 4")
    second.press("n")
    second.type("circle")
    second.press("Enter")
    second.wait(f"{TITLES}[0] === 'circle'")
    assert [type(act) for act in desk.look().acts] == [Reject, Name]
    first.press("u")  # would take back what it has not seen
    first.wait("!document.querySelector('#problem').hidden")
    is_titled(first, "circle", "novel 2", "novel 4")


def test_a_name_that_is_taken_is_told(page: Page, chromium: Browser, desk: Desk):
    page.press("j", "n")
    page.type("DOG")
    page.press("Enter")
    page.wait("!document.querySelector('#problem').hidden")
    assert "is another class's" in page.text("#problem")
    assert desk.look().acts == ()
    page.press("Escape")
    page.wait("document.querySelector('#problem').hidden")
    chromium.complaints.clear()  # of the answer's status


def test_the_list_of_keys_is_opened_and_closed_by_keys(page: Page):
    page.press("?")
    page.wait("document.querySelector('#keys').open")
    page.press("j", "x")  # nothing happens behind it
    page.press("Escape")
    page.wait("!document.querySelector('#keys').open")
    assert page.value(f"{CARDS}.length") == 4
