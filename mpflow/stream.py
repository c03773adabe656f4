"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow.stream is not there: the third version of LangGraph's event streams belongs to its platform. "
    "stream(..., stream_mode=[...], subgraphs=True, version='v2') gives the same parts, "
    "astream_events(version='v2') langchain's events"
)
