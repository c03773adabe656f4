"""Mutated bytes by the million at all that reads the disk (FAULTS row 39 and the figure for the decoder)."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable
from typing import Any

import pytest

from mpflow._wire.codec import Codec, WireError
from mpflow.checkpoint.log import envelope
from mpflow.checkpoint.log.driver import RESULT, STEP, Row
from mpflow.checkpoint.log.patching import patch_of, patched
from mpflow.checkpoint.log.records import EXTEND, PATCH, SET, Frame, Part, Result, Step
from mpflow.errors import CheckpointCorruptError, StorageError
from tests.wire import shapes
from tests.wire.test_codec import VALUES

CODEC = Codec(types=shapes.ALL, trust=False, inert=True)
OLD = b"line of text, " * 40
SLOWEST_S = 0.1
MOST_GROWTH_BYTES = 64 << 20


def read_step(data: bytes) -> None:
    envelope.load_step("t", Row("", "2", STEP, "1", data + envelope._sum(data, "t", "", "2", STEP, "1")))


def read_result(data: bytes) -> None:
    envelope.load_result("t", Row("", "2", RESULT, "", data + envelope._sum(data, "t", "", "2", RESULT, "")))


def seeds() -> list[tuple[Callable[[bytes], Any], bytes]]:
    pack = CODEC.encode
    frame = Frame(
        pack({"source": "loop"}), v=4, names=["a"], gone=["d"], saw=[("n", ["a"])], updated=["a"],
        ops=[("a", SET, None), ("b", EXTEND, [0, 0]), ("c", PATCH, None)],
        parts=[Part("n", ("__pregel_pull", "n"), ("a",), ["b"]), None],
    )  # fmt: skip
    step = Step(
        "2", "1", frame, whole=False, number=1, version="1", versions={"b": "2"}, seen={"m": None},
        operands=[pack(1), b"\x90"], values=[pack([[1]])], numbers=[7], apart={0: {0: (SET, pack("text"))}},
    )  # fmt: skip
    result = Result("2", 7, "task", "path", ["a", "b"], pack([1, None]), {1: (SET, pack("text"))})
    patch = patch_of(OLD, OLD[:200] + b"changed" + OLD[200:])
    assert patch is not None
    return [
        *((CODEC.decode, CODEC.encode(value)[:2000]) for value in VALUES),
        (read_step, envelope.dump_step("t", "", step, "1").data[:-4]),
        (read_result, envelope.dump_result("t", "", result).data[:-4]),
        (lambda data: patched(OLD, data), patch),
    ]


def mutated(dice: random.Random, data: bytes) -> bytes:
    whole = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        choice = dice.random()
        at = dice.randrange(len(whole) + 1)
        if choice < 0.6 and at < len(whole):
            whole[at] = dice.randrange(256)
        elif choice < 0.75:
            del whole[at : at + dice.randrange(8)]
        elif choice < 0.9:
            whole[at:at] = dice.randbytes(dice.randrange(1, 6))
        else:
            other = dice.randrange(len(whole) + 1)
            whole[at:at] = whole[other : other + dice.randrange(16)]
    return bytes(whole)


def took_s(read: Callable[[bytes], Any], data: bytes) -> float:
    started = time.thread_time()
    try:
        read(data)
    except (WireError, CheckpointCorruptError, StorageError, ValueError):
        pass
    return time.thread_time() - started


def fuzz(count: int, seed: int) -> None:
    dice = random.Random(seed)
    known = seeds()
    for library in ("numpy", "pandas", "pyarrow"):  # the first value of one loads it, which is no hang
        pytest.importorskip(library)
    for read, data in known:
        read(data) if len(data) < 2000 else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        read, data = known[number % len(known)]
        data = mutated(dice, data)
        # The first value of a library loads it: what is slow is looked at once more.
        assert took_s(read, data) < SLOWEST_S or took_s(read, data) < SLOWEST_S, f"too slow: {data!r}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MOST_GROWTH_BYTES, f"memory grew by {grown >> 20} MiB"


def test_thousands_of_mutated_messages() -> None:
    fuzz(20_000, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_million_mutated_messages() -> None:
    fuzz(10_000_000, seed=random.randrange(1 << 30))
