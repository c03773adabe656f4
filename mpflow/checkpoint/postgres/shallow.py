"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow has no shallow saver, which LangGraph gave up too: mpflow.checkpoint.postgres has PostgresSaver and "
    "AsyncPostgresSaver, and prune(thread_ids) leaves a thread's last checkpoint alone"
)
