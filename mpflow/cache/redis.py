"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow has no cache on Redis. mpflow.cache.sqlite.SqliteCache is shared by the processes of a machine, and "
    "compile(cache=) takes any mpflow.cache.base.BaseCache"
)
