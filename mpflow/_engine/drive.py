"""The sync driver: performs the run loop's effects in the calling thread, which waits for threads and workers alike."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mpflow._core.protocol import CANCEL
from mpflow._engine.caching import CACHE, call_cache
from mpflow._engine.loop import CLOSE, EMIT, PAUSE, START, TELL, WAIT, run_loop
from mpflow._engine.places import INLINE, THREAD, Places
from mpflow._engine.saving import SAVER, call_saver, leave
from mpflow._exec.interrupts import Uninterrupted, pass_on
from mpflow._messages import CANCELLED, DONE, FAILED, Attempt, Outcome

if TYPE_CHECKING:
    from mpflow._engine.run import Run

QUICK_S = 0.001
"""A branch that takes longer than this is moved to a thread, so that it does not hold up the run."""


def drive(run: Run, input: Any) -> Iterator[Any]:
    """Run to the end, yielding the chunks of the run's streams. The result is then in ``run.result``.

    Abandoning the iterator, or an exception out of it such as KeyboardInterrupt, cancels what runs: workers are killed,
    threads are left to end by themselves.
    """
    places = Places(run, awaits=False)
    loop = run_loop(run, input)
    mailbox = run.mailbox
    perform = run.performer.perform
    queue = run.streams.queue
    saver = None if run.persistence is None else run.persistence.saver
    routes = places.routes
    scheduler = run.scheduler
    setting = run.setting
    helps = setting.helps
    alone_inline = not run.streams.wants_events and run.step_timeout_s is None
    if setting.lends and run.lends:
        run.local.lend = perform
    slow: dict[str, float] = {}
    reply: Any = None
    try:
        while True:
            try:
                effect = loop.send(reply)
            except StopIteration:
                return
            kind = effect[0]
            reply = None
            if kind is START:
                attempts: Sequence[Attempt] = effect[1]
                if len(attempts) == 1:
                    attempt = attempts[0]
                    node = attempt.task.node
                    route = routes[node] if node in routes else places.route(node)
                    if alone_inline and (
                        route is INLINE or (route is THREAD and scheduler.running == 1 and node not in routes.may_call)
                    ):
                        if places.director is None or places.director.keeps(attempt):
                            reply = (perform(attempt),)
                            if node.branches:
                                places.since = perf_counter()
                        else:
                            reply = ()
                    elif route is INLINE:
                        reply = perform_all(run, attempts)
                    else:
                        places.submit(route, attempts)
                        reply = ()
                else:
                    reply = _start(run, places, attempts)
            elif kind is SAVER:
                reply = call_saver(saver, effect[1], effect[2])
            elif kind is WAIT:
                if places.portions is not None:
                    places.portions.hand_out()
                if helps and not mailbox.items and (untaken := places.untaken()) is not None:
                    mailbox.post(perform(untaken))  # behind what it said
                elif not mailbox.items:
                    pool = places.pool
                    timeout_s = places.patience_s(effect[1]) if places.auto else effect[1]
                    if pool is None:
                        mailbox.wait(timeout_s)
                    else:
                        pool.wait(mailbox, timeout_s)
                reply = places.take()
            elif kind is PAUSE:
                time.sleep(effect[1])
            elif kind is CLOSE:
                reply = _close(run, places, effect[1], effect[2], slow)
            elif kind is CACHE:
                reply = call_cache(run, effect[1], effect[2])
            elif kind is TELL:
                run.performer.teller.tell(effect[1])  # type: ignore[union-attr]
            elif kind is EMIT:
                if places.director is not None:
                    places.director.settle()  # what a consumer does with a chunk takes nothing of the run
                while queue:
                    yield queue.popleft()
            elif kind is CANCEL:
                places.cancel(effect[1], kill=effect[2])
    finally:
        was_interrupted = abandon(run, places, loop)
        leave(run.persistence)
        if was_interrupted:
            pass_on()


def _start(run: Run, places: Places, attempts: Sequence[Attempt]) -> list[Outcome]:
    """Hand attempts to their places; those that run inline come last, when the others are on their way."""
    inline: Sequence[Attempt] = ()
    for route, group in places.grouped(attempts):
        if route is INLINE:
            inline = group
        else:
            places.submit(route, group)
    return perform_all(run, inline)


def perform_all(run: Run, attempts: Sequence[Attempt]) -> list[Outcome]:
    """Perform attempts here, one after the other. What ends more than a task, such as Ctrl-C, leaves the rest undone.

    What a task says while it runs waits in the mailbox, so its outcome must queue behind it there, as must one that is
    still to be closed.
    """
    outcomes: list[Outcome] = []
    is_open = False
    for position, attempt in enumerate(attempts):
        outcome = run.performer.perform(attempt)
        outcomes.append(outcome)
        if outcome[0] is DONE:
            is_open = True
        elif outcome[0] is FAILED and not isinstance(outcome[2], Exception):
            outcomes.extend((CANCELLED, rest, None, 0.0) for rest in attempts[position + 1 :])
            break
    if is_open or run.mailbox.items:
        run.mailbox.items.extend(outcomes)
        return []
    return outcomes


def _close(run: Run, places: Places, attempt: Attempt, diff: Any, slow: dict[str, float]) -> Outcome | None:
    """Ask the branches of a node that ran elsewhere: here, or in a thread once they have shown to take long (D-6)."""
    name = attempt.program.name
    performer = run.performer
    if slow.get(name, 0.0) < QUICK_S:
        started = perf_counter()
        outcome = performer.close_returned(attempt, diff)
        places.since = perf_counter()
        slow[name] = places.since - started
        return outcome
    from mpflow._exec.thread import THREADS

    THREADS.start(lambda: run.mailbox.post(performer.close_returned(attempt, diff)))
    return None


def abandon(run: Run, places: Places, loop: Generator[Any, Any, None]) -> bool:
    """End the run's loop and cancel whatever is still on its way, without waiting for it.

    A second Ctrl-C does not stop this in the middle, where workers are killed and the tasks of other runs move: whether
    one came, and must be passed on.
    """
    local = run.local
    local.over = True
    if local.calls:  # threads wait for these, and nobody will answer
        for future in tuple(local.calls):
            future.cancel()
    scheduler = run.scheduler
    if scheduler.running:
        with Uninterrupted() as ending:
            loop.close()
            places.cancel(scheduler.running_attempts(), kill=True)
            places.close()
        return ending.came
    loop.close()
    places.close()
    return False
