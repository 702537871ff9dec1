"""A log of acts: what a line may hold, what still stands, and what of it is in a key."""

import json
from itertools import permutations

import pytest

from gcdis_ray.curating.acts import (
    Merge,
    Name,
    Note,
    Reject,
    Split,
    Undo,
    canonical,
    moves,
    parse_log,
    standing,
    to_line,
    told,
)
from gcdis_ray.errors import CurationError

ACTS = [Name(12, "Zébra"), Merge((12, 845)), Split((7, 9, 31)), Reject(12), Undo()]


def test_an_act_is_a_line_and_back():
    text = "".join(f"{to_line(act)}\n\n" for act in ACTS)
    assert parse_log(text, "log") == ACTS
    assert json.loads(to_line(ACTS[1])) == {"act": "merge", "crops": [12, 845]}


def test_notes_are_kept_and_change_nothing():
    line = '{"act": "reject", "crop": 3, "at": "2031-01-01T00:00:00Z", "by": "Ann"}'
    (act,) = parse_log(line, "log")
    assert act == Reject(3)
    assert act.note == Note("log, line 1", "2031-01-01T00:00:00Z", "Ann")
    assert json.loads(to_line(act)) == json.loads(line)


def test_a_name_is_told_without_blanks_and_composed():
    assert parse_log('{"act": "name", "crop": 1, "name": " Ze\u0301bra\\t"}', "log") == [
        Name(1, "Z\u00e9bra")
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"act": "undo", "act": "undo"}', "a key occurs twice"),
        ("[]", "not an object"),
        ('{"act": "rename"}', "act is 'rename', not one of name, merge"),
        ('{"act": ["name"]}', "act is"),
        ('{"act": "reject"}', "reject without 'crop'"),
        ('{"act": "reject", "crop": 1, "crops": [1]}', "reject with 'crops'"),
        ('{"act": "reject", "crop": true}', "True is no crop_index"),
        ('{"act": "reject", "crop": -1}', "-1 is no crop_index"),
        ('{"act": "reject", "crop": 1.0}', "1.0 is no crop_index"),
        ('{"act": "reject", "crop": 9223372036854775808}', "is no crop_index"),
        ('{"act": "merge", "crops": [1]}', "crops is no list of 2 or more"),
        ('{"act": "merge", "crops": [1, 1]}', "a crop is listed twice"),
        ('{"act": "split", "crops": []}', "crops is no list of 1 or more"),
        ('{"act": "split", "crops": 3}', "crops is no list"),
        ('{"act": "name", "crop": 1, "name": " "}', "a name has 1 to 100 printable"),
        ('{"act": "name", "crop": 1, "name": "a\\nb"}', "a name has 1 to 100 printable"),
        ('{"act": "name", "crop": 1, "name": 3}', "name is no text"),
        ('{"act": "name", "crop": 1, "name": "\\ud800"}', "name is no text"),
        ('{"act": "undo", "by": 3}', "'by' is no text"),
    ],
)
def test_a_broken_line_is_named_with_its_number(line, what):
    with pytest.raises(CurationError) as error:
        parse_log(f'{{"act": "undo"}}\n{line}\n', "some/log.json")
    assert error.value.where == "some/log.json, line 2"
    assert what in error.value.what
    assert len(str(error.value)) < 500


def test_an_undo_takes_back_the_last_act_that_stands():
    first, second, third = Name(1, "a"), Reject(2), Merge((3, 4))
    assert standing([first, second, Undo(), third, Undo(), Undo()]) == []
    assert standing([first, second, Undo(), third]) == [first, third]


def test_an_undo_of_nothing_is_named():
    with pytest.raises(CurationError, match="line 3: undo, and no act is left"):
        standing(parse_log('{"act": "reject", "crop": 1}\n{"act": "undo"}\n{"act": "undo"}', "log"))


def test_names_move_nothing():
    assert moves([Name(1, "a"), Merge((1, 2)), Name(1, "b"), Undo()]) == [Merge((1, 2))]


def test_the_order_of_independent_acts_is_in_no_key():
    for run in (
        [Merge((5, 1)), Merge((9, 7)), Merge((3, 8)), Merge((8, 9))],
        [Split((5, 1)), Split((9, 7)), Split((3,))],
        [Reject(4), Reject(2), Reject(9)],
    ):
        keys = {json.dumps(canonical(list(order))) for order in permutations(run)}
        assert len(keys) == 1
    assert canonical([Merge((5, 1)), Merge((7, 5))]) == [{"act": "merge", "crops": [1, 5, 7]}]


def test_the_order_of_acts_that_depend_on_each_other_is():
    assert canonical([Split((1, 2)), Split((2,))]) != canonical([Split((2,)), Split((1, 2))])
    assert canonical([Merge((1, 2)), Reject(1)]) != canonical([Reject(1), Merge((1, 2))])


def test_what_was_decided_in_words():
    acts = [Name(1, "a"), Name(2, "b"), Merge((3, 4)), Reject(9), Split((5,)), Undo()]
    assert told(acts) == "2 named, 1 merge, 1 rejected"
    assert told([]) == ""
