"""Graphs of every kind of work, for the places that a node may run at: what `executor="auto"` is measured with."""

from __future__ import annotations

import asyncio
import hashlib
import json
import operator
import random
import re
import socket
import socketserver
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from mpflow.graph import END, START, StateGraph
from mpflow.types import Send

Job = Callable[[], Any]
Make = Callable[[Any], Job]


class Total(TypedDict, total=False):
    total: Annotated[int, operator.add]


def burn(turns: int) -> int:
    x = 1
    for _ in range(turns):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
    return x


DATA = bytes(range(256)) * 8192


def computes(task: Any) -> Any:
    return {"total": burn(task["turns"]) & 1}


def adds(task: Any) -> Any:
    return {"total": 1}


def hashes(task: Any) -> Any:
    return {"total": hashlib.sha256(DATA).digest()[0]}


def compresses(task: Any) -> Any:
    return {"total": len(zlib.compress(DATA, 6))}


def multiplies(task: Any) -> Any:
    import numpy

    square = numpy.ones((300, 300))
    for _ in range(6):
        square = square @ square / 300
    return {"total": int(square[0, 0])}


def sleeps(task: Any) -> Any:
    time.sleep(0.02)
    return {"total": 1}


def asks(task: Any) -> Any:
    with socket.create_connection(("127.0.0.1", task["port"])) as link:
        link.sendall(b"?")
        return {"total": len(link.recv(16))}


def sums(task: Any) -> Any:
    return {"total": int(sum(task["numbers"])) & 1}


def sums_an_array(task: Any) -> Any:
    return {"total": int(task["array"].sum()) & 1}


class Rows(TypedDict, total=False):
    rows: Annotated[list[Any], operator.add]


def lists(task: Any) -> Any:
    return {"rows": [[float(n) for n in range(task["count"])]]}


def generates(task: Any) -> Any:
    return {"total": sum(n * n % 7 for n in (m + 1 for m in range(task["turns"]))) & 1}


def collecting() -> Callable[[Any], Any]:
    seen: list[int] = []

    def collects(task: Any) -> Any:
        seen.append(burn(task["turns"]))
        return {"total": 1}

    return collects


def locking() -> Callable[[Any], Any]:
    lock = threading.Lock()

    def locks(task: Any) -> Any:
        with lock:
            pass
        return {"total": burn(task["turns"]) & 1}

    return locks


def fan(node: Any, tasks: list[Any], state: Any = Total) -> Make:
    def make(place: Any) -> Job:
        graph = StateGraph(state).add_node("work", node, executor=place)
        graph.add_conditional_edges(START, lambda _: [Send("work", task) for task in tasks], ["work"])
        app = graph.compile()
        return lambda: app.invoke({})

    return make


def star(nodes: dict[str, Any], given: dict[str, Any]) -> Make:
    def make(place: Any) -> Job:
        class Given(Total, total=False):
            turns: int

        graph = StateGraph(Given)
        for name, node in nodes.items():
            graph.add_node(name, node, executor=place).add_edge(START, name)
        app = graph.compile()
        return lambda: app.invoke(given)

    return make


def chain(place: Any) -> Job:
    class Given(Total, total=False):
        turns: int

    graph = StateGraph(Given).add_sequence([(f"n{i}", computes) for i in range(6)]).add_edge(START, "n0")
    app = graph.compile(executor=place)
    return lambda: app.invoke({"turns": 60_000})


def nested(place: Any) -> Job:
    """A graph as a node: in a worker it runs there as a whole, under "auto" its own nodes are placed."""
    inner = StateGraph(Total).add_node("work", computes, executor="inline" if place == "process" else place)
    inner.add_conditional_edges(START, lambda _: [Send("work", {"turns": 120_000}) for _ in range(6)], ["work"])
    return fan(inner.compile(), [{"total": 0} for _ in range(4)])(place)


def batch(place: Any) -> Job:
    class Given(Total, total=False):
        turns: int

    app = StateGraph(Given).add_node("work", computes, executor=place).add_edge(START, "work").compile()
    return lambda: app.batch([{"turns": 120_000}] * 24, {"max_concurrency": 6})


