"""What the tests of the process pool share: a node that is one function, and a run that drives attempts to their ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from mpflow._exec.mailbox import Mailbox
from mpflow._exec.process import WorkerPool
from mpflow._messages import CANCELLED, DONE, EVENT, FAILED, LOST, Attempt, StepFacts, one_by_one
from mpflow._scope import TAKEN, current

LIMIT_S = 30.0


class Node:
    """A program whose diff is what its function returns, on the channel "out"; ``with_scope`` functions get the scope too."""

    def __init__(self, function: Callable[..., Any], name: str = "node", with_scope: bool = False) -> None:
        self.function = function
        self.name = name
        self.with_scope = with_scope

    def run(self, input: Any, scope: Any) -> list[tuple[str, Any]]:
        current.set(scope)
        return [("out", self.function(input, scope) if self.with_scope else self.function(input))]


def facts_of(**config: Any) -> StepFacts:
    return StepFacts({"configurable": config}, 1, 25)


class Drive:
    """One run: submits attempts, waits for their outcomes, and re-runs the lost ones as the scheduler does."""

    def __init__(self, pool: WorkerPool, facts: StepFacts | None = None) -> None:
        self.pool = pool
        self.facts = facts or facts_of()
        self.mailbox = Mailbox()
        self.outcomes: list[tuple[int, Attempt, Any, float]] = []
        self.events: list[tuple[Attempt, str, Any]] = []
        self.lost: list[Any] = []

    def attempts(self, node: Node, inputs: Iterable[Any], **fields: Any) -> list[Attempt]:
        made = []
        for index, value in enumerate(inputs):
            attempt = Attempt(index, 1, node, value, self.facts, ("__pregel_push", index), ("go",))
            attempt.outbox = self.mailbox
            for name, field in fields.items():
                setattr(attempt, name, field)
            made.append(attempt)
        return made

    def submit(self, node: Node, inputs: Iterable[Any], **fields: Any) -> list[Attempt]:
        attempts = self.attempts(node, inputs, **fields)
        self.pool.submit(attempts)
        return attempts

    def wait(self, enough: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Poll until `enough`; fails the test when it takes too long."""
        deadline = time.monotonic() + limit_s
        while not enough():
            assert time.monotonic() < deadline, f"stuck with {len(self.outcomes)} outcomes: {self.pool.stats()}"
            self.pool.wait(self.mailbox, deadline - time.monotonic())
            self._take()

    def poll_until(self, true: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Poll until `true`, which is of the pool and not of our mailbox, so that it must be asked again and again."""
        deadline = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < deadline, self.pool.stats()
            self.pool.wait(self.mailbox, 0.005)
            self._take()

    def _take(self) -> None:
        for kind, attempt, payload, seconds in one_by_one(self.mailbox.take()):
            if kind == EVENT and payload[0] == TAKEN:
                payload[1](None)
            elif kind == EVENT:
                self.events.append((attempt, *payload))
            else:
                self.outcomes.append((kind, attempt, payload, seconds))

    def finish(self, count: int, limit_s: float = LIMIT_S) -> list[tuple[int, Attempt, Any, float]]:
        """Wait for `count` endings; each attempt may have ended but once."""
        self.wait(lambda: len(self.outcomes) >= count, limit_s)
        assert len({id(attempt) for _, attempt, _, _ in self.outcomes}) == len(self.outcomes) == count
        return self.outcomes

    def all(self, node: Node, inputs: Iterable[Any], limit_s: float = LIMIT_S, **fields: Any) -> list[tuple[int, Any]]:
        """Run `node` on all inputs: kind and payload of each, in the order of the inputs."""
        before = len(self.outcomes)
        attempts = self.submit(node, inputs, **fields)
        self.finish(before + len(attempts), limit_s)
        ended = {id(attempt): (kind, payload) for kind, attempt, payload, _ in self.outcomes[before:]}
        return [ended[id(attempt)] for attempt in attempts]

    def values(self, node: Node, inputs: Iterable[Any], **fields: Any) -> list[Any]:
        """The values that `node` returned, all of which must be DONE."""
        results = self.all(node, inputs, **fields)
        assert {kind for kind, _ in results} <= {DONE}, [payload for kind, payload in results if kind != DONE][:3]
        return [payload[0][1] for _, payload in results]

    def rerunning(self, node: Node, inputs: Iterable[Any], limit_s: float = LIMIT_S) -> dict[int, tuple[int, Any]]:
        """Run all, and the lost ones again, alone; a task lost three times stays LOST. By input index."""
        self.submit(node, inputs)
        ended: dict[int, tuple[int, Any]] = {}
        total = len(self.pool_inputs(inputs))

        def settle() -> bool:
            while self.outcomes:
                kind, attempt, payload, _ = self.outcomes.pop()
                if kind == LOST and attempt.number < 3:
                    self.lost.append(payload)
                    again = Attempt(
                        attempt.task,
                        attempt.number + 1,
                        node,
                        attempt.input,
                        self.facts,
                        attempt.path,
                        attempt.triggers,
                    )
                    again.outbox, again.alone = self.mailbox, True
                    self.pool.submit([again])
                else:
                    assert attempt.task not in ended, "a task has ended twice"
                    ended[attempt.task] = kind, payload
            return len(ended) >= total

        self.wait(settle, limit_s)
        return ended

    @staticmethod
    def pool_inputs(inputs: Any) -> Any:
        return inputs

    def running_pid(self, name: str = "node", limit_s: float = LIMIT_S) -> int:
        """The process id of a worker that runs a node of that name by now."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid, running in self.pool.stats()["running"].items() if running == name]
            return bool(found)

        self.poll_until(look, limit_s)
        return found[0]


def kinds(outcomes: Iterable[Any]) -> set[int]:
    return {outcome[0] for outcome in outcomes}


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be buried does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def wait_until(true: Callable[[], bool], limit_s: float) -> bool:
    """Whether `true` becomes so in time. For what no event tells: another process's descendants."""
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


__all__ = [
    "CANCELLED",
    "DONE",
    "FAILED",
    "LOST",
    "Drive",
    "Node",
    "die",
    "facts_of",
    "is_alive",
    "kinds",
    "one_by_one",
    "wait_until",
]
