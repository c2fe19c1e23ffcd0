"""`compare`: the front door."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from .._core.errors import check_count, check_verbose, message
from ._comparison import Comparison
from ._data import Data, checked_data, data_fingerprint, first_inputs, load
from ._executors import check_executor, elsewhere, in_turn
from ._fingerprint import model_fingerprint
from ._progress import Reporter
from ._results import ResultsFile
from ._run import Run
from ._starts import built, described, labeled, takes_initializer
from ._training import Task

_MOST_ERRORS = 3


def compare(
    build: Callable[..., keras.Model],
    initializers: Sequence[Any] | Mapping[str, Any],
    data: Any,
    epochs: int,
    seeds: Iterable[int] = (0,),
    executor: Any = None,
    *,
    batch_size: int = 32,
    results: str | os.PathLike[str] | None = None,
    accuracy: str | None = None,
    verbose: int | str = 1,
) -> Comparison:
    """Trains the same model from several initializers and ranks them.

    Every run builds the model, draws its weights by its seed and trains it by `fit`.
    Under one seed all initializers see the same batches in the same order. The same
    call gives the same figures, times aside, here and in other processes on the same
    kind of machine. After each epoch the test loss and accuracy are taken; the training
    loss and accuracy are Keras's own, means over the epoch's batches, each before its
    update. The gradient norm is the L2 norm over all variables of the gradients that
    train the model, before clipping, averaged over the epoch's steps, each before its
    update. With `batch_size` no smaller than the training set there is one step an
    epoch, and both are exactly those of the weights before it.

    Keras's global seed is set by every run that runs in this process. TensorFlow's
    warning that Keras retraces its train functions is held back meanwhile: each run
    has a model of its own.

    Args:
        build: a function that returns a compiled model. Without arguments, every
            layer's kernel initializer (`depthwise_` and `pointwise_initializer` too) is
            set to the one that is compared. With one that is needed, or whose name ends
            in `initializer`, it gets the initializer and decides where it goes.
            Either way all weights that are not frozen are then drawn anew, each from
            its own seed, as `reinitialize` does.
        initializers: a list, or a dict of labels, of Keras's names, initializers of any
            kind, `"recommended"` (by `recommend` for the first training batch),
            `"calibrated"` (the model as it is built, by `calibrate` on that batch) and
            `"default"` or None (the model as it is built, nothing drawn anew; `build`
            is called with None if it needs an argument).
        data: `((x, y), (x_test, y_test))`, arrays or nests of them, or a function
            without arguments that returns that. A function is cheaper to send to other
            processes than arrays.
        epochs: how long to train, at least 1.
        seeds: seeds, non-negative ints. One cannot tell a difference from chance.
        executor: None to run here, or a `concurrent.futures.Executor` that runs in
            other processes: a `ProcessPoolExecutor` that spawns, or
            `dask.distributed`'s `Client.get_executor()`. `build` and `data` are sent to
            it, so a `ProcessPoolExecutor` needs functions of a module that its
            processes can import. A worker that dies fails its run, or with a
            `ProcessPoolExecutor` all that are left: call again with `results` and a
            new executor.
        batch_size: examples a step, at least 1.
        results: a file of JSON lines that each finished run is added to at once. A call
            that finds runs in it does only the others. Seeds and initializers may be
            added later; all else must be the same. What failed is tried again.
        accuracy: the metric that counts as accuracy; None for the first whose name ends
            in `accuracy` or `acc`. Without one the test loss decides.
        verbose: 1 or "auto" to show which run, which epoch and the time left, and a
            line for each run that ends; 2 for the lines alone; 0 for silence.

    Returns:
        A `Comparison`: print it, or ask for its `ranking`, `runs`, `plot`. A run that
        failed is in it with its error.

    Raises:
        TypeError: if `build` or `executor` cannot be called as described.
        ValueError: for an argument out of range, an initializer that Keras does not
            know, an executor of threads or of forked processes, or a results file of
            another comparison.
        RuntimeError: if every run failed, the executor has ended, or its workers use
            another Keras backend.

    Example:
        >>> def build():
        ...     layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(1)]
        ...     model = keras.Sequential([keras.Input((4,)), *layers])
        ...     model.compile(keras.optimizers.SGD(0.1), "mse")
        ...     return model
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> y = x.sum(axis=1, keepdims=True)
        >>> compared = compare(
        ...     build, ["zeros", "he_normal"], ((x, y), (x, y)), epochs=3, verbose=0
        ... )
        >>> compared.best
        'he_normal'
    """
    takes_initializer(build)
    compared, data = labeled(initializers), checked_data(data)
    seeds = _checked_seeds(seeds)
    budget = _checked_budget(epochs, batch_size, accuracy)
    verbose = check_verbose(verbose)
    if executor is not None:
        check_executor(executor)
    elif callable(data):
        data = load(data)
    file = _file(results, build, compared, data, budget)
    finished = dict(file.finished) if file else {}
    # Seed by seed, so that after an interruption each initializer has had as many.
    pairs = [(label, seed) for seed in seeds for label in compared]
    asker = keras.config.backend()
    tasks = [
        Task(label, compared[label], seed, build, data, asker, **budget)
        for label, seed in pairs
        if (label, seed) not in finished
    ]
    found = len(pairs) - len(tasks)
    with Reporter(len(tasks), budget["epochs"], found, verbose) as reporter:
        finished |= _carried_out(tasks, executor, file, reporter)
    runs = [
        Run.of(label, seed, finished[label, seed])
        for label in compared
        for seed in seeds
    ]
    _check_any(runs)
    return Comparison(
        tuple(compared), seeds, runs, budget["epochs"], budget["batch_size"]
    )


def _checked_budget(epochs: Any, batch_size: Any, accuracy: Any) -> dict[str, Any]:
    """What all runs have in common, as the tasks and the file name it."""
    if not isinstance(accuracy, (str, type(None))):
        raise ValueError(
            message(
                "`accuracy` must be the name of a metric, or None.",
                f"accuracy={accuracy!r}",
            )
        )
    return {
        "epochs": check_count("epochs", epochs, usual=20),
        "batch_size": check_count("batch_size", batch_size, usual=32),
        "accuracy": accuracy,
    }


def _carried_out(
    tasks: Sequence[Task], executor: Any, file: ResultsFile | None, reporter: Reporter
) -> dict[tuple[str, int], dict[str, Any]]:
    """Does all tasks; each outcome is in the file before the next one is awaited."""
    outcomes = (
        in_turn(tasks, reporter.begin, reporter.epoch)
        if executor is None
        else elsewhere(tasks, executor)
    )
    done = {}
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            if file is not None:
                file.add(task.label, task.seed, outcome)
            done[task.label, task.seed] = outcome
            reporter.end(Run.of(task.label, task.seed, outcome))
    return done


def _file(
    path: str | os.PathLike[str] | None,
    build: Callable[..., keras.Model],
    compared: Mapping[str, Any],
    data: Data | Callable[[], Any],
    budget: Mapping[str, Any],
) -> ResultsFile | None:
    """The results file; None if none is asked for, or no model can be built."""
    if path is None:
        return None
    here = load(data)
    model = _fingerprint(build, compared, first_inputs(here, budget["batch_size"]))
    if model is None:
        return None
    settings = {
        **budget,
        "backend": keras.config.backend(),
        "data": data_fingerprint(here),
        "model": model,
    }
    descriptions = {label: described(one) for label, one in compared.items()}
    return ResultsFile(path, settings, descriptions)


def _fingerprint(
    build: Callable[..., keras.Model], compared: Mapping[str, Any], batch: Any
) -> str | None:
    """The digest of the first model that can be built, None if none can."""
    for initializer in compared.values():
        try:
            model = built(build, initializer)
            if not model.built:
                model(batch)
            return model_fingerprint(model)
        except Exception:  # which its run will tell
            continue
    return None


def _checked_seeds(seeds: Any) -> tuple[int, ...]:
    given = tuple(seeds) if isinstance(seeds, Iterable) else ()
    try:
        checked = tuple(check_count("seeds", s, usual=0, least=0) for s in given)
    except ValueError as error:
        raise ValueError(_no_seeds(seeds)) from error
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(_no_seeds(seeds))
    return checked


def _no_seeds(seeds: Any) -> str:
    return message(
        "`seeds` must be one or more different, whole numbers of at least 0.",
        f"seeds={seeds!r}",
        "For example range(5).",
    )


def _check_any(runs: Sequence[Run]) -> None:
    if any(run.error is None for run in runs):
        return
    told: dict[str, str] = {}
    for run in runs:
        told.setdefault(str(run.error), f"{run.label}, seed {run.seed}: {run.error}")
    shown = list(told.values())[:_MOST_ERRORS]
    raise RuntimeError(
        message("At least one run must finish.", "; ".join(shown).rstrip("."))
    )
