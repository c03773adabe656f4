"""What the demonstration finds out, as plain data that compares equal: totals, extremes, pairs, and what did not parse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypedDict

from mpflow.demo.analysis import Analysis

KEPT = 10
"""Rows kept in each list of extremes."""


class Package(TypedDict):
    """A package's totals; modules at the root are together the package ``"."``."""

    name: str
    files: int
    lines: int
    functions: int
    complexity: float


class ComplexFunction(TypedDict):
    """A function, where it is, and its cyclomatic complexity."""

    where: str
    name: str
    complexity: int


class Pair(TypedDict):
    """Two files and their estimated Jaccard similarity."""

    similarity: float
    one: str
    other: str


class Problem(TypedDict):
    """A file that could not be analysed, and why."""

    path: str
    reason: str


class Report(TypedDict):
    """All of it. `complexity` is the mean over functions, `volume` Halstead's in total."""

    files: int
    lines: int
    tokens: int
    functions: int
    complexity: float
    volume: float
    packages: list[Package]
    most_complex: list[ComplexFunction]
    hardest: list[str]
    similar_pairs: int
    closest: list[Pair]
    problems: list[Problem]


def summarise(analyses: Sequence[Analysis], pairs: Sequence[tuple[float, str, str]]) -> Report:
    """Reduce the analyses to a report. Their order does not matter."""
    analyses = sorted(analyses, key=lambda a: a["path"])
    usable = [a for a in analyses if a["problem"] is None]
    functions = [
        ComplexFunction(where=f"{a['path']}:{f['line']}", name=f["name"], complexity=f["complexity"])
        for a in usable
        for f in a["most_complex"]
    ]
    functions.sort(key=lambda f: (-f["complexity"], f["where"], f["name"]))
    hardest = sorted(usable, key=lambda a: (-a["difficulty"], a["path"]))
    return Report(
        files=len(analyses),
        lines=sum(a["lines"] for a in usable),
        tokens=sum(a["tokens"] for a in usable),
        functions=sum(a["functions"] for a in usable),
        complexity=_mean_complexity(usable),
        volume=round(sum(a["volume"] for a in usable), 1),
        packages=_packages(usable)[:KEPT],
        most_complex=functions[:KEPT],
        hardest=[a["path"] for a in hardest[:KEPT]],
        similar_pairs=len(pairs),
        closest=[Pair(similarity=score, one=one, other=other) for score, one, other in pairs[:KEPT]],
        problems=[Problem(path=a["path"], reason=a["problem"]) for a in analyses if a["problem"] is not None],
    )


def _packages(analyses: Sequence[Analysis]) -> list[Package]:
    members: defaultdict[str, list[Analysis]] = defaultdict(list)
    for analysis in analyses:
        members[analysis["path"].partition("/")[0] if "/" in analysis["path"] else "."].append(analysis)
    packages = [
        Package(
            name=name,
            files=len(files),
            lines=sum(a["lines"] for a in files),
            functions=sum(a["functions"] for a in files),
            complexity=_mean_complexity(files),
        )
        for name, files in members.items()
    ]
    return sorted(packages, key=lambda p: (-p["lines"], p["name"]))


def _mean_complexity(analyses: Sequence[Analysis]) -> float:
    functions = sum(a["functions"] for a in analyses)
    return round(sum(a["complexity"] for a in analyses) / functions, 2) if functions else 0.0


def differences(one: Report, other: Report) -> list[str]:
    """Which parts of two reports are not equal, each with what the two say."""
    return [f"{part}: {value!r} is not {other.get(part)!r}" for part, value in one.items() if value != other.get(part)]
