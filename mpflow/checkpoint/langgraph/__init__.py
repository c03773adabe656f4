"""The way to and from LangGraph: its savers under mpflow's graphs, mpflow's savers under its graphs, its databases read.

The package langgraph is imported when an adapter is made, and not at all to read a database.
"""

from mpflow.checkpoint.langgraph.adapting import LangGraphSaver, to_langgraph
from mpflow.checkpoint.langgraph.importing import ImportReport, import_sqlite

__all__ = ("ImportReport", "LangGraphSaver", "import_sqlite", "to_langgraph")
