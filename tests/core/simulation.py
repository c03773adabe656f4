"""A world without threads or processes: random plans, tasks whose diffs are a function of what they are given, and a
pool that answers in any order, loses, repeats and delays.

`play` drives a real `Scheduler` and checks its invariants after every stimulus. Two plays of one world differ only in
what happened on the way, so their traces must be equal.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from mpflow._columns import Piece, Span, singly
from mpflow._core.plan import NodePlan, Plan
from mpflow._core.protocol import (
    ADVANCE,
    BEGIN,
    BETWEEN,
    BROKEN,
    CANCEL,
    DISPATCH,
    DUE,
    ENDED_TASK,
    MERGED,
    OVER,
    RETRY,
    STOP,
)
from mpflow._core.scheduler import Scheduler
from mpflow._core.state import ChannelState
from mpflow._core.task import FINISHED, Task
from mpflow._messages import CANCELLED, CLOSED, CLOSED_MANY, FAILED, LOST, Attempt, StepFacts, WorkerDeath
from mpflow._names import BRANCH_TO, PUSH, TASKS
from mpflow._sends import SendIterator
from mpflow.channels import (
    AnyValue,
    BinaryOperatorAggregate,
    EphemeralValue,
    LastValue,
    LastValueAfterFinish,
    NamedBarrierValue,
    NamedBarrierValueAfterFinish,
    Topic,
)
from mpflow.constants import START
from mpflow.types import RetryPolicy, Send
from tests.core.invariants import invariants

MAX_STEPS = 7


class Transient(Exception):
    """A failure that the retry policy covers."""


class Fatal(Exception):
    """A failure that nothing covers."""


@dataclass
class World:
    plan: Plan
    salt: str
    limit: int | None
    fatal: float = 0.0
    lazy: bool = False
    """The sends of a task are made while they run."""
    columns: bool = False
    """Many sends that are alike need not have a task each."""
    sent_to: str = ""
    """Where all sends go, and they are many."""

    def diff(self, task: Task, step: int) -> list[tuple[str, Any]]:
        """What the task returns: the same for the same step, path and input, whoever runs it and however often."""
        dice = Random(f"{self.salt}|{step}|{task.path}|{sorted_repr(task.input)}")
        if dice.random() < self.fatal:
            raise Fatal(task.name)
        if task.name == START:
            return [("log", [f"input {task.input}"]), *task.node.writes]
        writes: list[tuple[str, Any]] = [("log", [f"{task.name}{task.path[1:]}@{step}"])]
        if dice.random() < 0.5 and not (self.sent_to and task.path[0] == PUSH):  # which takes one write a step
            writes.append((f"own_{task.name}", dice.random()))
        for key in ("any", "topic", "passing"):
            if dice.random() < 0.2:
                writes.append((key, f"{task.name}@{step}"))
        if dice.random() < 0.7:
            writes += task.node.writes
        names = [name for name in self.plan.nodes if name != START]
        if dice.random() < 0.3:
            writes.append((BRANCH_TO + dice.choice(names), None))
        if self.sent_to and step < 4 and task.path[0] != PUSH:
            writes += [(TASKS, Send(self.sent_to, {"sent": dice.randrange(9)})) for _ in range(dice.randrange(40))]
        while not self.sent_to and dice.random() < 0.3:
            writes.append((TASKS, Send(dice.choice(names), {"sent": dice.randrange(9)})))
        sends = [packet for name, packet in writes if name == TASKS]
        if self.lazy and sends:
            writes = [(name, value) for name, value in writes if name != TASKS]
            writes.append((TASKS, SendIterator(iter(sends))))
        return writes


def sorted_repr(value: Any) -> str:
    return repr(sorted(value.items())) if isinstance(value, dict) else repr(value)


def make_world(dice: Random, *, fatal: float = 0.0) -> World:
    names = list("abcdef"[: dice.randint(1, 6)])
    channels: dict[str, Any] = {
        TASKS: Topic(Send),
        START: EphemeralValue(dict),
        "log": BinaryOperatorAggregate(list, operator.add),
        "any": AnyValue(str),
        "topic": Topic(str, accumulate=dice.random() < 0.5),
        "passing": EphemeralValue(str, guard=False),
    }
    policy = RetryPolicy(max_attempts=3, jitter=False, retry_on=Transient)
    entry = [(BRANCH_TO + dice.choice(names), None)]
    nodes = {START: NodePlan(START, None, [START], START, writes=entry, retry=[policy], hidden=True)}
    for name in names:
        deferred = dice.random() < 0.2
        channels[f"own_{name}"] = LastValue(float)
        channels[BRANCH_TO + name] = LastValueAfterFinish(Any) if deferred else EphemeralValue(Any, guard=False)
        nodes[name] = NodePlan(
            name,
            None,
            [BRANCH_TO + name],
            ("log", "any", "topic", "passing", *(f"own_{name}" for name in names)),
            retry=[policy],
            max_concurrency=dice.choice((None, None, 1, 2)),
            defer=deferred,
        )
    for source in names:
        for target in names:
            if dice.random() < 0.3:
                nodes[source].writes.append((BRANCH_TO + target, None))
    if len(names) > 2 and dice.random() < 0.5:
        *sources, target = dice.sample(names, 3)
        barrier = f"join:{'+'.join(sources)}:{target}"
        kind = NamedBarrierValueAfterFinish if nodes[target].defer else NamedBarrierValue
        channels[barrier] = kind(str, set(sources))
        nodes[target].triggers += (barrier,)
        for source in sources:
            nodes[source].writes.append((barrier, source))
    for key, channel in channels.items():
        channel.key = key
    output = ("log", "any", "topic", "passing")
    plan = Plan("world", nodes, channels, input=START, output=output, stream=output)
    return World(plan, str(dice.random()), dice.choice((None, None, 1, 2, 5)), fatal)


@dataclass
class Trace:
    """What a run came to: it must not depend on the order in which tasks ended nor on how often they ran."""

    steps: list[tuple[Any, ...]] = field(default_factory=list)
    updates: list[tuple[Any, ...]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    end: str = ""


def play(world: World, dice: Random | None = None, *, stop: bool = False, counted: bool = True) -> Trace:
    """Run a world to its end: in path order and undisturbed, or as `dice` has it; with `stop` given up on the way."""
    return _Play(world, dice, stop, counted).run()


class _Play:
    def __init__(self, world: World, dice: Random | None, stop: bool, counted: bool) -> None:
        self.world = world
        self.dice = dice
        self.state = ChannelState(world.plan, counted=counted)
        self.scheduler = Scheduler(
            world.plan,
            self.state,
            recursion_limit=MAX_STEPS,
            max_concurrency=world.limit,
            warn=lambda text: None,
            tells_ends=not world.columns,
            keeps_columns=lambda node: True,
            goes_on=world.columns,
        )
        self.trace = Trace()
        self.flying: list[Piece] = []
        self.timers: list[Task] = []
        self.past: list[Attempt] = []
        self.past_spans: list[Span] = []
        self.echoes = 30
        self.ended: list[Task] = []
        self.told: list[tuple[Any, ...]] = []
        self.stop_after = dice.randrange(40) if dice is not None and stop else None

    def run(self) -> Trace:
        self.feed((BEGIN, [(START, {"log": 1})], []))
        while not self.trace.end:
            if self.stop_after == 0:
                self.stop_after = None
                self.feed((STOP, KeyboardInterrupt("stop"), True))
            elif self.scheduler.phase is BETWEEN:
                self.feed((ADVANCE, StepFacts({}, self.scheduler.step, self.scheduler.stop), None))
            else:
                self.feed(self.next_stimulus())
            if self.stop_after is not None:
                self.stop_after -= 1
        assert not self.scheduler.running, "the run is over, but something runs"
        if self.past and self.dice is not None:  # what arrives late changes nothing
            assert self.scheduler.handle((CLOSED, self.dice.choice(self.past), [("log", ["late"])], 0.0)) == []
        self.trace.values = {name: value for name, value in self.state.values.items() if name != TASKS}
        self.trace.versions = dict(self.state.versions)
        return self.trace

    def next_stimulus(self) -> tuple[Any, ...]:
        dice = self.dice
        if dice is None:
            piece = self.flying.pop(0)
            return self.whole(piece) if isinstance(piece, Span) else self.outcome(piece)
        if self.past_spans and self.echoes and dice.random() < 0.15:
            self.echoes -= 1
            span = dice.choice(self.past_spans)
            return CLOSED_MANY, span, [[("log", ["stale"])]] * len(span), 0.0
        if self.past and self.echoes and dice.random() < 0.15:
            self.echoes -= 1
            kind = dice.choice((CLOSED, FAILED, LOST, CANCELLED))
            payload = {CLOSED: [("log", ["stale"])], FAILED: Fatal("stale")}.get(kind)
            return kind, dice.choice(self.past), payload, 0.0
        if self.timers and (not self.flying or dice.random() < 0.3):
            return DUE, self.timers.pop(dice.randrange(len(self.timers)))
        piece = self.flying.pop(dice.randrange(len(self.flying)))
        if isinstance(piece, Span):
            if dice.random() < 0.9:
                part = piece.take(dice.randint(1, len(piece)))
                if piece:
                    self.flying.append(piece)
                return self.whole(part)
            self.flying += list(piece)
            piece = self.flying.pop(dice.randrange(len(self.flying)))
        attempt = piece
        self.past.append(attempt)
        task = attempt.task
        luck = dice.random()
        if luck < 0.2 and task.failures < 2:
            return FAILED, attempt, Transient(), dice.random()
        if luck < 0.35 and len(task.deaths) < 2:
            return LOST, attempt, WorkerDeath(1, signal=9), 0.0
        if luck > 0.7:
            others = [other for other in self.flying if isinstance(other, Attempt) and dice.random() < 0.5]
            return self.many([attempt, *others])
        return self.outcome(attempt)

    def whole(self, span: Span) -> tuple[Any, ...]:
        """All of a span have finished, unless one of them fails for good."""
        outcomes = [self.outcome(attempt) for attempt in span]
        for at, outcome in enumerate(outcomes):
            if outcome[0] != CLOSED:
                self.flying += [*span[:at], *span[at + 1 :]]
                return outcome
        self.past_spans.append(span)
        return CLOSED_MANY, span, [outcome[2] for outcome in outcomes], 0.0

    def many(self, attempts: list[Attempt]) -> tuple[Any, ...]:
        """The outcome of several that are told of at once, and among them, perhaps, of one that was told of before."""
        assert self.dice is not None
        told = [self.outcome(attempt) for attempt in attempts]
        if any(outcome[0] != CLOSED for outcome in told):
            return told[0]
        for attempt in attempts[1:]:
            self.flying.remove(attempt)
        self.past += attempts[1:]
        diffs = [outcome[2] for outcome in told]
        if self.dice.random() < 0.3:
            attempts.append(self.dice.choice(self.past))
            diffs.append([("log", ["stale"])])
        return CLOSED_MANY, attempts, diffs, 0.0

    def outcome(self, attempt: Attempt) -> tuple[Any, ...]:
        if self.scheduler.error is not None and (self.dice is None or self.dice.random() < 0.7):
            return CANCELLED, attempt, None, 0.0
        try:
            return CLOSED, attempt, self.world.diff(attempt.task, self.scheduler.step), 0.0
        except Fatal as error:
            return FAILED, attempt, error, 0.0

    def feed(self, stimulus: tuple[Any, ...]) -> None:
        for instruction in self.scheduler.handle(stimulus):
            self.obey(instruction)
        broken = invariants(self.scheduler)
        assert not broken, (stimulus, broken)
        if self.scheduler.fans:
            flying = sum(len(piece) if isinstance(piece, Span) else 1 for piece in self.flying)
            assert self.scheduler.running == flying, "another number runs than the scheduler thinks"
            return
        held = {id(task.attempt) for task in self.scheduler.tasks if task.attempt is not None}
        assert held == set(map(id, singly(self.flying))), "what runs is not what the scheduler thinks runs"

    def obey(self, instruction: tuple[Any, ...]) -> None:
        kind = instruction[0]
        trace = self.trace
        if kind is DISPATCH:
            attempts = instruction[1]
            self.flying += [attempts] if isinstance(attempts, Span) else attempts
        elif kind is RETRY:
            self.timers.append(instruction[1])
        elif kind is ENDED_TASK:
            for task in instruction[1:]:
                assert task not in self.ended, "a task ended twice"
                self.ended.append(task)
                self.told.append((task.path, sorted_repr(task.input), repr(list(task.writes))))
        elif kind is MERGED:
            tasks = instruction[1]
            if not self.world.lazy and not self.world.columns:
                assert {id(task) for task in self.ended} == {id(task) for task in tasks}
            assert all(task.state == FINISHED for task in self.ended)
            told = sorted(self.told, key=repr)
            self.ended, self.told = [], []
            trace.steps.append(tuple((path, input) for path, input, _ in told))
            trace.updates.append(tuple((path, writes) for path, _, writes in told))
        elif kind is CANCEL:
            assert instruction[1], "a cancel of nothing"
        elif kind is OVER:
            trace.end = "over"
        elif kind is BROKEN:
            trace.end = f"{type(instruction[1]).__name__}: {instruction[1]}"
