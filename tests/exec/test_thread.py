"""The process-wide set of threads, and a run's queue in front of it."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from mpflow._exec import thread
from mpflow._exec.mailbox import Mailbox
from mpflow._exec.thread import ThreadPlace, ThreadSet


class Late(ThreadSet):
    """A set whose threads are on their way until the test lets them come."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Any] = []

    def _make(self, bell: Any) -> None:
        self.late.append(bell)

    def come(self) -> None:
        bells, self.late = self.late, []
        for bell in bells:
            super()._make(bell)


def test_jobs_that_wait_for_each_other_run_side_by_side() -> None:
    threads = ThreadSet()
    barrier = threading.Barrier(4)
    for _ in range(3):
        threads.start(partial(barrier.wait, 20))
    barrier.wait(20)


def test_an_idle_thread_takes_the_next_job() -> None:
    threads = ThreadSet()
    names: list[str] = []
    for _ in range(20):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            names.append(threading.current_thread().name)
            done.set()

        threads.start(job)
        assert done.wait(20)
    assert len(set(names)) <= 2  # the one before may not lie down yet


def test_a_job_is_done_by_a_thread_that_is_on_its_way_for_one_that_was_withdrawn() -> None:
    threads = Late()
    first, second = threading.Event(), threading.Event()
    threads.start(first.set)
    assert threads.withdraw(first.set) and not threads.withdraw(first.set)
    threads.start(second.set)
    assert len(threads.late) == 1
    threads.come()
    assert second.wait(20) and not first.is_set()


def test_as_many_threads_come_as_jobs_wait() -> None:
    threads = Late()
    barrier = threading.Barrier(3)
    for _ in range(2):
        threads.start(partial(barrier.wait, 20))
    assert len(threads.late) == 2
    threads.come()
    barrier.wait(20)


def test_a_thread_that_cannot_be_made_is_not_waited_for() -> None:
    threads = Late()
    done = threading.Event()

    def refuse(bell: Any) -> None:
        raise RuntimeError("can't start new thread")

    threads._make = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="new thread"):
        threads.start(lambda: None)
    del threads._make
    threads.start(done.set)
    threads.come()
    assert done.wait(20)


def test_what_no_thread_has_begun_may_be_taken_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Late()
    monkeypatch.setattr(thread, "THREADS", threads)
    outbox = Mailbox()
    performed: list[Any] = []
    place: ThreadPlace[Any] = ThreadPlace(lambda work: performed.append(work) or (0, work, None, 0.0), 2)
    work = [SimpleNamespace(outbox=outbox, number=number) for number in range(3)]
    place.submit(work)
    assert place.take() is work[0] and place.take() is work[1] and place.take() is work[2]
    assert place.take() is None
    again = SimpleNamespace(outbox=outbox, number=3)
    place.submit([again])
    threads.come()
    assert outbox.wait(20) and outbox.take()[0][1] is again and performed == [again]
