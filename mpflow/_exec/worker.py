"""A worker process: reads tasks from its socket, runs them one by one, writes their diffs back.

It shares nothing with its parent but the socket and one page, in which it says what it runs before it touches that
task's input, so that whatever kills it is charged to the right task. It must not import the engine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextvars import Context
from itertools import islice
from socket import socket
from time import monotonic_ns
from typing import Any, NoReturn

from mpflow._exec import batches, link, slots
from mpflow._exec.facts import drop_oldest
from mpflow._exec.gauge import LONG_NS
from mpflow._exec.kept import Kept
from mpflow._exec.place import become_worker
from mpflow._exec.reports import EXIT_LOST_SOCKET, Reports
from mpflow._exec.waits import Timer, Waits
from mpflow._exec.workerscope import Group, WorkerScope
from mpflow._scope import Answers, set_current
from mpflow._wire.codec import Codec
from mpflow._wire.mappings import Held, Mappings
from mpflow._wire.shm import Arena

EXIT_REFUSED = 112

_PR_SET_PDEATHSIG = 1
_HOLD_NS = 10_000_000
"""A finished task waits at most this long for others of its batch; behind one that turns out to be long, for two looks of
the lookout."""
_SLOW_NS = 3_000_000
"""What is finished is sent after a task that took this long, for the next one may too. Should another take longer than
anybody thought, the lookout sends. One that was but held up by other processes costs no more than a frame."""
_HOLD_BYTES = 1 << 20


def main(socket_fd: int, page_fd: int, stderr_fd: int, parent_pid: int) -> NoReturn:
    """The life of a worker, from the spawner's command line to its exit."""
    become_worker()
    _end_with(parent_pid)
    with contextlib.suppress(PermissionError):
        os.setsid()  # a group of its own, so that it can be killed with all it started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    import faulthandler

    faulthandler.enable(file=page_fd)
    worker = Worker(socket(fileno=socket_fd), slots.Page(page_fd))
    try:
        worker.set_up()
        # The last words were kept for a start that fails; from here on stderr is the parent's.
        os.dup2(stderr_fd, 2)
        os.close(stderr_fd)
        worker.serve()
    except OSError:
        # Its socket is gone: the parent died, or a task closed it.
        os._exit(EXIT_LOST_SOCKET)
    sys.exit(0)


