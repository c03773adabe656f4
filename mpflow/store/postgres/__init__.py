"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow has no store on PostgreSQL. mpflow.store.sqlite has SqliteStore and AsyncSqliteStore, and compile(store=) takes "
    "any mpflow.store.base.BaseStore. Checkpoints can be kept on PostgreSQL: mpflow.checkpoint.postgres"
)
