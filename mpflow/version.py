"""The version, under the path where LangGraph has its own."""

from mpflow import __version__

__all__ = ("__version__",)
