"""Stores in SQLite files, for both colours."""

from mpflow.store.sqlite.aio import AsyncSqliteStore
from mpflow.store.sqlite.base import SqliteStore

__all__ = ("AsyncSqliteStore", "SqliteStore")