# -- as people write them -----------------------------------------------------------------------------------------------

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def counts_words(task: Any) -> Any:
    found: dict[str, int] = {}
    for match in WORD.finditer(task["text"].lower()):
        found[match.group()] = found.get(match.group(), 0) + 1
    return {"total": max(found.values()) & 1}


def parses(task: Any) -> Any:
    return {"total": len(json.loads(task["text"])) & 1}


def groups(task: Any) -> Any:
    import numpy
    import pandas

    chance = numpy.random.default_rng(task["seed"])
    table = pandas.DataFrame({"key": chance.integers(0, 50, 60_000).astype(str), "value": chance.normal(size=60_000)})
    best = table.groupby("key")["value"].agg(["mean", "std", "max"]).sort_values("mean").index[-1]
    return {"total": int(best) & 1}


class Images(TypedDict, total=False):
    images: Annotated[list[Any], operator.add]


def blurs(task: Any) -> Any:
    image = task["image"].astype("f4")
    for _ in range(4):
        image[1:-1, 1:-1] = (image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]) / 4
    return {"images": [image.astype("u1")]}


def calls_a_program(task: Any) -> Any:
    return {"total": subprocess.run(["sleep", "0.02"], check=True).returncode}


def simulates(task: Any) -> Any:
    chance = random.Random(task["seed"])
    wealth = [100] * 50
    for _ in range(task["turns"]):
        giver, taker = chance.randrange(50), chance.randrange(50)
        gift = min(wealth[giver], chance.randint(0, 9))
        wealth[giver] -= gift
        wealth[taker] += gift
    return {"total": max(wealth) & 1}


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def recurs(task: Any) -> Any:
    return {"total": fibonacci(task["n"]) & 1}


class Steps(TypedDict, total=False):
    step: int


def steps(state: Any) -> Any:
    burn(30_000)
    return {"step": state.get("step", 0) + 1}


def loop(place: Any) -> Job:
    """One node after another, again and again: nothing could run beside it."""
    graph = StateGraph(Steps).add_node("steps", steps, executor=place).add_edge(START, "steps")
    graph.add_conditional_edges("steps", lambda state: "steps" if state["step"] < 50 else END)
    app = graph.compile()
    return lambda: app.invoke({}, {"recursion_limit": 100})


class Parts(TypedDict, total=False):
    parts: Annotated[list[int], operator.add]
    totals: Annotated[list[int], operator.add]


def maps(task: Any) -> Any:
    return {"parts": [burn(task["turns"]) & 7]}


def reduces(task: Any) -> Any:
    return {"totals": [sum(task["parts"]) + burn(60_000) % 2]}


def two_stages(place: Any) -> Job:
    graph = StateGraph(Parts)
    graph.add_node("maps", maps, executor=place).add_node("reduces", reduces, executor=place)
    graph.add_node("gathers", lambda state: {}, executor="inline").add_edge("maps", "gathers")
    graph.add_conditional_edges(START, lambda _: [Send("maps", {"turns": 60_000})] * 40, ["maps"])
    shares = [Send("reduces", {"parts": [n, n + 1]}) for n in range(10)]
    graph.add_conditional_edges("gathers", lambda _: shares, ["reduces"])
    app = graph.compile()
    return lambda: app.invoke({})


def as_completed(place: Any) -> Job:
    class Given(Total, total=False):
        turns: int

    app = StateGraph(Given).add_node("work", computes, executor=place).add_edge(START, "work").compile()
    return lambda: list(app.batch_as_completed([{"turns": 120_000}] * 24, {"max_concurrency": 6}))


def awaited(place: Any) -> Job:
    graph = StateGraph(Total).add_node("work", computes, executor=place)
    graph.add_conditional_edges(START, lambda _: [Send("work", {"turns": 120_000})] * 24, ["work"])
    app = graph.compile()
    return lambda: asyncio.run(app.ainvoke({}))


def two_at_once(place: Any) -> Job:
    """Two threads of the program, each with a run of its own."""
    run = fan(computes, [{"turns": 120_000}] * 12)(place)

    def both() -> None:
        other = threading.Thread(target=run)
        other.start()
        run()
        other.join()

    return both


