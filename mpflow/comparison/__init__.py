"""One graph on one input under threads and under processes: measured, judged node by node, shown."""

from mpflow.comparison.measure import compare
from mpflow.comparison.records import Comparison, Measurement, NodeTimes, Verdict

__all__ = ("Comparison", "Measurement", "NodeTimes", "Verdict", "compare")
