"""The async driver: the effects of the same run loop, performed on the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mpflow._core.protocol import CANCEL
from mpflow._engine.caching import CACHE, acall_cache
from mpflow._engine.drive import abandon, perform_all
from mpflow._engine.loop import CLOSE, EMIT, PAUSE, START, TELL, WAIT, run_loop
from mpflow._engine.places import INLINE, LOOP, Places
from mpflow._engine.saving import SAVER, acall_saver, aleave, leave
from mpflow._exec.aio import LoopBell, LoopPlace, unwatch, watch
from mpflow._exec.interrupts import pass_on
from mpflow._exec.patience import Patience

if TYPE_CHECKING:
    from mpflow._engine.run import Run


async def adrive(run: Run, input: Any) -> AsyncIterator[Any]:
    """As `drive`, on the event loop: async nodes are its tasks, sync ones run in threads (AS-1).

    Cancelling it, or closing it early, cancels the async nodes and waits for them (AS-5).
    """
    places = Places(run, awaits=True)
    loop = run_loop(run, input)
    mailbox = run.mailbox
    performer = run.performer
    performer.awaits = True
    queue = run.streams.queue
    saver = None if run.persistence is None else run.persistence.saver
    bell = LoopBell(mailbox)
    run.local.loop = bell.loop
    tasks = LoopPlace(performer.aperform, performer.context, bell)
    watched = None
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
                reply = ()
                for route, group in places.grouped(effect[1]):
                    if route is LOOP or (route is INLINE and performer.teller is not None):  # handlers are awaited
                        for attempt in group:
                            attempt.outbox = mailbox
                            if (timeout := attempt.task.node.timeout) is not None:
                                attempt.patience = Patience(timeout)
                        tasks.submit(group)
                    elif route is INLINE:
                        reply = perform_all(run, group)
                        places.since = perf_counter()
                    else:
                        places.submit(route, group)
            elif kind is WAIT:
                if places.portions is not None:
                    places.portions.hand_out()
                if places.pool is not None and watched is None:
                    watched = places.pool
                    watch(watched)
                if not mailbox.items:
                    await bell.wait(places.patience_s(effect[1]) if places.auto else effect[1])
                reply = places.take()
            elif kind is PAUSE:
                await asyncio.sleep(effect[1])
            elif kind is CLOSE:
                attempt, diff = effect[1], effect[2]
                attempt.outbox = mailbox
                tasks.start(attempt, partial(performer.aclose_returned, diff=diff))
            elif kind is SAVER:
                reply = await acall_saver(saver, effect[1], effect[2])
            elif kind is CACHE:
                reply = await acall_cache(run, effect[1], effect[2])
            elif kind is TELL:
                await performer.teller.atell(effect[1])  # type: ignore[union-attr]
            elif kind is EMIT:
                if places.director is not None:
                    places.director.settle()  # as in the sync driver
                while queue:
                    yield queue.popleft()
            elif kind is CANCEL:
                places.cancel(effect[1], kill=effect[2])
                tasks.cancel(effect[1])
    finally:
        was_interrupted = abandon(run, places, loop)
        mailbox.notify = None
        if bell.loop.is_closed():  # by a second Ctrl-C, which cut asyncio's own ending short: nothing can be awaited
            leave(run.persistence)
        else:
            tasks.cancel(run.scheduler.running_attempts())
            await tasks.join()
            if watched is not None:
                unwatch(watched)
            await aleave(run.persistence)
        if was_interrupted:
            pass_on()
