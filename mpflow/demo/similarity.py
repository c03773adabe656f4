"""How alike two texts are, from small signatures: winnowed shingles, one-permutation MinHash, banding.

Everything is plain integer arithmetic on checksums that are the same in every process. Nothing here knows of Python code.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

SHINGLE = 6
"""Words in a shingle."""
WINDOW = 8
"""Any run of SHINGLE + WINDOW - 1 equal words leaves at least one equal fingerprint (Schleimer, Wilkerson, Aiken 2003)."""
SLOTS = 64
BANDS = 16
"""Bands of SLOTS / BANDS = 4 slots: pairs at a similarity of (1/16)^(1/4) = 0.5 meet with a probability near 2/3."""
FEWEST_FINGERPRINTS = 16
"""Texts with fewer say too little: every short file of imports would resemble every other."""
BUCKET_NEIGHBOURS = 50
"""Compared with each member of a bucket, so that thousands of like files don't make millions of pairs."""

_MASK = (1 << 64) - 1
_BASE = 0x9E3779B97F4A7C15
_EMPTY = -1


def signature(words: Sequence[str]) -> list[int] | None:
    """A text's MinHash signature of SLOTS numbers below 2**32, or None if the text is too short to have one.

    One permutation serves for all slots (Li, Owen, Zhang 2012): the fingerprints' range is cut into SLOTS bins, each
    keeps its least. An empty bin borrows from the next full one (Shrivastava, Li 2014).
    """
    found = fingerprints(words)
    if len(found) < FEWEST_FINGERPRINTS:
        return None
    slots = [_EMPTY] * SLOTS
    for value in found:
        slot, rest = value % SLOTS, value >> 32
        if slots[slot] == _EMPTY or rest < slots[slot]:
            slots[slot] = rest
    full = [i for i, rest in enumerate(slots) if rest != _EMPTY]
    lenders = iter([*full, full[0] + SLOTS])
    lender = next(lenders)
    dense = []
    for i in range(SLOTS):
        if lender < i:
            lender = next(lenders)
        # The distance enters the number, else two texts with the same gaps would agree by borrowing alone.
        dense.append((slots[lender % SLOTS] + (lender - i) * 0x9E3779B1) & 0xFFFFFFFF)
    return dense


def fingerprints(words: Sequence[str]) -> set[int]:
    """The winnowed shingles of a text: of every WINDOW neighbouring shingles the one with the least checksum."""
    memo: dict[str, int] = {}
    hashes: list[int] = []
    leaving = pow(_BASE, SHINGLE, 1 << 64)
    rolling = 0
    recent = [0] * SHINGLE
    for i, word in enumerate(words):
        code = memo.get(word)
        if code is None:
            code = memo[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) + 1
        oldest = recent[i % SHINGLE]
        recent[i % SHINGLE] = code
        rolling = (rolling * _BASE + code - oldest * leaving) & _MASK
        if i >= SHINGLE - 1:
            hashes.append(_mix(rolling))
    return {min(hashes[i : i + WINDOW]) for i in range(max(1, len(hashes) - WINDOW + 1))} if hashes else set()


def _mix(value: int) -> int:
    """Spread a polynomial's value over all 64 bits (the finisher of MurmurHash3), so that bins are filled evenly."""
    value = (value ^ (value >> 33)) * 0xFF51AFD7ED558CCD & _MASK
    return value ^ (value >> 33)


def similarity(a: Sequence[int], b: Sequence[int]) -> float:
    """The estimated Jaccard similarity of two texts: the share of slots in which their signatures agree."""
    return sum(x == y for x, y in zip(a, b, strict=True)) / SLOTS


def closest_pairs(signatures: Mapping[str, Sequence[int]], at_least: float = 0.5) -> list[tuple[float, str, str]]:
    """The pairs of names whose texts are that similar, the closest first, then by name.

    Locality-sensitive hashing finds the candidates: two signatures that agree in a whole band meet in its bucket.
    """
    found = {}
    for pair in _candidates(signatures):
        if pair not in found:
            found[pair] = similarity(signatures[pair[0]], signatures[pair[1]])
    pairs = [(score, a, b) for (a, b), score in found.items() if score >= at_least]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))


def _candidates(signatures: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str]]:
    rows = SLOTS // BANDS
    buckets: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for name in sorted(signatures):
        for band in range(BANDS):
            key = (band, *signatures[name][band * rows : (band + 1) * rows])
            buckets[key].append(name)
    for names in buckets.values():
        for i, name in enumerate(names):
            for other in names[i + 1 : i + 1 + BUCKET_NEIGHBOURS]:
                yield name, other
