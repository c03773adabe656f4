"""A worker process: reads tasks from its socket, runs them one by one, writes their diffs back.

It shares nothing with its parent but the socket and one page, in which it says what it runs before it touches that
task's input, so that whatever kills it is charged to the right task. It must not import the engine.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import sys
import threading
from socket import socket
from time import monotonic_ns
from typing import Any, NoReturn

from mpflow._exec import batches, link, logs, slots
from mpflow._exec.errands import Errands
from mpflow._exec.facts import drop_oldest
from mpflow._exec.gauge import LONG_NS, Gauge
from mpflow._exec.kept import Kept
from mpflow._exec.lookout import Lookout
from mpflow._exec.payloads import Payloads
from mpflow._exec.place import become_worker
from mpflow._exec.workerscope import Group, WorkerScope
from mpflow._scope import Answers
from mpflow._wire.codec import Codec
from mpflow._wire.mappings import Held, Mappings
from mpflow._wire.memory import private_bytes
from mpflow._wire.shm import Arena

EXIT_LOST_SOCKET = 111
EXIT_REFUSED = 112
EXIT_ASTRAY = 113

_PR_SET_PDEATHSIG = 1
_HOLD_NS = 4_000_000
"""A finished task waits at most this long for others of its batch; behind one that turns out to be long, for two looks of
the lookout."""
UNTAKEN = 256
"""How many chunks a task may have said that its run's consumer has not taken."""
UNTAKEN_BYTES = 4 << 20
_SLOW_NS = 3_000_000
"""Before a task that may take this long, what is finished is sent. Should a task before that take longer than anybody
thought, the lookout sends."""
_HOLD_BYTES = 1 << 20
_WAITING_BYTES = 9
"""What a value comes to at most that is encoded with others."""
_RSS_EVERY_NS = 50_000_000


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
        self._held: Held | None = None
        self._programs: dict[int, Any] = {}
        self._facts: dict[int, bytes] = {}
        self._kept = Kept(self._codec.decode, self._mappings)
        self._means: dict[int, int] = {}
        self._gauge = Gauge()
        self._watched: Any = None
        """The program of the tasks that run, if nobody asked for them to run here (see `placement.guard`)."""
        self._results = batches.Results()
        self._payloads = Payloads(self._results, self._send, self._codec)
        # Nodes may start threads that write to the stream.
        self._sending = threading.Lock()
        self._voice = logs.Voice(self._say, lambda: (self._node, self._attempt))
        self._errands = Errands(self._link, self._send)
        self._books: threading.Lock | _Astray = threading.Lock()
        """Taken by the worker's own thread but while a task's code runs: who has it may send what is finished."""
        self._books.acquire()
        self._lookout = Lookout(self._running, self._send_held)
        self._untaken = self._untaken_bytes = 0
        self._node = ""
        self._attempt = 0
        self._answered = 0, 0
        self._wants_rss = False
        self._rss_bytes = 0
        self._rss_at = 0

    def set_up(self) -> None:
        """Take the setup, run the user's initializer, say hello. Exits if the initializer fails."""
        frame = self._link.next()
        if frame is None:
            raise OSError("the parent is gone")
        init, self._wants_rss, arena_bytes = batches.unpack(frame[1])
        self._payloads.use(Arena(arena_bytes))
        if init is not None:
            try:
                import pickle

                pickle.loads(init)()
            except BaseException:
                import traceback

                self._send(link.REFUSED, ("worker_init failed:\n" + traceback.format_exc()).encode())
                self._voice.flush()
                os._exit(EXIT_REFUSED)
        os.register_at_fork(
            before=self._lookout.pause, after_in_parent=self._lookout.resume, after_in_child=self._go_astray
        )
        import resource

        self._send(link.HELLO, batches.pack(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))

    def _go_astray(self) -> None:
        self._books = _Astray()

    def serve(self) -> None:
        """Obey until the parent says close. Raises OSError when the socket is gone."""
        while True:
            frame = self._errands.next_frame()
            if frame is None:
                raise OSError("the parent is gone")
            kind, body = frame
            if kind == link.TASKS:
                self._run_batch(body)
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
                self._payloads.release(batches.unpack(body))
            elif kind == link.FILES:
                for number in batches.unpack(body):
                    self._mappings.add_file(number, self._link.fds.popleft())
            elif kind == link.DROP_FILES:
                self._mappings.drop_files(batches.unpack(body))
            elif kind == link.CLOSE:
                return

    def _run_batch(self, body: Any) -> None:
        (forward, log_level, ticket, whole, groups), tail = batches.part(body)
        self._held = self._mappings.hold(ticket) if ticket else None
        self._voice.tune(forward, log_level)
        # Plain data: no code of anybody's runs here, so nothing can die of it before a task is named.
        values = self._codec.decode(whole) if whole else None
        for group in groups:
            ended = self._run_group(tail, values, *group)
            if values is not None:
                del values[:ended]
            if self._watched is not None:
                self._flush()  # the next may be of another node, and what this one did is to be judged by itself
                self._watched = None
        self._lookout.end()
        if self._held is not None:
            self._held.close()
        self._flush()
        self._kept.settle()

    def _run_group(
        self,
        tail: batches.Tail,
        values: list[Any] | None,
        first: int,
        program_number: int,
        facts_number: int,
        triggers: tuple[str, ...],
        timeout_s: float | None,
        attempt: Any,
        answers: bytes | None,
        columns: tuple[Any, ...],
        inputs: tuple[bytes | int, ...],
    ) -> int:
        """Run tasks that differ in path and input alone, those of the first `values`; how many they were.

        This loop is the cost of a tiny task: keep it short.
        """
        results = self._results
        numbers, times, payloads = results.numbers, results.times_ns, results.payloads
        words, books = self._words, self._books
        started_ns, running, barred_from = slots.STARTED_NS, slots.RUNNING, slots.TAKEN_FROM
        facts_data = self._facts[facts_number]
        first_at = None
        if type(attempt) is not int:
            attempt, first_at = attempt
        program: Any = None
        self._node, self._attempt = f"program {program_number}", attempt
        self._gauge.begin(program_number, self._means.get(program_number, LONG_NS) >= LONG_NS)
        mean_ns = self._means.get(program_number, _SLOW_NS)
        number = first
        scope: Any = None
        is_watched = False
        started = flushed = monotonic_ns()
        paths = batches.paths_of(columns)
        for path, data in zip(paths, inputs if values is None else values, strict=values is None):
            if mean_ns >= _SLOW_NS or timeout_s is not None or started - flushed > _HOLD_NS:
                self._flush()
                started = flushed = monotonic_ns()
            elif not is_watched and (numbers or results.skipped):
                is_watched = True
                self._lookout.begin()
            words[started_ns] = 0 if program is None else started
            words[running] = number
            # A fence too: the page must be written before what follows is read (see `slots.Page.take_back`).
            books.release()
            taken_from = words[barred_from]
            if taken_from and taken_from <= number < words[slots.TAKEN_TO]:
                books.acquire()
                results.skipped.append(number)
                number += 1
                continue
            try:
                if program is None:
                    words[slots.HAS_WORKED] = 1
                    program = self._program(program_number)
                    self._node = program.name
                    if getattr(program, "is_moved", False):
                        self._watched = program
                        program.given(None if values is None else values[: columns[0] or len(columns) - 1])
                    group = Group(
                        facts_data, program, triggers, attempt, first_at, self._codec.decode, self._emit, self._errands
                    )
                    # What it took to import is not the task's: neither for its deadline nor for how many fit a batch.
                    started = words[started_ns] = monotonic_ns()
                if timeout_s is not None:
                    signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-6))
                if values is None:
                    if type(data) is tuple:
                        data = self._kept.assemble(self._held, *data)
                    else:
                        data = self._codec.decode(tail.of(data), self._held)
                scope = WorkerScope()
                scope._group = group
                scope.path = path
                scope._task = number
                if answers is not None:
                    self._give_answers(scope, answers)
            except BaseException as error:
                self._books.acquire()
                payload = self._payloads.of_error(error, self._node)
            else:
                payload = self._call(program, data, scope)
            if timeout_s is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if answers is not None and scope is not None:
                self._take_answers(scope)
            ended = monotonic_ns()
            took_ns = ended - started
            if took_ns >= LONG_NS:
                self._gauge.look()
            numbers.append(number)
            payloads.append(payload)
            times.append(took_ns)
            results.size_bytes += len(payload) if type(payload) is bytes else _WAITING_BYTES
            if results.size_bytes > _HOLD_BYTES:
                self._flush()
                flushed = ended
            mean_ns += (took_ns - mean_ns) >> 2
            started = ended
            number += 1
        self._means[program_number] = mean_ns
        return number - first

    def _forget(self, values: tuple[int, ...], programs: tuple[int, ...]) -> None:
        for number in programs:
            del self._programs[number]
            self._gauge.forget(number)
            self._means.pop(number, None)
        self._kept.forget(values)
        if releases := self._mappings.take_releases():
            self._send(link.RELEASE, batches.pack(releases))

    def _program(self, number: int) -> Any:
        program = self._programs[number]
        if type(program) is memoryview:
            import pickle

            program = self._programs[number] = pickle.loads(program)
        return program

    def _give_answers(self, scope: WorkerScope, answers: bytes) -> None:
        """Let `scope` find what its task was answered in earlier attempts."""
        given, null, by_id = self._codec.decode(answers) if answers else ([], [], {})
        scope.answers = Answers(given, null, by_id)
        self._answered = len(given), len(null)

    def _take_answers(self, scope: WorkerScope) -> None:
        """Tell the parent what the task was answered in this attempt."""
        answers = scope.answers
        if answers is not None and (len(answers.given), len(answers.null)) != self._answered:
            told = self._codec.encode([answers.given, len(answers.null)])
            self._results.answers.append((len(self._results.numbers), told))

    def _call(self, program: Any, value: Any, scope: WorkerScope) -> Any:
        """Run one task. The payload of its diff, or of what it raised. What it held dies with this frame, before its successor
        starts."""
        try:
            try:
                context = contextvars.Context()
                if scope._group.is_entered:
                    context.run(scope.enter)
                diff = context.run(program.run, value, scope)
            finally:
                self._books.acquire()
            return self._payloads.of(diff, program.name)
        except BaseException as error:
            return self._payloads.of_error(error, self._node)

    # -- to the parent -------------------------------------------------------------------------------------------------

    def _send(self, kind: int, *body: Any, fds: list[int] | None = None) -> None:
        with self._sending:
            self._link.send(kind, *body, fds=fds)

    def _say(self, kind: str, fields: Any) -> None:
        self._send(link.LOG if kind == logs.RECORD else link.OUTPUT, batches.pack(fields))

    def _flush(self) -> None:
        """Send what is finished. Afterwards the page names no task: all that ran is in the parent's hands."""
        results = self._results
        self._voice.flush()
        if results.numbers or results.skipped:
            if results.numbers and (grown := self._gauge.word()) is not None:
                self._send(link.MEMORY, batches.pack((results.numbers[-1], *grown)))
            if self._wants_rss:
                self._measure()
            if self._watched is not None:
                self._results.figures = self._watched.figures()
            self._send_results(self._mappings.take_releases())
        words = self._words
        if words[slots.RUNNING]:
            words[slots.FINISHED] = words[slots.RUNNING]
            words[slots.RUNNING] = 0

    def _send_results(self, releases: list[int]) -> None:
        if self._watched is not None and (objection := self._watched.objection()) is not None:
            self._results.refuse(self._payloads.of_error(objection, self._node))
        self._send(link.RESULTS, *self._results.parts(self._rss_bytes, releases, self._payloads.take_copied_bytes()))
        self._results.clear()

    def _running(self) -> int:
        return self._words[slots.RUNNING]

    def _send_held(self, number: int) -> None:
        """Send what is finished while task `number` runs. For the lookout's thread: the page, the mappings and the gauge are
        the other's."""
        if not self._books.acquire(blocking=False):
            return
        try:
            results = self._results
            if self._words[slots.RUNNING] == number and (results.numbers or results.skipped):
                # What those tasks printed is said before they end, but streams that the running one put there are its own.
                self._voice.flush_ours()
                self._send_results([])
        except OSError:
            os._exit(EXIT_LOST_SOCKET)
        finally:
            self._books.release()

    def _measure(self) -> None:
        now = monotonic_ns()
        if now - self._rss_at > _RSS_EVERY_NS or not self._rss_at:
            self._rss_at = now
            # What is mapped of other processes' blocks is not this one's to give back.
            self._rss_bytes = private_bytes(os.getpid())

    def _emit(self, number: int, kind: str, data: Any) -> None:
        path = f"what node '{self._node}' wrote to the stream"
        data = self._codec.encode(data, path=path)
        self._send(link.EVENT, batches.pack((number, kind, data)))
        self._untaken += 1
        self._untaken_bytes += len(data)
        if self._untaken >= UNTAKEN or self._untaken_bytes >= UNTAKEN_BYTES:
            self._untaken = self._untaken_bytes = 0
            self._errands.ask(number, link.CONSUMER)


class _Astray:
    """In the place of the books, in a process that a task has forked: should it come back from the task, it ends there, for
    there is but one worker at the socket."""

    def acquire(self, blocking: bool = True) -> bool:
        os._exit(EXIT_ASTRAY)

    def release(self) -> None:
        pass
