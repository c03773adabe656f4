"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow has no prebuilt agents or tool nodes. Those of LangGraph run on mpflow as they are: build one with "
    "langgraph.prebuilt (pip install langgraph) or langchain.agents, and give it to mpflow.from_langgraph(agent), or add "
    "it to a graph as a node"
)
