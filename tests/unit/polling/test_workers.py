from __future__ import annotations

import threading

import pytest

from esms_source.polling.workers import WorkerPool


def test_as_many_threads_come_as_are_busy_at_once():
    """One stands in line while the others are at work, up to the size."""
    pool: WorkerPool[int] = WorkerPool(4, 10)
    all_busy = threading.Barrier(4)
    todo = iter(range(4))

    def work():
        with pool.in_line():
            number = next(todo, None)
        if number is not None:
            all_busy.wait(timeout=10)
            pool.put(number)

    pool.start(work)
    assert sorted(pool.results()) == [0, 1, 2, 3]


def test_nobody_comes_while_results_pile_up():
    """More hands are of no use to whoever reads more slowly than one works."""
    pool: WorkerPool[str] = WorkerPool(8, 100)
    for _ in range(20):
        pool.put("unread")
    names, done = set(), threading.Event()

    def work():
        for _ in range(10):
            with pool.in_line():
                names.add(threading.current_thread().name)
        done.set()

    pool.start(work)
    assert done.wait(timeout=10)
    assert list(pool.results()) == ["unread"] * 20
    assert len(names) == 1


def test_what_goes_wrong_in_a_thread_is_raised():
    """Where the results are awaited."""
    pool: WorkerPool[int] = WorkerPool(2, 10)

    def work():
        raise RuntimeError("broken")

    pool.start(work)
    with pytest.raises(RuntimeError, match="broken"):
        list(pool.results())
    list(pool.dismiss())


def test_a_dismissed_crew_ends_after_what_it_is_at():
    """Nobody takes what it brings, and nobody waits for room to put it."""
    pool: WorkerPool[int] = WorkerPool(3, 1)

    def work():
        while not pool.dismissed:
            with pool.in_line():
                pool.put(1)

    pool.start(work)
    assert next(pool.results()) == 1
    list(pool.dismiss())
    assert list(pool.results()) == []
