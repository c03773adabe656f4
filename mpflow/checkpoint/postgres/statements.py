"""The log in Postgres as SQL: the schema, its migrations, and one statement for each thing that a driver does.

Each is a statement of its own, so that it is one round trip and one transaction. It must not know connections.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from hashlib import blake2b
from random import getrandbits
from typing import Any, Final
from uuid import UUID

from mpflow.checkpoint.log.driver import NEAR, Batch, Drop, Row

Statement = tuple[str, Sequence[Any]]

# Each is applied once, in order; their count is the schema's version. What was released is never changed.
#
# Thread ids may be longer than what a B-tree takes, so spaces are found by a digest, and threads by a hash index. Text
# compares by code point. ``batch`` and ``place`` name a row before it is there: an insertion whose outcome was lost with
# the connection is done again, and what it finds of itself it leaves.
MIGRATIONS: Final = (
    """
    CREATE TABLE mpflow_spaces (
        space uuid PRIMARY KEY, thread_id text COLLATE "C" NOT NULL, ns text COLLATE "C" NOT NULL
    );
    CREATE INDEX mpflow_spaces_by_thread ON mpflow_spaces USING hash (thread_id);
    CREATE TABLE mpflow_rows (
        space uuid NOT NULL, checkpoint_id text COLLATE "C" NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY,
        kind smallint NOT NULL, base text COLLATE "C" NOT NULL, batch uuid NOT NULL, place int NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (space, checkpoint_id, seq),
        UNIQUE (batch, place)
    );
    CREATE INDEX mpflow_rows_of_steps ON mpflow_rows (space, checkpoint_id) WHERE kind = 0
    """,
)
MIGRATION_LOCK: Final = 0x6D70_666C_6F77_0001
"""The advisory lock of whoever migrates."""

HAS_SCHEMA: Final = "SELECT to_regclass('mpflow_schema') IS NOT NULL, current_schema()"
VERSION: Final = "SELECT coalesce(max(version), 0) FROM mpflow_schema"

_COLUMNS: Final = "r.checkpoint_id, r.kind, r.base, r.data"
_LAST: Final = (
    "WITH last AS (SELECT checkpoint_id, base FROM mpflow_rows WHERE space = %b AND kind = 0 {} "
    "ORDER BY checkpoint_id DESC LIMIT 1)"
)
_CHAIN_OF_LATEST: Final = (
    f"{_LAST.format('')} SELECT {_COLUMNS} FROM last JOIN mpflow_rows r ON r.space = %b "
    "AND r.checkpoint_id >= last.base AND r.checkpoint_id <= last.checkpoint_id ORDER BY r.checkpoint_id, r.seq"
)
_CHAINS: Final = (
    f"SELECT t.place, {_COLUMNS} FROM unnest(%b::uuid[]) WITH ORDINALITY AS t(space, place) "
    "CROSS JOIN LATERAL (SELECT checkpoint_id, base FROM mpflow_rows WHERE space = t.space AND kind = 0 "
    "ORDER BY checkpoint_id DESC LIMIT 1) AS last JOIN mpflow_rows r ON r.space = t.space "
    "AND r.checkpoint_id >= last.base AND r.checkpoint_id <= last.checkpoint_id ORDER BY t.place, r.checkpoint_id, r.seq"
)
_CHAIN_OF_ONE: Final = (
    f"{_LAST.format('AND checkpoint_id = %b')}, near AS (SELECT max(checkpoint_id) AS id FROM ("
    "SELECT n.checkpoint_id FROM last JOIN mpflow_rows n ON n.space = %b AND n.kind = 0 "
    f"AND n.checkpoint_id > last.checkpoint_id ORDER BY n.checkpoint_id LIMIT {NEAR}) AS after) "
    f"SELECT {_COLUMNS} FROM last CROSS JOIN near JOIN mpflow_rows r ON r.space = %b "
    "AND r.checkpoint_id >= last.base AND r.checkpoint_id <= coalesce(near.id, last.checkpoint_id) "
    "AND (r.kind = 0 OR r.checkpoint_id <= last.checkpoint_id) ORDER BY r.checkpoint_id, r.seq"
)
_INSERT: Final = (
    "spaces AS (INSERT INTO mpflow_spaces SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[]) ON CONFLICT DO NOTHING) "
    "INSERT INTO mpflow_rows (space, checkpoint_id, kind, base, data, batch, place) "
    "SELECT t.space, t.checkpoint_id, t.kind, t.base, t.data, %b, t.place "
    "FROM unnest(%b::uuid[], %b::text[], %b::smallint[], %b::text[], %b::bytea[]) "
    "WITH ORDINALITY AS t(space, checkpoint_id, kind, base, data, place) ORDER BY t.place ON CONFLICT DO NOTHING"
)
_DROP: Final = (
    "dropped AS (DELETE FROM mpflow_rows r USING unnest(%b::uuid[], %b::text[], %b::smallint[]) "
    "AS t(space, checkpoint_id, kind) "
    "WHERE r.space = t.space AND r.checkpoint_id = t.checkpoint_id AND r.kind = t.kind AND r.batch <> %b), "
)

DELETE_THREAD: Final = (
    "WITH gone AS (DELETE FROM mpflow_spaces WHERE thread_id = %b RETURNING space) "
    "DELETE FROM mpflow_rows WHERE space IN (SELECT space FROM gone)"
)
DELETE_STRAYS: Final = (
    "DELETE FROM mpflow_rows r WHERE NOT EXISTS (SELECT 1 FROM mpflow_spaces s WHERE s.space = r.space)"
)
ROWS: Final = (
    f"SELECT s.ns, {_COLUMNS} FROM mpflow_spaces s JOIN mpflow_rows r ON r.space = s.space "
    "WHERE s.thread_id = %b ORDER BY s.ns, r.seq"
)

LOCK: Final = "SELECT t.key FROM unnest(%b::bigint[]) AS t(key) WHERE NOT pg_try_advisory_lock(t.key)"
"""Take locks for this session; the keys of those that another session has."""
UNLOCK: Final = "SELECT pg_advisory_unlock(t.key) FROM unnest(%b::bigint[]) AS t(key)"
OWNER: Final = (
    "SELECT l.pid, coalesce(nullif(a.application_name, ''), host(a.client_addr), '') "
    "FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = "
    "current_database()) AND l.classid = %b::bigint::oid AND l.objid = %b::bigint::oid AND l.objsubid = 1"
)


def text(value: str) -> str:
    """`value`, if Postgres can keep it exactly. Raises ValueError."""
    if "\0" in value or not _is_encodable(value):
        raise ValueError(f"Postgres keeps no NUL and no lone surrogate in text: {value!r}")
    return value


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def space_of(thread_id: str, ns: str) -> UUID:
    """The key of a thread's namespace."""
    source = f"{len(thread_id)}:{text(thread_id)}{text(ns)}"
    return UUID(bytes=blake2b(source.encode(), digest_size=16).digest())


