"""The codec against pickle protocol 5 in the same process: encode plus decode, as a ratio. Figure to reach: 2.5.

`pytest bench/test_codec.py` prints pytest-benchmark's table of the codec alone; the ratio is in each row's extra info and is
asserted. `python bench/test_codec.py` prints the ratios alone.
"""

from __future__ import annotations

import pickle
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytest

from mpflow._wire.codec import Codec

COUNT = 50_000
MOST = 2.5


@dataclass
class Point:
    x: int
    y: float
    name: str


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    y: float
    name: str


def values() -> dict[str, Any]:
    rng = random.Random(7)
    return {
        "small tuples": [(i, i + 1) for i in range(COUNT)],
        "mixed tuples": [(i, f"name{i}", i * 0.5) for i in range(COUNT)],
        "dicts": [{"id": i, "name": f"name{i}", "score": i * 0.5} for i in range(COUNT)],
        "a set of ints": set(rng.sample(range(10**9), COUNT)),
        "small sets": [{i, i + 1, i + 2} for i in range(COUNT)],
        "dataclasses": [Point(i, i * 0.5, f"name{i}") for i in range(COUNT)],
        "slotted dataclasses": [Slotted(i, i * 0.5, f"name{i}") for i in range(COUNT)],
        "ints": list(range(COUNT)),
        "strings": [f"name{i}" for i in range(COUNT)],
    }


def best_of(action: Any, rounds: int = 15) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def ratio(value: Any, codec: Codec) -> tuple[float, float, float, float]:
    """Seconds of the codec's encode and decode, then of pickle's."""
    data, pickled = codec.encode(value), pickle.dumps(value, 5)
    return (
        best_of(lambda: codec.encode(value)),
        best_of(lambda: codec.decode(data)),
        best_of(lambda: pickle.dumps(value, 5)),
        best_of(lambda: pickle.loads(pickled)),
    )


@pytest.mark.parametrize("name", list(values()))
def test_encode_and_decode_against_pickle(name: str, benchmark: Any) -> None:
    codec = Codec(trust=True)
    value = values()[name]
    benchmark(lambda: codec.decode(codec.encode(value)))
    encode_s, decode_s, dumps_s, loads_s = ratio(value, codec)
    times = (encode_s + decode_s) / (dumps_s + loads_s)
    benchmark.extra_info["times pickle"] = round(times, 2)
    assert times <= MOST


def main() -> None:
    for trust in (True, False):
        codec = Codec(trust=trust, types=[Point, Slotted])
        print(f"trust={trust}: ms to encode, decode; pickle's; ratio")
        for name, value in values().items():
            e, d, pe, pd = (seconds * 1e3 for seconds in ratio(value, codec))
            print(f"  {name:20} {e:7.1f} {d:7.1f}   {pe:7.1f} {pd:7.1f}   {(e + d) / (pe + pd):5.2f}")


if __name__ == "__main__":
    sys.exit(main())