def everyday() -> dict[str, Make]:
    import numpy

    text = " ".join(f"it's word {n % 997} of many" for n in range(4_000))
    data = json.dumps([{"id": n, "name": f"n{n}", "tags": ["a", "b"], "at": n / 7} for n in range(8_000)])
    image = numpy.arange(1_000_000, dtype="u1").reshape(1000, 1000)
    return {
        "words of texts, 24": fan(counts_words, [{"text": text}] * 24),
        "JSON of 500 KB, 24": fan(parses, [{"text": data}] * 24),
        "pandas groups, 24": fan(groups, [{"seed": n} for n in range(24)]),
        "images of 1 MB, 16": fan(blurs, [{"image": image}] * 16, Images),
        "a program of 20 ms, 24": fan(calls_a_program, [{"n": n} for n in range(24)]),
        "a simulation by a seed, 24": fan(simulates, [{"seed": n, "turns": 8_000} for n in range(24)]),
        "recursion, 24": fan(recurs, [{"n": 20}] * 24),
        "some of 1 ms, some of 200 ms": fan(
            computes, [{"turns": 2_400_000 if n % 16 == 7 else 12_000} for n in range(48)]
        ),
        "a loop of 50 steps of 3 ms": loop,
        "two stages, 40 and 10": two_stages,
        "as they are completed, 24": as_completed,
        "awaited, 24 of 10 ms": awaited,
        "two runs at once, 12 of 10 ms": two_at_once,
    }


class Slow(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(16)
        time.sleep(0.02)
        self.request.sendall(b"!")


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64
    daemon_threads = True


def graphs(port: int) -> dict[str, Make]:
    """All of them, by name. `port` is that of a `Slow` server."""
    import numpy

    numbers = [{"numbers": [float(n) for n in range(200_000)]} for _ in range(8)]
    arrays = [{"array": numpy.ones(2_000_000)} for _ in range(8)]
    return {
        "pure Python, 40 of 20 ms": fan(computes, [{"turns": 240_000}] * 40),
        "pure Python, 200 of 2 ms": fan(computes, [{"turns": 24_000}] * 200),
        "pure Python, 400 of 0.4 ms": fan(computes, [{"turns": 5_000}] * 400),
        "tiny, 2000": fan(adds, [{"n": n} for n in range(2000)]),
        "sha256 of 2 MB, 60": fan(hashes, [{"n": n} for n in range(60)]),
        "zlib of 2 MB, 24": fan(compresses, [{"n": n} for n in range(24)]),
        "numpy products, 60": fan(multiplies, [{"n": n} for n in range(60)]),
        "sleep of 20 ms, 48": fan(sleeps, [{"n": n} for n in range(48)]),
        "a local server of 20 ms, 48": fan(asks, [{"port": port}] * 48),
        "large lists in, 8": fan(sums, numbers),
        "large arrays in, 8": fan(sums_an_array, arrays),
        "large lists out, 8": fan(lists, [{"count": 200_000}] * 8, Rows),
        "a closure that collects, 24 of 10 ms": fan(collecting(), [{"turns": 120_000}] * 24),
        "a closure that locks, 24 of 10 ms": fan(locking(), [{"turns": 120_000}] * 24),
        "generators, 24 of 10 ms": fan(generates, [{"turns": 100_000}] * 24),
        "skew: one of 200 ms, 40 of 5 ms": fan(computes, [{"turns": 2_400_000}, *[{"turns": 60_000}] * 40]),
        "four nodes of 40 ms side by side": star(dict.fromkeys("abcd", computes), {"turns": 480_000}),
        "two nodes that compute, two that sleep": star(
            {"a": computes, "b": computes, "c": sleeps, "d": sleeps}, {"turns": 240_000}
        ),
        "a chain of six nodes of 5 ms": chain,
        "graphs as nodes": nested,
        "a batch of 24 runs of 10 ms": batch,
        **everyday(),
    }


UNFIT = {("a closure that collects, 24 of 10 ms", "process"), ("a closure that locks, 24 of 10 ms", "process")}
"""What cannot run there, or comes to something else."""
