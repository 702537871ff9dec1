from __future__ import annotations

from gcdis_ray.training.history import History


def rows(history: History) -> list[tuple[int, str, float]]:
    return [tuple(row.values()) for row in history.table().to_pylist()]


def test_rows_are_means_over_windows_and_the_last_window_may_be_short():
    history = History(2)
    for step, value in enumerate([1.0, 3.0, 5.0, 8.0, 9.0], start=1):
        history.add(step, {"total": value}, last=step == 5)
    assert rows(history) == [(2, "total", 2.0), (4, "total", 6.5), (5, "total", 9.0)]


def test_restored_in_the_middle_of_a_window():
    whole, first, second = History(3), History(3), History(3)
    for step in range(1, 8):
        whole.add(step, {"a": step * 0.1, "b": 1.0}, last=step == 7)
        (first if step <= 4 else second).add(step, {"a": step * 0.1, "b": 1.0}, last=step == 7)
        if step == 4:
            second.load_state(first.state())
    assert rows(second) == rows(whole)


def test_empty_history_is_an_empty_table():
    assert History(1).table().num_rows == 0
