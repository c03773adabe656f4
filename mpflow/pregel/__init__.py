"""The compiled graph: a thin facade whose methods delegate at once."""

from mpflow.pregel.main import Pregel
from mpflow.pregel.nodes import NodeBuilder

__all__ = ("NodeBuilder", "Pregel")