def lock_of(schema: str, thread_id: str) -> int:
    """The advisory lock of whoever runs a thread."""
    source = f"mpflow {len(schema)}:{schema}{text(thread_id)}"
    return int.from_bytes(blake2b(source.encode(), digest_size=8).digest(), "big", signed=True)


def owner(key: int) -> Statement:
    """Who has a lock: Postgres shows its key as two halves."""
    return OWNER, (key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF)


def new_batch() -> UUID:
    """A name for an insertion that no other has, made of the time, so that the index of names grows at its end."""
    return UUID(int=time.time_ns() << 64 | getrandbits(64))


def append(batches: Sequence[Batch], batch: UUID) -> Statement:
    """Add rows, in their order; nothing if they are there already, under this batch."""
    return f"WITH {_INSERT}", _insertion(batches, batch)


def rewrite(thread_id: str, drops: Sequence[Drop], rows: Sequence[Row], batch: UUID) -> Statement:
    """Delete rows and add others; again under the same batch it changes nothing."""
    dropped = [
        [space_of(thread_id, ns) for ns, _, _ in drops],
        [checkpoint_id for _, checkpoint_id, _ in drops],
        [kind for _, _, kind in drops],
        batch,
    ]
    return f"WITH {_DROP}{_INSERT}", [*dropped, *_insertion([(thread_id, rows)], batch)]


def _insertion(batches: Sequence[Batch], batch: UUID) -> list[Any]:
    spaces: dict[tuple[str, str], UUID] = {}
    owners: list[UUID] = []
    for thread_id, rows in batches:
        for row in rows:
            where = (thread_id, row.ns)
            space = spaces.get(where)
            if space is None:
                space = spaces[where] = space_of(thread_id, row.ns)
            owners.append(space)
    every = [row for _, rows in batches for row in rows]
    return [
        list(spaces.values()),
        [thread_id for thread_id, _ in spaces],
        [ns for _, ns in spaces],
        batch,
        owners,
        [text(row.checkpoint_id) for row in every],
        [row.kind for row in every],
        [text(row.base) for row in every],
        [row.data for row in every],
    ]


def chain(thread_id: str, ns: str, checkpoint_id: str | None) -> Statement:
    """The rows that the fold of a step needs."""
    space = space_of(thread_id, ns)
    if checkpoint_id is None:
        return _CHAIN_OF_LATEST, (space, space)
    return _CHAIN_OF_ONE, (space, text(checkpoint_id), space, space)


def chains(thread_ids: Sequence[str], ns: str) -> Statement:
    """As `chain`, of the latest step of each thread: before each row the thread's place, counted from 1."""
    return _CHAINS, ([space_of(thread_id, ns) for thread_id in thread_ids],)


def steps(thread_id: str | None, ns: str | None, before: str | None, limit: int | None) -> Statement:
    """Steps with their thread and namespace."""
    conditions, parameters = ["r.kind = 0"], []
    for condition, value in (("s.thread_id = %b", thread_id), ("s.ns = %b", ns), ("r.checkpoint_id < %b", before)):
        if value is not None:
            conditions.append(condition)
            parameters.append(text(value))
    statement = (
        f"SELECT s.thread_id, s.ns, {_COLUMNS} FROM mpflow_spaces s JOIN mpflow_rows r ON r.space = s.space "
        f"WHERE {' AND '.join(conditions)} ORDER BY r.checkpoint_id DESC, s.thread_id, s.ns LIMIT %b"
    )
    return statement, [*parameters, limit]