def _end_with(parent_pid: int) -> None:
    """Have the kernel kill us when the parent dies: it works in C code, stopped, and under any load."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):  # not Linux: the end of the socket serves
        pass
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(EXIT_LOST_SOCKET)


class Worker:
    """The state of this process's work."""

    def __init__(self, sock: socket, page: slots.Page) -> None:
        self._link = link.Blocking(sock)
        self._words = page.words
        self._codec = Codec(trust=True)
        self._mappings = Mappings()
        self._programs: dict[int, Any] = {}
        self._facts: dict[int, bytes] = {}
        self._kept = Kept(self._codec.decode, self._mappings)
        self._was_slow: dict[int, bool] = {}
        """By program, whether the last task of it was slow."""
        self._reports = Reports(self._link, page.words, self._codec, self._mappings)
        self._timer = Timer()
        self._waits = Waits(page.words, self._reports, self._timer, self.obey, self.give_up_rest)
        self._tasks: Iterator[Any] = iter(())
        self._groups: Iterator[Any] = iter(())
        self._end = 0
        """The number behind those of the batch that runs."""
        self._is_leaving = False
        self._home = Context()
        """Each task runs in a copy of it, in which its scope is set already."""

    def set_up(self) -> None:
        """Take the setup, run the user's initializer, say hello. Exits if the initializer fails."""
        frame = self._link.next()
        if frame is None:
            raise OSError("the parent is gone")
        init, self._reports.wants_rss, arena_bytes = batches.unpack(frame[1])
        self._reports.knocker.use(self._link.fds.popleft())
        self._reports.payloads.use(Arena(arena_bytes))
        if init is not None:
            try:
                import pickle

                pickle.loads(init)()
            except BaseException:
                import traceback

                self._reports.send(link.REFUSED, ("worker_init failed:\n" + traceback.format_exc()).encode())
                self._reports.voice.flush()
                os._exit(EXIT_REFUSED)
        lookout = self._reports.lookout
        os.register_at_fork(
            before=lookout.pause, after_in_parent=lookout.resume, after_in_child=self._reports.go_astray
        )
        import resource

        self._reports.send(link.HELLO, batches.pack(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))

    def serve(self) -> None:
        """Obey until the parent says close. Raises OSError when the socket is gone."""
        while not self._is_leaving:
            if (frame := self._reports.errands.next_frame()) is not None:
                self.obey(*frame)

    def obey(self, kind: int, body: Any) -> None:
        """Do what a frame says: between tasks, or for a task that waits, for which only what it is lent is run."""
        if kind == link.LENT or (kind == link.TASKS and not self._reports.under):
            self._run_batch(body)
            drop_oldest(self._facts)
        elif kind == link.TASKS:
            self._decline(body)
            drop_oldest(self._facts)
        elif kind == link.PROGRAM:
            # Not unpickled yet: if that kills us, it must be while the page names a task.
            self._programs[int.from_bytes(body[:8], "little")] = body[8:]
        elif kind == link.FACTS:
            self._facts[int.from_bytes(body[:8], "little")] = bytes(body[8:])
        elif kind == link.VALUE:
            number, ticket = int.from_bytes(body[:8], "little"), int.from_bytes(body[8:16], "little")
            self._kept.add(number, ticket, body[16:])
        elif kind == link.FORGET:
            self._forget(*batches.unpack(body))
        elif kind == link.RELEASE:
            self._reports.payloads.release(batches.unpack(body))
        elif kind == link.FILES:
            for number in batches.unpack(body):
                self._mappings.add_file(number, self._link.fds.popleft())
        elif kind == link.DROP_FILES:
            self._mappings.drop_files(batches.unpack(body))
        elif kind == link.CLOSE:
            self._is_leaving = True

    def _run_batch(self, body: Any) -> None:
        (forward, log_level, ticket, whole, groups), tail = batches.part(body)
        reports = self._reports
        held = self._mappings.hold(ticket) if ticket else None
        reports.voice.tune(forward, log_level)
        # Plain data: no code of anybody's runs here, so nothing can die of it before a task is named.
        values = self._codec.decode(whole) if whole else None
        self._end = batches.numbers_of(groups).stop
        last = self._end - 1
        reports.knocker.begins(last)
        self._groups = rest = iter(groups)
        for group in rest:
            ended = self._run_group(held, tail, values, batches.Stint(*group))
            if values is not None:
                del values[:ended]
            if reports.watched is not None:
                reports.flush()  # the next may be of another node, and what this one did is to be judged by itself
                reports.watched = None
        self._end = 0
        self._tasks = self._groups = iter(())
        reports.lookout.end()
        if held is not None:
            held.close()
        reports.flush()
        reports.knocker.ended(last)
        self._kept.settle()

    def _decline(self, body: Any) -> None:
        """Skip a batch that was sent before the parent knew that a task waits here: it sends it elsewhere."""
        (_, _, ticket, _, groups), _ = batches.part(body)
        if ticket:
            self._mappings.hold(ticket).close()
        self._reports.results.skipped += batches.numbers_of(groups)
        self._reports.send_finished()

    def give_up_rest(self) -> None:
        """Skip what comes after the task that runs in its batch: others are to do that, for this one waits."""
        skipped = range(self._words[slots.RUNNING] + 1, self._end)
        if skipped:
            self._reports.results.skipped += skipped
            self._end = 0
            # The loops over them go on from here, when the task has ended.
            deque(self._tasks, maxlen=0)
            deque(self._groups, maxlen=0)

    def _run_group(self, held: Held | None, tail: batches.Tail, values: list[Any] | None, stint: batches.Stint) -> int:
        """Run the tasks of a stint, those of the first `values` if there are any; how many they were.

        This loop is the cost of a tiny task: keep it short. What a task held is gone before the next one starts.
        """
        reports, results = self._reports, self._reports.results
        finished, times_ns, payloads = results.numbers, results.times_ns, results.payloads
        payload_of, release, words = reports.payloads.of, reports.books.release, self._words
        enter, surroundings = self._home.run, self._home.copy
        started_ns, running, barred_from = slots.STARTED_NS, slots.RUNNING, slots.TAKEN_FROM
        count = batches.count_of(stint.columns)
        was_slow = self._expect(stint)
        is_plain = values is not None and stint.timeout_s is None and stint.answers is None
        group: Any = None
        scope: Any = None
        answered = 0, 0
        is_watched = False
        # A deadline ends this process: what is finished by then is to be in the parent's hands.
        hold_ns = _HOLD_NS if stint.timeout_s is None else -1
        started = monotonic_ns()
        due = started + hold_ns
        self._tasks = rest = enumerate(stint.inputs if values is None else islice(values, count), stint.first)
        for number, data in rest:
            if (was_slow or started > due) and (hold_ns < 0 or not reports.may_wait(started - due)):
                reports.flush()
                started = monotonic_ns()
                due = started + hold_ns
            elif not is_watched and (finished or results.skipped):
                is_watched = True
                reports.lookout.begin()
            words[started_ns] = started
            words[running] = number
            # A fence too: the page must be written before what follows is read (see `slots.Page.take_back`).
            release()
            taken_from = words[barred_from]
            if taken_from and taken_from <= number < words[slots.TAKEN_TO]:
                reports.books.acquire()
                results.skipped.append(number)
                continue
            try:
                try:
                    if group is None:
                        group = self._begin(stint, None if values is None else values[:count])
                        program, run = group.program, group.run
                        started = words[started_ns]
                    scope = WorkerScope()
                    scope._group = group
                    scope._task = number
                    if not is_plain:
                        data, answered = self._prepare(stint, held, tail, data, scope)
                    enter(set_current, scope)
                    returned = surroundings().run(run, data, scope)
                finally:
                    reports.books.acquire()
                payload = payload_of(returned, program)
            except BaseException as error:
                payload = reports.payloads.of_error(error, reports.node)
            returned = None
            if not is_plain:
                self._settle(stint, scope, answered)
            ended = monotonic_ns()
            took_ns = ended - started
            if (was_slow := took_ns >= _SLOW_NS) and took_ns >= LONG_NS:
                reports.gauge.look()
            finished.append(number)
            times_ns.append(took_ns)
            payloads.append(payload)
            if results.size_bytes > _HOLD_BYTES:
                reports.flush()
                due = ended + hold_ns
            started = ended
        enter(set_current, None)
        self._was_slow[stint.program] = was_slow
        return count

    def _expect(self, stint: batches.Stint) -> bool:
        """Its tasks follow; whether the last one of their program was slow."""
        was_slow = self._was_slow.get(stint.program, True)
        self._reports.node, self._reports.attempt = f"program {stint.program}", stint.number
        self._reports.gauge.begin(stint.program, was_slow)
        return was_slow

    def _begin(self, stint: batches.Stint, values: list[Any] | None) -> Group:
        """Import what its tasks run, now that the page names one of them; `values` are their inputs, if known."""
        reports, words = self._reports, self._words
        words[slots.STARTED_NS] = 0
        words[slots.HAS_WORKED] = 1
        program = self._program(stint.program)
        reports.node = program.name
        if getattr(program, "is_moved", False):
            reports.watched = program
            program.given(values)
        group = Group(self._facts[stint.facts], program, stint, self._codec.decode, reports, self._waits)
        # What it took to import is not the task's: neither for its deadline nor for how many fit a batch.
        words[slots.STARTED_NS] = monotonic_ns()
        return group

    def _prepare(
        self, stint: batches.Stint, held: Held | None, tail: batches.Tail, data: Any, scope: WorkerScope
    ) -> tuple[Any, tuple[int, int]]:
        """Set a task's deadline, and let it find what it was answered; its input, and how much that is."""
        if stint.timeout_s is not None:
            self._timer.start(stint.timeout_s)
        if stint.inputs:
            if type(data) is tuple:
                data = self._kept.assemble(held, *data)
            else:
                data = self._codec.decode(tail.of(data), held)
        return data, (0, 0) if stint.answers is None else self._give_answers(scope, stint.answers)

    def _settle(self, stint: batches.Stint, scope: WorkerScope | None, answered: tuple[int, int]) -> None:
        """Undo `_prepare`, as far as it went, when the task has ended."""
        if stint.timeout_s is not None:
            self._timer.stop()
        if stint.answers is not None and scope is not None:
            self._take_answers(scope, answered)

    def _forget(self, values: tuple[int, ...], programs: tuple[int, ...]) -> None:
        for number in programs:
            del self._programs[number]
            self._reports.gauge.forget(number)
            self._was_slow.pop(number, None)
        self._kept.forget(values)
        if releases := self._mappings.take_releases():
            self._reports.send(link.RELEASE, batches.pack(releases))

    def _program(self, number: int) -> Any:
        program = self._programs[number]
        if type(program) is memoryview:
            import pickle

            program = self._programs[number] = pickle.loads(program)
            self._reports.spend()  # what it took to load is no task's
        return program

    def _give_answers(self, scope: WorkerScope, answers: bytes) -> tuple[int, int]:
        """Let `scope` find what its task was answered in earlier attempts; how much that is."""
        given, null, by_id = self._codec.decode(answers) if answers else ([], [], {})
        scope.answers = Answers(given, null, by_id)
        return len(given), len(null)

    def _take_answers(self, scope: WorkerScope, before: tuple[int, int]) -> None:
        """Tell the parent what the task was answered in this attempt."""
        answers = scope.answers
        if answers is not None and (len(answers.given), len(answers.null)) != before:
            told = self._codec.encode([answers.given, len(answers.null)])
            results = self._reports.results
            results.answers.append((results.count, told))
