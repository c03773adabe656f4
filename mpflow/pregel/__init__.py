"""The compiled graph: a thin facade whose methods delegate at once."""

from mpflow.pregel.main import Pregel

__all__ = ("Pregel",)
