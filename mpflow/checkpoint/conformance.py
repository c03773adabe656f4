"""What mpflow does not have: importing this says what to use instead."""

raise ImportError(
    "mpflow's tests of savers are mpflow.testing: SaverConformance and check_saver. LangGraph's own, "
    "langgraph.checkpoint.conformance (pip install langgraph-checkpoint-conformance), take savers of mpflow as they are"
)
