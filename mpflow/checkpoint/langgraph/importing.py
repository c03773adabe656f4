"""Threads out of a SQLite database of LangGraph, read as data. It needs no langgraph and changes nothing in the database."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpflow._names import TASKS
from mpflow._wire.errors import DecodeError, EncodeError, WireError
from mpflow.checkpoint.base import LATEST_VERSION, BaseCheckpointSaver, Checkpoint
from mpflow.checkpoint.langgraph.renaming import Names
from mpflow.checkpoint.serde.base import SerializerProtocol
from mpflow.checkpoint.serde.jsonplus import JsonPlusSerializer
from mpflow.config import RunnableConfig

__all__ = ("ImportReport", "import_sqlite")

_CHECKPOINTS = (
    "SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints "
    # Graphs within come after those around them: what they are called depends on these.
    "WHERE thread_id = ? ORDER BY length(checkpoint_ns) - length(replace(checkpoint_ns, '|', '')), "
    "checkpoint_ns <> '', checkpoint_ns, checkpoint_id"
)
_WRITES = (
    "SELECT task_id, {path}, channel, type, value FROM writes "
    "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? ORDER BY {path}, task_id, idx"
)


@dataclass(slots=True)
class ImportReport:
    """What was imported: how much, and which threads were refused, with the reason."""

    threads: int = 0
    checkpoints: int = 0
    writes: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class _Refused(Exception):
    """A thread that is left where it is."""


def import_sqlite(
    path: str | os.PathLike[str],
    saver: BaseCheckpointSaver[Any],
    *,
    thread_ids: Collection[str] | None = None,
    types: Iterable[type] = (),
    serde: SerializerProtocol | None = None,
    graph: Any = None,
) -> ImportReport:
    """Copy threads out of the SQLite database that LangGraph keeps at `path` into `saver`, with their history.

    All threads, or those of `thread_ids`; each whole or not at all. Ids of checkpoints stay what they are. `types` are
    the classes of the values; `serde` reads another format, such as an encrypted one. With `graph`, compiled with
    `saver`, steps that are not finished go on where they are and questions wait for their answers; without it the tasks
    of such steps run again. A thread that `saver` has already, or whose values cannot be read, is refused: the report
    says why. Blocks until done; run it while nothing else uses either. Raises FileNotFoundError, ValueError for a graph
    with another saver, and what `saver` raises.
    """
    if graph is not None and graph.checkpointer is not saver:
        raise ValueError("compile the graph with the saver that the threads go to: compile(checkpointer=saver)")
    if graph is not None and getattr(saver, "keeps_log", False):
        saver = saver.for_types(graph._types)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no database at {os.fspath(path)}")
    reader = JsonPlusSerializer(types=types) if serde is None else serde
    report = ImportReport()
    # Read only, and without taking what a name may hold for parameters.
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    try:
        known = [row[0] for row in connection.execute("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id")]
        for thread_id in known if thread_ids is None else thread_ids:
            try:
                _Thread(connection, thread_id, reader, saver, Names(graph)).copy(report)
            except _Refused as refusal:
                report.refused[thread_id] = str(refusal)
            else:
                report.threads += 1
    finally:
        connection.close()
    return report


class _Thread:
    """One thread on its way."""

    def __init__(
        self, connection: sqlite3.Connection, thread_id: str, serde: SerializerProtocol, saver: Any, names: Names
    ) -> None:
        self._connection = connection
        self._thread_id = thread_id
        self._serde = serde
        self._saver = saver
        self._names = names
        columns = {row[1] for row in connection.execute("PRAGMA table_info(writes)")}
        self._path_column = "task_path" if "task_path" in columns else "''"

    def copy(self, report: ImportReport) -> None:
        if next(iter(self._saver.list({"configurable": {"thread_id": self._thread_id}}, limit=1)), None) is not None:
            raise _Refused("the saver has a thread of this id already")
        try:
            addresses = self._copy_checkpoints()
            writes = sum(self._copy_writes(ns, checkpoint_id) for ns, checkpoint_id in addresses)
            if not addresses:
                raise _Refused("the database has no thread of this id")
        except BaseException as error:
            self._saver.delete_thread(self._thread_id)
            if isinstance(error, EncodeError):
                raise _Refused(str(error)) from error
            raise
        report.checkpoints += len(addresses)
        report.writes += writes

    def _copy_checkpoints(self) -> list[tuple[str, str]]:
        addresses: list[tuple[str, str]] = []
        versions: dict[tuple[str, str | None], dict[str, Any]] = {}
        for ns, checkpoint_id, parent_id, checkpoint, metadata in self._checkpoints():
            before = versions.get((ns, parent_id), {})
            mine = checkpoint["channel_versions"]
            versions[ns, checkpoint_id] = mine
            changed = {name: version for name, version in mine.items() if before.get(name) != version}
            self._saver.put(self._config(ns, parent_id), checkpoint, self._names.metadata(metadata), changed)
            self._names.learn(self._config(ns, checkpoint_id), list(self._writes(ns, checkpoint_id)))
            addresses.append((ns, checkpoint_id))
        return addresses

    def _config(self, ns: str, checkpoint_id: str | None) -> RunnableConfig:
        where = {"thread_id": self._thread_id, "checkpoint_ns": self._names.ns(ns)}
        if checkpoint_id:
            where["checkpoint_id"] = checkpoint_id
        return {"configurable": where}

    def _checkpoints(self) -> Iterator[tuple[str, str, str | None, Checkpoint, Any]]:
        for ns, checkpoint_id, parent_id, kind, data, metadata in self._connection.execute(
            _CHECKPOINTS, (self._thread_id,)
        ):
            where = f"checkpoint {checkpoint_id}"
            about = json.loads(metadata) if metadata else {}
            if "counters_since_delta_snapshot" in about:
                raise _Refused(
                    f"{where}: a DeltaChannel's value is not in the database; LangGraph and the graph make it"
                )
            checkpoint = self._read(kind, data, where)
            if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("channel_values"), dict):
                raise _Refused(f"{where}: expected a checkpoint, got {type(checkpoint).__name__}")
            if checkpoint.get("v", 0) < LATEST_VERSION:
                self._take_sends(checkpoint, ns, parent_id)
            checkpoint.setdefault("updated_channels", None)
            yield ns, checkpoint_id, parent_id, checkpoint, about  # type: ignore[misc]

    def _take_sends(self, checkpoint: dict[str, Any], ns: str, parent_id: str | None) -> None:
        """Before version 4 a step's sends lay with the writes of its parent's tasks."""
        checkpoint["v"] = LATEST_VERSION
        checkpoint.pop("pending_sends", None)
        sends = [value for *_, channel, value in self._writes(ns, parent_id) if channel == TASKS] if parent_id else []
        if sends:
            checkpoint["channel_values"][TASKS] = sends
            checkpoint["channel_versions"][TASKS] = max(checkpoint["channel_versions"].values())

    def _writes(self, ns: str, checkpoint_id: str) -> Iterator[tuple[str, str, str, Any]]:
        query = _WRITES.format(path=self._path_column)
        for task_id, path, channel, kind, data in self._connection.execute(query, (self._thread_id, ns, checkpoint_id)):
            where = f"checkpoint {checkpoint_id}, task {task_id}, channel '{channel}'"
            yield task_id, path, channel, self._read(kind, data, where)

    def _copy_writes(self, ns: str, checkpoint_id: str) -> int:
        tasks: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        for task_id, path, channel, value in self._writes(ns, checkpoint_id):
            tasks.setdefault((self._names.task(task_id), path), []).append((channel, self._names.value(channel, value)))
        for (task_id, path), writes in tasks.items():
            self._saver.put_writes(self._config(ns, checkpoint_id), writes, task_id, path)
        return sum(map(len, tasks.values()))

    def _read(self, kind: Any, data: Any, where: str) -> Any:
        try:
            if type(kind) is not str or type(data) is not bytes:
                raise DecodeError("there is no value")
            return self._serde.loads_typed((kind, data))
        except WireError as error:
            raise _Refused(f"{where}: {error}") from error
