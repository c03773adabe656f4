"""Where the running task is: the one context variable through which user code finds its run.

A scope is made for every attempt, in the parent or in a worker, and computes what it is asked for (config, task id,
runtime) on first use: most nodes ask for nothing. It must not import the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpflow._messages import Attempt, StepFacts
    from mpflow.runtime import Runtime

NS_SEP = "|"
NS_END = ":"
SCOPE_KEY = "__pregel_scope"
"""Where a task's config carries its scope, so that a config passed on by hand nests as well as the context does."""

DRAIN = "drain"
"""The event by which a task in a worker asks its run to drain."""

PIECE = "piece"
"""The event by which a branch of a composite runnable tells a piece of its output."""

TAKEN = "taken"
"""The event ``done``: a task in a worker waits until all that it said before is taken; to be called then, with None."""

Emit = Callable[[str, Any], None]


def task_id_of(checkpoint_id: str, ns: str, step: int, name: str, path: Sequence[Any], triggers: Sequence[str]) -> str:
    """The id of a task: a hash of what makes it that task, equal in every process that resumes the run (EX-14)."""
    from hashlib import blake2b  # OpenSSL comes with it; most runs name no task

    source = "\x1f".join((checkpoint_id, ns, str(step), name, repr(tuple(path)), *triggers))
    digest = blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


NO_ANSWER: Any = object()


class Answers:
    """What a task was answered, question by question, and what it may still take (IN-2, IN-6, IN-7).

    ``given`` grows as questions are answered; ``null`` holds the one answer that was given without saying to which
    question, and is shared with the tasks of graphs within this one; ``by_id`` has those that name their question.
    """

    __slots__ = ("by_id", "given", "null", "took_by_id")

    def __init__(self, given: list[Any], null: list[Any], by_id: dict[str, Any]) -> None:
        self.given = given
        self.null = null
        self.by_id = by_id
        self.took_by_id = False

    def take(self, question_id: str, first_id: Callable[[], str]) -> Any:
        """The answer to a question that has none yet, or `NO_ANSWER`.

        Of those that name their question a task takes one, for what it was waiting for; the name of its first question
        stands for that one too.
        """
        by_id = self.by_id
        if by_id and not self.took_by_id:
            self.took_by_id = True
            if question_id in by_id:
                return by_id[question_id]
            if (first := first_id()) in by_id:
                return by_id[first]
        return self.null.pop() if self.null else NO_ANSWER


