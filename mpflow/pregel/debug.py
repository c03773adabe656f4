"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow.pregel.debug is not there: what it made is streamed, as stream_mode='tasks', 'checkpoints' or 'debug'"
)
