"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow.utils is not there, as LangGraph keeps it for old programs only: get_config and get_store are in "
    "mpflow.config, RunnableLambda is in mpflow.runnables"
)
