"""What the authors of a saver need to test it: a conformance suite that runs under pytest and without it."""

from mpflow.testing.plain import PlainSaver
from mpflow.testing.savers import Report, SaverConformance, check_saver

__all__ = ("PlainSaver", "Report", "SaverConformance", "check_saver")
