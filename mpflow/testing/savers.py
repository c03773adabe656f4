"""The conformance suite as a whole, for pytest to collect or for `check_saver` to run."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from unittest import SkipTest

from mpflow.testing.crashing import Crashes
from mpflow.testing.protocol import Checkpoints, Listings, PendingWrites
from mpflow.testing.running import Runs
from mpflow.testing.threads import ManyHands, OddIds, Threads


class SaverConformance(Checkpoints, Listings, PendingWrites, Threads, OddIds, ManyHands, Runs, Crashes):
    """All that mpflow asks of a saver. Subclass it in a test module, under a name that begins with ``Test``::

        class TestMySaver(SaverConformance):
            persistent = True

            def open(self, place):
                return MySaver.from_conn_string(str(place / "saver.db"))

    pytest then runs every check in both colours. Without pytest: ``print(check_saver(TestMySaver()))``.
    """


@dataclass(slots=True)
class Report:
    """What came of a saver's checks: the names of those that passed, and of the others why they did not."""

    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"]
        lines += [f"skipped {name}: {why}" for name, why in self.skipped.items()]
        lines += [f"FAILED {name}\n{story}" for name, story in self.failed.items()]
        return "\n".join(lines)


def check_saver(suite: SaverConformance) -> Report:
    """Run every check of the suite in each of its colours; what came of them. Raises nothing that a check raises.

    Raises TypeError for anything but a suite, such as the saver itself: it has no checks, of which none would fail.
    """
    if not isinstance(suite, SaverConformance):
        raise TypeError(f"check_saver needs an instance of your subclass of SaverConformance, got {suite!r}")
    report = Report()
    for name in sorted(name for name in dir(suite) if name.startswith("test_")):
        for colour in suite.colours:
            label = f"{name}[{colour}]"
            try:
                getattr(suite, name)(colour)
            except SkipTest as skip:
                report.skipped[label] = str(skip)
            except Exception:
                report.failed[label] = traceback.format_exc()
            else:
                report.passed.append(label)
    return report
