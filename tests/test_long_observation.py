"""Thousands of observed steps: nothing grows but the history, nothing is held."""

import gc
import importlib
import os
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
from awkward import KINDS, Do, alive
from keras import layers
from oracles import BACKEND, MODES, USUAL

from keras_initlab.callbacks import CSVLog, JSONLinesLog
from keras_initlab.callbacks._logs import Logs

EPOCHS, STEPS, WIDTH = 10, 500, 64
KERNEL = 4 * WIDTH**2  # bytes


def network():
    hidden = [alive(WIDTH), layers.Dropout(0.1), alive(WIDTH)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-4), "mse", **MODES[USUAL])
    return model


def fit(model, callbacks, epochs, steps):
    x = np.random.default_rng(1).normal(size=(2 * steps, WIDTH)).astype("float32")
    model.fit(x, x[:, :1], 2, epochs, verbose=0, callbacks=callbacks)


def live_tensors():
    if BACKEND == "jax":
        import jax

        return len(jax.live_arrays())
    library = importlib.import_module(BACKEND)
    return sum(issubclass(type(one), library.Tensor) for one in gc.get_objects())


def resident():
    """The process's memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sizes():
    gc.collect()
    return {
        "objects": len(gc.get_objects()),
        "tensors": live_tensors(),
        "bytes": resident(),
    }


def growth_over(callbacks, epochs, steps):
    """What grows between the second epoch and the last."""
    found = []
    model = network()
    note = Do("on_epoch_end", lambda _: found.append(sizes()))
    fit(model, [*callbacks, note], epochs, steps)
    return {name: found[-1][name] - found[1][name] for name in found[0]}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_five_thousand_steps_grow_only_the_history(tmp_path):
    callbacks = [make(1) for make in KINDS.values()]
    files = CSVLog(tmp_path / "a.csv"), JSONLinesLog(tmp_path / "a.jsonl")
    callbacks[0].logs = Logs(files)
    grown = growth_over(callbacks, EPOCHS, STEPS)
    norms, dead, stats, recycler = (callback.history for callback in callbacks)
    assert len(norms["step"]) == len(stats["step"]) == EPOCHS * STEPS
    assert len(dead["epoch"]) == EPOCHS
    assert len(recycler["step"]) == EPOCHS * STEPS
    assert len((tmp_path / "a.csv").read_text().splitlines()) == EPOCHS * STEPS + 1
    since = (EPOCHS - 2) * STEPS
    assert grown["tensors"] < since / 100
    assert grown["objects"] < since / 10
    # Half a kernel a step, beside what the history holds.
    assert grown["bytes"] < since * (KERNEL // 2), grown


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["tensors", "objects", "bytes"])
def test_the_check_can_fail(kept):
    held = []

    def hold(model):
        one = keras.ops.ones((WIDTH, WIDTH)) + len(held)
        large = np.ones(KERNEL)  # too large for what the allocator has at hand
        held.append({"tensors": one, "objects": [[]], "bytes": large}[kept])

    keep = Do("on_train_batch_end", hold)
    assert (
        growth_over([keep], 4, 100)[kept]
        >= 200 * (KERNEL if kept == "bytes" else 1) // 2
    )


@pytest.mark.seconds
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["callback", "model"])
def test_nothing_keeps_model_or_callback(kind, first):
    model, callback = network(), KINDS[kind](2)
    fit(model, [callback], 1, 4)
    assert len(callback.history["epoch"])
    parts = [model, model.optimizer, *model.layers, *model.variables]
    references = {"callback": weakref.ref(callback)}
    references |= {f"{i} {one}": weakref.ref(one) for i, one in enumerate(parts)}
    parts.clear()
    if first == "callback":  # which the model does not hold
        del callback
        gc.collect()
        assert references.pop("callback")() is None
        del model
    else:
        del model, callback
    gc.collect()
    assert [name for name, one in references.items() if one() is not None] == []