class TaskScope:
    """One attempt as user code may see it: its config, runtime, stream writer and place in the graph."""

    emit: Emit | None = None
    tags: Sequence[str] | None = None
    metadata: dict[str, Any] | None = None
    graphs: int | None = None
    """How many graphs were started in it, where nothing outlives the attempt that could count them."""
    extras: Any = None
    """What the engine keeps beside it: answers, readers."""
    started_at: float | None = None
    """When the first attempt began, in seconds since the epoch; None if this is the first and nobody asked yet."""
    answers: Answers | None = None
    """None where there is none to be taken."""
    asked = 0
    """How many questions it asked, in this attempt."""
    writes: list[tuple[str, Any]] | None = None
    """What the node wrote to the state before it returned."""
    patience: Any = None
    """What notices the signs of life of a node with a timeout."""
    attempt: Attempt | None = None
    """The attempt itself, in the process that the run is driven in."""
    _called: Iterator[int] | None = None
    _task_id: str | None = None
    _config: dict[str, Any] | None = None
    _runtime: Any = None

    def __init__(
        self,
        facts: StepFacts,
        name: str,
        path: tuple[Any, ...],
        triggers: Sequence[str],
        number: int = 1,
        emit: Emit | None = None,
        tags: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.facts = facts
        self.name = name
        self.path = path
        self.triggers = triggers
        self.number = number
        if emit is not None:
            self.emit = emit
        if tags is not None:
            self.tags = tags
        if metadata is not None:
            self.metadata = metadata

    def next_graph(self) -> int:
        """The number of a graph that is started in this task, counted over all its attempts (SG-3).

        So none goes on from what a graph of an earlier attempt left.
        """
        holder: Any = self if self.attempt is None else self.attempt.task
        number: int = self._graphs_before() if holder.graphs is None else holder.graphs
        holder.graphs = number + 1
        return number

    def _graphs_before(self) -> int:
        return 0

    def next_call(self) -> int:
        """The number of a call of a task, counted over this attempt (FN-4)."""
        if self._called is None:
            self._called = count()
        return next(self._called)

    @property
    def task_id(self) -> str:
        if self._task_id is None:
            facts = self.facts
            ns = facts.checkpoint_ns
            self._task_id = task_id_of(facts.checkpoint_id, ns, facts.step, self.name, self.path, self.triggers)
        return self._task_id

    @property
    def namespace(self) -> str:
        """The checkpoint namespace of this task: its graph's, then ``node:task_id`` (SG-3)."""
        ns = self.facts.checkpoint_ns
        own = f"{self.name}{NS_END}{self.task_id}"
        return f"{ns}{NS_SEP}{own}" if ns else own

    @property
    def config(self) -> dict[str, Any]:
        """The config of this task (CF-2), made once."""
        if self._config is None:
            facts = self.facts
            base = facts.config
            namespace = self.namespace
            metadata = dict(base.get("metadata") or ())
            if self.metadata:
                metadata.update(self.metadata)
            metadata["langgraph_step"] = facts.step
            metadata["langgraph_node"] = self.name
            metadata["langgraph_triggers"] = tuple(self.triggers)
            metadata["langgraph_path"] = self.path
            metadata["langgraph_checkpoint_ns"] = namespace
            configurable = dict(base.get("configurable") or ())
            configurable["checkpoint_ns"] = namespace
            configurable["checkpoint_id"] = None
            parents = dict(configurable.get("checkpoint_map") or ())
            parents[facts.checkpoint_ns] = facts.checkpoint_id or None
            configurable["checkpoint_map"] = parents
            configurable[SCOPE_KEY] = self
            config = dict(base)
            config.pop("run_name", None)  # the run's own, and not of what is called in it
            config.pop("run_id", None)
            config["metadata"] = metadata
            config["configurable"] = configurable
            tags = [*(base.get("tags") or ()), *(self.tags or ())]
            config["tags"] = tags
            self._config = config
        return self._config

    @property
    def runtime(self) -> Runtime[Any]:
        """The `Runtime` of this task, made once."""
        if self._runtime is None:
            self._runtime = _make_runtime(self)
        runtime: Runtime[Any] = self._runtime
        return runtime

    @property
    def store(self) -> Any:
        local = self.facts.local
        return None if local is None else local.store

    def write_custom(self, chunk: Any) -> None:
        """The stream writer: hand a chunk to the consumer of ``stream_mode="custom"``, or do nothing."""
        if self.progress() and self.emit is not None:
            self.emit("custom", chunk)

    def progress(self) -> bool:
        """Note that the task, or one within it, did something (TO-4); whether it may still: not after a timeout."""
        patience = self.patience
        if patience is not None and not patience.progress():
            return False
        local = self.facts.local
        return local is None or local.around is None or local.around.progress()

    def heartbeat(self) -> None:
        """A sign of life, for the idle timeouts of this task and those around it (TO-4)."""
        if self.patience is not None:
            self.patience.beat()
        local = self.facts.local
        if local is not None and local.around is not None:
            local.around.heartbeat()

    def interrupt(self, value: Any, response_schema: Any = None) -> Any:
        """Stop the task with a question, or return the answer it was resumed with."""
        from mpflow.errors import GraphInterrupt
        from mpflow.types import Interrupt

        check = None
        if response_schema is not None and not isinstance(response_schema, dict):
            from mpflow._questions import answer_schema

            response_schema, check = answer_schema(response_schema)
        answers = self.answers
        index = self.asked
        self.asked += 1
        if answers is not None and index < len(answers.given):
            answer = answers.given[index]
            return answer if check is None else check(answer)
        question = Interrupt.from_ns(value, self.question_namespace(index), response_schema=response_schema)
        if answers is None:
            raise GraphInterrupt((question,))
        answer = answers.take(question.id, lambda: Interrupt.from_ns(value, self.namespace).id)
        if answer is NO_ANSWER:
            raise GraphInterrupt((question,))
        checked = answer if check is None else check(answer)
        answers.given.append(answer)  # what does not fit is not kept, so that the question can be answered again
        return checked

    def untaken(self) -> tuple[list[Any], dict[str, Any]] | None:
        """The answer that names no question, if it is there still, and those that do; None if it was given none."""
        return None if self.answers is None else (list(self.answers.null), self.answers.by_id)

    def take_untaken(self) -> list[Any]:
        """The answer that names no question, which is given once."""
        try:
            return [] if self.answers is None else [self.answers.null.pop()]
        except IndexError:
            return []

    def question_namespace(self, index: int) -> str:
        """Where the id of a question comes from: the task, and how many it asked before."""
        return self.namespace if index == 0 else f"{self.namespace}{NS_SEP}{index}"


def _make_runtime(scope: TaskScope) -> Any:
    from mpflow.runtime import ExecutionInfo, Runtime

    facts = scope.facts
    local = facts.local
    configurable = facts.config.get("configurable") or {}
    info = ExecutionInfo(
        checkpoint_id=facts.checkpoint_id or "",
        checkpoint_ns=scope.namespace,
        task_id=scope.task_id,
        thread_id=configurable.get("thread_id"),
        run_id=str(facts.config["run_id"]) if facts.config.get("run_id") else None,
        node_attempt=scope.number,
        node_first_attempt_time=time.time() if scope.started_at is None else scope.started_at,
    )
    return Runtime(
        context=facts.context,
        store=scope.store,
        stream_writer=scope.write_custom,
        heartbeat=scope.heartbeat,
        previous=facts.previous,
        execution_info=info,
        server_info=_server_of(configurable),
        control=local.drainable() if local is not None else control_of(scope),
    )


def _server_of(configurable: dict[str, Any]) -> Any:
    """What a server that hosts the graph said of itself and its user in the config, if one did (CF-8)."""
    user = configurable.get("langgraph_auth_user")
    user = user if hasattr(user, "identity") else None
    assistant_id, graph_id = configurable.get("assistant_id"), configurable.get("graph_id")
    if assistant_id is None and graph_id is None and user is None:
        return None
    from mpflow.runtime import ServerInfo

    return ServerInfo(str(assistant_id or ""), str(graph_id or ""), user)


def control_of(scope: TaskScope) -> Any:
    """What stands for the run's control in a worker: a wish to drain goes to the parent."""
    from mpflow.runtime import RunControl

    if scope.emit is None:
        return None
    tell: Emit = scope.emit

    class Control(RunControl):
        __slots__ = ()

        def request_drain(self, reason: str = "shutdown") -> None:
            super().request_drain(reason)
            tell(DRAIN, reason)

    return Control()


current: ContextVar[TaskScope | None] = ContextVar("mpflow_task", default=None)
set_current = current.set


def current_scope() -> TaskScope:
    """The scope of the running task. Raises RuntimeError outside of one."""
    scope = current.get()
    if scope is None:
        raise RuntimeError("Called get_config outside of a runnable context")
    return scope
