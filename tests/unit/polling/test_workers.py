from __future__ import annotations

import threading

import pytest

from esms_source.polling.workers import Crew


def test_as_many_threads_come_as_are_busy_at_once():
    """One stands in line while the others are at work, up to the size."""
    crew: Crew[int] = Crew(4, 10)
    all_busy = threading.Barrier(4)
    todo = iter(range(4))

    def work():
        with crew.in_line():
            number = next(todo, None)
        if number is not None:
            all_busy.wait(timeout=10)
            crew.put(number)

    crew.start(work)
    assert sorted(crew.results()) == [0, 1, 2, 3]


def test_nobody_comes_while_results_pile_up():
    """More hands are of no use to whoever reads more slowly than one works."""
    crew: Crew[str] = Crew(8, 100)
    for _ in range(20):
        crew.put("unread")
    names, done = set(), threading.Event()

    def work():
        for _ in range(10):
            with crew.in_line():
                names.add(threading.current_thread().name)
        done.set()

    crew.start(work)
    assert done.wait(timeout=10)
    assert list(crew.results()) == ["unread"] * 20
    assert len(names) == 1


def test_what_goes_wrong_in_a_thread_is_raised():
    """Where the results are awaited."""
    crew: Crew[int] = Crew(2, 10)

    def work():
        raise RuntimeError("broken")

    crew.start(work)
    with pytest.raises(RuntimeError, match="broken"):
        list(crew.results())
    crew.dismiss()


def test_a_dismissed_crew_ends_after_what_it_is_at():
    """Nobody takes what it brings, and nobody waits for room to put it."""
    crew: Crew[int] = Crew(3, 1)

    def work():
        while not crew.dismissed:
            with crew.in_line():
                crew.put(1)

    crew.start(work)
    assert next(crew.results()) == 1
    crew.dismiss()
    assert list(crew.results()) == []
