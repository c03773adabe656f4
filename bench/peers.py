"""Pools of other libraries, each as a call that maps a function over tasks. Opened before the race, closed after it.

All start as many workers as we have, keep them between rounds, and raise ImportError where the library is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from bench.race import Race

CORES = len(os.sched_getaffinity(0))

Function = Callable[..., Any]
Tasks = Sequence[Any]
Mapping = Callable[[], Any]


def futures_map(race: Race, function: Function, tasks: Tasks, chunksize: int = 1) -> Mapping:
    pool = race.stack.enter_context(ProcessPoolExecutor(CORES, get_context("spawn")))
    return lambda: list(pool.map(function, tasks, chunksize=chunksize))


def loky_submits(race: Race, function: Function, tasks: Tasks) -> Mapping:
    import loky

    pool = loky.ProcessPoolExecutor(CORES)
    race.stack.callback(pool.shutdown)
    return lambda: wait([pool.submit(function, task) for task in tasks])


def joblib_batches(race: Race, function: Function, tasks: Tasks) -> Mapping:
    import joblib

    pool = race.stack.enter_context(joblib.Parallel(CORES))
    return lambda: pool(joblib.delayed(function)(task) for task in tasks)


def mpire_map(race: Race, function: Function, tasks: Tasks) -> Mapping:
    import mpire

    pool = race.stack.enter_context(mpire.WorkerPool(CORES, start_method="spawn", keep_alive=True))
    # In tuples: it would pass the items of a bare dict as keywords.
    return lambda: pool.map(function, [(task,) for task in tasks])


def ray(race: Race) -> Any:
    """Ray itself, started."""
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, configure_logging=False)
    race.stack.callback(ray.shutdown)
    return ray


def ray_tasks(race: Race, function: Function, tasks: Tasks) -> Mapping:
    started = ray(race)
    remote = started.remote(function)
    return lambda: started.get([remote.remote(task) for task in tasks])


def dask_map(race: Race, function: Function, tasks: Tasks) -> Mapping:
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=CORES, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    )
    client = distributed.Client(cluster)
    race.stack.callback(lambda: (client.close(), cluster.close()))
    # Impure: it would otherwise answer the second round from the first one's results.
    return lambda: client.gather(client.map(function, tasks, pure=False))
