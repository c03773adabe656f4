"""Where a task runs: in the calling thread, a thread pool, the event loop, worker processes, or any executor."""
