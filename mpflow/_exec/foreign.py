"""Any ``concurrent.futures.Executor`` as a place to run: loky's own, Dask's, mpi4py's, the standard library's.

A thread pool is given the attempt as it is; any other executor is taken to run elsewhere and is given bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from copy import copy
from functools import partial
from time import perf_counter
from typing import Any

from mpflow._messages import CANCELLED, DONE, FAILED, Attempt, Outcome
from mpflow._scope import TaskScope


class ForeignPlace:
    """One executor of the user's, for one run. It is never shut down from here."""

    def __init__(self, executor: Any, perform: Callable[[Attempt], Outcome]) -> None:
        self._executor = executor
        self._perform = perform
        self._here = isinstance(executor, ThreadPoolExecutor)
        self._futures: dict[Attempt, Future[Any]] = {}
        self._programs: dict[Any, bytes] = {}

    def submit(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            try:
                future = self._send(attempt)
            except BaseException as error:
                _post(attempt, (FAILED, attempt, error, 0.0))
                if not isinstance(error, Exception):
                    raise
                continue
            self._futures[attempt] = future
            future.add_done_callback(partial(self._done, attempt))

    def _send(self, attempt: Attempt) -> Future[Any]:
        if self._here:
            future: Future[Any] = self._executor.submit(self._perform, attempt)
            return future
        from mpflow._exec.functions import pack

        program = self._programs.get(attempt.program)
        if program is None:
            program = self._programs[attempt.program] = pack(attempt.program)
        facts = copy(attempt.facts)  # without what is this process's own
        task = _encode((facts, attempt.path, tuple(attempt.triggers), attempt.number, attempt.input))
        return self._executor.submit(run_elsewhere, program, task)  # type: ignore[no-any-return]

    def _done(self, attempt: Attempt, future: Future[Any]) -> None:
        self._futures.pop(attempt, None)
        try:
            result = future.result()
        except CancelledError:
            outcome: Outcome = (CANCELLED, attempt, None, 0.0)
        except BaseException as error:
            outcome = (FAILED, attempt, error, 0.0)
        else:
            outcome = result if self._here else _decode_outcome(attempt, result)
        _post(attempt, outcome)

    def cancel(self, attempts: Sequence[Attempt], *, kill: bool = False) -> None:
        """Cancel the futures that have not started; an executor offers nothing for those that have."""
        for attempt in attempts:
            future = self._futures.get(attempt)
            if future is not None:
                future.cancel()


def _post(attempt: Attempt, outcome: Outcome) -> None:
    assert attempt.outbox is not None
    attempt.outbox.post(outcome)


def _encode(value: Any) -> bytes:
    from mpflow._wire.codec import Codec

    return Codec(trust=True).encode(value, path="task")


def _decode(data: bytes) -> Any:
    from mpflow._wire.codec import Codec

    return Codec(trust=True).decode(data)


def run_elsewhere(program: bytes, task: bytes) -> bytes:
    """What the executor's worker runs: decode, run the node, encode its diff or its exception."""
    import pickle
    from contextvars import copy_context

    from mpflow._wire.codec import encode_exception

    started = perf_counter()
    try:
        facts, path, triggers, number, input = _decode(task)
        node = pickle.loads(program)
        scope = TaskScope(facts, node.name, path, triggers, number, None, node.tags, node.metadata)
        diff = copy_context().run(node.run, input, scope)
        return _encode((True, diff, perf_counter() - started))
    except BaseException as error:
        return _encode((False, encode_exception(error), perf_counter() - started))


def _decode_outcome(attempt: Attempt, data: bytes) -> Outcome:
    from mpflow._wire.codec import decode_exception

    try:
        done, payload, seconds = _decode(data)
        if done:
            return DONE, attempt, [(name, value) for name, value in payload], seconds
        return FAILED, attempt, decode_exception(payload), seconds
    except Exception as error:
        return FAILED, attempt, error, 0.0
