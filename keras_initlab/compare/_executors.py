"""Running tasks here, or in the processes of an executor."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import keras

from .._core.errors import message
from .._keras.private import start_method
from ._training import Task, carry_out, check_backend, told

Outcomes = Generator[tuple[Task, dict[str, Any]], None, None]

# A forked process has its parent's, but another process number; one on another machine
# may have the same number.
_TOKEN = uuid.uuid4().hex


def in_turn(
    tasks: Sequence[Task], begin: Callable[[Task], Any], on_epoch: Callable[[], Any]
) -> Outcomes:
    """Carries tasks out one after the other, and yields what each hands back."""
    for task in tasks:
        begin(task)
        yield task, carry_out(task, on_epoch)


def elsewhere(tasks: Sequence[Task], executor: Any) -> Outcomes:
    """Has an executor carry tasks out, and yields what they hand back as it comes.

    Where a worker died, or the executor ends, that is what its tasks hand back.
    """
    futures: dict[Future[Any], Task] = {}
    # `as_completed` never hears of what an executor cancels as it ends.
    done: SimpleQueue[Future[Any]] = SimpleQueue()
    try:
        for task in tasks:
            try:
                future = executor.submit(carry_out, task)
            except Exception as error:  # whatever an executor raises that has ended
                yield task, {"error": told(error)}
                continue
            futures[future] = task
            future.add_done_callback(done.put)
        for _ in range(len(futures)):
            future = done.get()
            yield futures[future], _outcome(future)
    finally:
        for future in futures:
            future.cancel()


def _outcome(future: Future[Any]) -> dict[str, Any]:
    try:
        return future.result()
    except Exception as error:  # the worker died, or the task cannot be sent to it
        return {"error": told(error)}


def check_executor(executor: Any) -> None:
    """Raises unless an executor runs in other processes, with our Keras backend.

    It is asked for the process that it runs in, so one whose type is not known is
    judged too.
    """
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(
            message(
                "`executor` must be a `concurrent.futures.Executor`.",
                f"executor={executor!r}",
                "For a Dask `Client` pass `client.get_executor()`.",
            )
        )
    if isinstance(executor, ThreadPoolExecutor):
        raise ValueError(_not_here(executor))
    if start_method(executor) == "fork":
        raise ValueError(
            message(
                "The processes of `executor` must be spawned: Keras's backends do not "
                "survive a fork.",
                f"{type(executor).__name__} that forks",
                'Pass `mp_context=multiprocessing.get_context("spawn")` to it.',
            )
        )
    try:
        process, backend = executor.submit(_whereabouts).result()
    except Exception as error:
        raise RuntimeError(
            message(
                "`executor` must be able to run a task.",
                f"{type(executor).__name__} with {told(error).rstrip('.')}",
                "Pass a new one.",
            )
        ) from error
    if process == _whereabouts()[0]:
        raise ValueError(_not_here(executor))
    check_backend(backend, keras.backend.backend())


def _whereabouts() -> tuple[tuple[str, int], str]:
    return (_TOKEN, os.getpid()), keras.backend.backend()


def _not_here(executor: Any) -> str:
    return message(
        "`executor` must run in other processes: threads share Keras's global seed and "
        "the state of its backend.",
        f"{type(executor).__name__} that runs in this one",
        "Pass a `ProcessPoolExecutor` that spawns, or that of a Dask cluster with "
        "processes.",
    )
