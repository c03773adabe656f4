"""What a worker's tasks return or raise, as bytes; large buffers go to the worker's arena."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mpflow._exec import batches, finished, link
from mpflow._exec.finished import PLAIN, SMALL
from mpflow._wire.codec import REFERS, Codec, EncodeError
from mpflow._wire.shm import Arena, Lease

if TYPE_CHECKING:
    from mpflow._exec.program import Diff

_PARENT = "parent"


class Payloads:
    """Encodes for `results`, into which it writes what belongs to a payload beside its bytes."""

    def __init__(self, results: finished.Results, send: Callable[..., None], codec: Codec) -> None:
        self._results = results
        self._send = send
        self._encode = codec.encode
        self._scope: AbstractContextManager[Lease] | None = None
        self._lease: Lease | None = None
        self._copied_bytes = 0

    def use(self, arena: Arena) -> None:
        self._arena = arena
        self._encode_flagged = Codec(trust=True, arena=arena).encode_flagged

    def release(self, tickets: Any) -> None:
        """The parent has let go of blocks."""
        self._arena.release(_PARENT, tickets)

    def take_copied_bytes(self) -> int:
        """How much was copied into the arena since this was last asked."""
        before, self._copied_bytes = self._copied_bytes, self._arena.copied_bytes
        return self._copied_bytes - before

    def of(self, returned: Any, program: Any) -> Any:
        """Of the diff of a task of `program`, or of the dict that it returned; a value that can wait to be encoded, as it is.
        Raises EncodeError that names the channel whose value cannot travel, and InvalidUpdateError."""
        results = self._results
        if type(returned) is dict:
            # The channel is the program's own: what is collected is of one program.
            if len(returned) == 1 and (channel := results.channel) and channel in returned:
                value = returned[channel]
                if type(value) in SMALL:
                    return value
            diff: Diff = program.diff(returned)
        else:
            diff = returned
        if results.channel is not None:
            if len(diff) == 1:
                [(channel, value)] = diff
                if channel == results.channel or results.begins_with(channel):
                    kind = type(value)
                    if kind in SMALL:
                        return value
                    if kind in PLAIN and (payload := finished.plain(value)) is not None:
                        results.size_bytes += len(payload)
                        return payload
            results.open_up()
        return self._of_whole(diff, program.name)

    def _of_whole(self, diff: Diff, node: str) -> bytes:
        results = self._results
        flat = finished.flat(diff)
        try:
            payload = finished.plain(flat) or self._whole(flat)
            results.size_bytes += len(payload)
            return payload
        except EncodeError:
            # Write by write, to name the one that cannot travel.
            for channel, value in diff:
                self._encode(value, path=f"what node '{node}' returned for '{channel}'")
            raise

    def of_error(self, error: BaseException, node: str) -> bytes:
        results = self._results
        results.failed.append(results.count)
        results.open_up()
        results.flags = -1
        try:
            payload = self._encode(error, path=f"the exception of node '{node}'")
        except BaseException as failure:
            text = f"{type(error).__qualname__} in node '{node}', which itself could not be sent ({failure})"
            payload = self._encode(RuntimeError(text))
        results.size_bytes += len(payload)
        return payload

    def _whole(self, flat: list[Any]) -> bytes:
        results = self._results
        if self._lease is None:
            self._scope = self._arena.scope()
            self._lease = self._scope.__enter__()
        try:
            payload, flags = self._encode_flagged(flat)
        except BaseException:
            self._end_scope()
            raise
        if flags:
            results.flags |= flags
            if flags & REFERS:
                # A scope copies an object but once, and the next task may have changed it: the scope ends here.
                lease = self._end_scope()
                ticket, files = lease.send_to(_PARENT)
                results.tickets.append((results.count, ticket))
                for body, fds in link.file_frames(files):
                    self._send(link.FILES, body, fds=fds)
                lease.close()
                if gone := self._arena.take_gone(_PARENT):
                    self._send(link.DROP_FILES, batches.pack(gone))
        return payload

    def _end_scope(self) -> Lease:
        scope, lease, self._scope, self._lease = self._scope, self._lease, None, None
        assert scope is not None and lease is not None
        scope.__exit__(None, None, None)
        return lease
