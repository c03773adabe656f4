"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow has no RemoteGraph, which is a client of LangGraph's server. LangGraph's own is a node like any object with "
    "`invoke`: from langgraph.pregel.remote import RemoteGraph (pip install langgraph langgraph-sdk)"
)
