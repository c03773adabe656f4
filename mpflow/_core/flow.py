"""Sends that are made while they run: a step that takes its tasks from an iterator as there is room for them.

Their writes are folded in path order as prefixes of finished tasks complete, into values that the state does not show
until the step ends and that a failed step leaves behind. So the memory of a step with a million sends is that of its
result and of a bounded number of tasks; one slow task holds back the sends that are too far ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from mpflow._columns import gather
from mpflow._core.fan import Fan, fan_of, size
from mpflow._core.merge import Writer
from mpflow._core.protocol import ENDED_TASK
from mpflow._core.records import place_records
from mpflow._core.task import ENDED, INTERRUPTED, Task
from mpflow._names import PUSH
from mpflow._sends import ReplayableSends, SendIterator, each_of
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.constants import END
from mpflow.errors import InvalidUpdateError, ReducerError
from mpflow.types import Send

if TYPE_CHECKING:
    from mpflow._core.plan import NodePlan, Plan
    from mpflow._core.protocol import Instruction
    from mpflow._core.scheduler import Scheduler
    from mpflow._core.state import ChannelState

WINDOW = 8192
"""How many tasks may be taken and not yet folded: what runs, and what waits for an earlier one to finish."""
AHEAD = 4096
"""How many tasks are kept running or about to, so that the places to run need not wait for the next ones."""
CHUNK = 512
"""So many sends are taken at once, and finished tasks folded; fewer only where the step would stand still."""


def flow_of(plan: Plan, sends: Sequence[Any], tasks: Sequence[Task]) -> Flow | None:
    """The flow of the queued `sends` beside the step's other `tasks`, if some sends are still to be made.

    Those queued after the first such come from it too.
    """
    for index, packet in enumerate(sends):
        if isinstance(packet, (SendIterator, ReplayableSends)):
            return Flow(plan, index, sends[index:], sum(not task.pulled for task in tasks))
    return None


class Flow:
    """The sends of a step that are still to be made, and what has become of the writes of those that finished."""

    __slots__ = (
        "_at",
        "_ended",
        "_folded",
        "_held",
        "_index",
        "_overwritten",
        "_packets",
        "_plan",
        "_rest",
        "_sends",
        "is_open",
    )

    def __init__(self, plan: Plan, index: int, packets: Sequence[Any], held: int) -> None:
        self._plan = plan
        self._index = index
        self._packets = packets
        self._sends = each_of(packets)
        self._at = 0
        self._ended = 0
        """How many of these have ended and come first."""
        self._held = held
        """How many sends have tasks that are not folded."""
        self._folded: dict[str, BinaryOperatorAggregate[Any]] = {}
        self._overwritten: set[str] = set()
        self._rest: dict[str, list[Any]] = {}
        self.is_open = True
        """There may be more sends."""

    def take(self, ahead: int, limit: int | None, keeps_columns: Callable[[NodePlan], bool] | None) -> list[Any]:
        """The next tasks, if there is room for a good number: beside those `ahead`, which run or are about to, and those
        that are held for the sake of earlier ones. At most `limit` are to run at once. Sends to a node that `keeps_columns` are one
        `Fan`, where they can be. Raises what the iterator raises.
        """
        most = AHEAD if limit is None else min(AHEAD, limit)
        room = min(most - ahead, WINDOW - self._held)
        if not self.is_open or room < min(CHUNK, (most + 3) // 4):
            return []
        wanted = min(room, CHUNK)
        packets = list(islice(self._sends, wanted))
        tasks = self._tasks(packets, keeps_columns)
        self._held += len(packets)
        self.is_open = len(packets) == wanted
        return tasks

    def _tasks(self, packets: Sequence[Any], keeps_columns: Callable[[NodePlan], bool] | None) -> list[Any]:
        if packets and keeps_columns is not None:
            fan = fan_of(self._plan, packets, keeps_columns, self._index)
            if fan is not None:
                self._index += len(packets)
                return [fan]
        return list(map(self._task, packets))

    def _task(self, packet: Any) -> Task:
        if not isinstance(packet, Send):
            raise InvalidUpdateError(
                f"An iterator of sends gave {type(packet).__name__} {packet!r}; expected Send objects"
            )
        node = self._plan.nodes.get(packet.node)
        if node is None or packet.node == END:
            raise InvalidUpdateError(f"An iterator of sends gave one to '{packet.node}', which is no node of the graph")
        if packet.timeout is not None:
            node = node.timed(packet.timeout)
        self._index += 1
        task = Task(node, (PUSH, self._index - 1, False), packet.arg)
        task.flows = True
        return task

    def close(self) -> None:
        """No more sends are to be made."""
        self.is_open = False
        self._sends.close()
        for packet in self._packets:
            # One that was not begun is not known to what takes from it.
            close = getattr(packet.sends, "close", None) if isinstance(packet, SendIterator) else None
            if close is not None:
                close()

    def fold(self, scheduler: Scheduler, out: list[Instruction], *, all: bool = False) -> None:
        """Fold the writes of the finished tasks that come first, if they are many or `all` is asked for, and let go of
        them.

        Raises ReducerError, InvalidUpdateError, and the failure of a task whose record has no place.
        """
        tasks = scheduler.tasks
        at = self._at
        while at < len(tasks) and tasks[at].state in ENDED and tasks[at].state is not INTERRUPTED:
            if not tasks[at].pulled and tasks[at].caller is None:
                self._ended += size(tasks[at])
            at += 1
        self._at = at
        if not all and self._ended < CHUNK and self._held < WINDOW:
            return
        if scheduler.recorded:
            unplaced = [task for task in tasks if task.state in ENDED and (task.record is None or not task.writes)]
            out.extend((ENDED_TASK, task) for task in place_records(unplaced, scheduler.state))
        prefix = tasks[:at]
        grouped: dict[str, list[Any]] = {}
        for task in prefix:
            if type(task) is Fan:
                scheduler.fans.discard(task)
                for name, values in task.grouped().items():
                    grouped.setdefault(name, []).extend(values)
                continue
            gather(grouped, task.writes)
        for name, values in grouped.items():
            self._fold(scheduler.state, name, values)
        pulled = [task for task in prefix if task.pulled]
        for task in pulled:
            task.writes = ()
        tasks[:at] = pulled
        self._at = len(pulled)
        self._held -= self._ended
        self._ended = 0

    def _fold(self, state: ChannelState, name: str, values: list[Any]) -> None:
        prototype = self._plan.channels.get(name)
        if type(prototype) is BinaryOperatorAggregate:
            self._reduce(state, name, values)
        else:
            rest = self._rest.get(name, []) + values
            self._rest[name] = rest if prototype is None else list(prototype.condensed(rest))

    def _reduce(self, state: ChannelState, name: str, values: list[Any]) -> None:
        channel: Any = self._folded.get(name)
        if channel is None:
            channel = self._folded[name] = state.object(name).copy()  # type: ignore[assignment]
        replaces = channel.overwrites(values)
        if name in self._overwritten:
            if replaces:
                raise channel.second_overwrite()
            return  # lost, as all other writes of a step with an Overwrite are
        if replaces:
            self._overwritten.add(name)
        try:
            channel.update(values)
        except InvalidUpdateError:
            raise
        except Exception as error:
            raise ReducerError.around(name, error) from error

    def finish(self, tasks: Sequence[Task]) -> tuple[list[Any], dict[str, Any]]:
        """All is folded: what is left of the step's writes to be merged, and the channels that they were folded into."""
        return [
            *tasks,
            Writer([(name, value) for name, values in self._rest.items() for value in values]),
        ], self._folded
