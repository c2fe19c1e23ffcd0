import functools
import inspect
import os
import pickle
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import modes
import numpy as np
import pytest
from custom_training import Gan
from keras import layers, ops, optimizers
from oracles import (
    BACKEND,
    MODES,
    USUAL,
    backpropagated,
    gradient_norms,
    replay,
    squared_error,
)

from keras_initlab.callbacks import DeadReLULogger, GradientNormLogger

EXAMPLES, BATCH, STEPS, EPOCHS, UNITS = 16, 8, 2, 2, 8
SEED = 2  # of weights that leave some units of each network dead
ALL = list(range(EPOCHS * STEPS))
SHAPES = {"vectors": (6,), "sequences": (4, 3), "images": (5, 5, 2)}


def inputs(kind="vectors", seed=1):
    rng = np.random.default_rng(seed)
    if kind == "tokens":
        return rng.integers(0, 4, (EXAMPLES, 5))  # of 7: some repeat, some never come
    return rng.normal(size=(EXAMPLES, *SHAPES[kind])).astype("float32")


def targets(seed=2):
    return np.random.default_rng(seed).normal(size=(EXAMPLES, 2)).astype("float32")


def batches(*data, epochs=1):
    for _ in range(epochs):
        for start in range(0, EXAMPLES, BATCH):
            part = slice(start, start + BATCH)
            yield tuple(keras.tree.map_structure(lambda a, part=part: a[part], data))


# Models. What brute force needs of each are its pre-activations, here in NumPy.


@dataclass(frozen=True)
class Net:
    """A network with rectified units.

    Attributes:
        build: makes the model.
        units: a function of the model and a batch to the pre-activations of all
            rectified layers, in the order in which they run.
        x: the inputs.
        y: the targets.
    """

    build: Any
    units: Any
    x: Any
    y: Any


def affine(x, layer):
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    if kernel.ndim == 2:
        return np.asarray(x, "float64") @ kernel + bias
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("nhwcij,ijcf->nhwf", windows.astype("float64"), kernel) + bias


def relu(z):
    return np.maximum(z, 0)


def rectified(units=UNITS, lowest=-4.0):
    """A layer of which some units are dead and some alive."""
    bias = lambda shape, dtype: ops.linspace(lowest, 0.5, units, dtype=dtype)  # noqa: E731
    return layers.Dense(units, "relu", bias_initializer=bias)


def draw(model):
    """Gives a model the same weights on every backend."""
    rng = np.random.default_rng(SEED)
    drawn = model.get_weights()
    for kernel in drawn:
        if kernel.ndim > 1:
            kernel[...] = rng.normal(size=kernel.shape)
            kernel /= np.sqrt(np.prod(kernel.shape[:-1]))
    model.set_weights(drawn)
    return model


def first_of(model):
    return model.layers[0]


def sequential():
    return keras.Sequential([keras.Input((6,)), rectified(), layers.Dense(2)])


def functional():
    x = keras.Input((6,))
    z = rectified()(x)
    return keras.Model(x, layers.Dense(2)(layers.Concatenate()([z, x])))


def nested():
    x = keras.Input((6,))
    inner = keras.Model(x, rectified()(x))
    middle = keras.Sequential([keras.Input((6,)), inner])
    return keras.Sequential(
        [keras.Input((6,)), middle, rectified(lowest=-1.0), layers.Dense(2)]
    )


def nested_units(model, x):
    first = affine(x, model.layers[0].layers[0].layers[1])
    return [first, affine(relu(first), model.layers[1])]


def shared():
    x = keras.Input((6,))
    layer = rectified(6, -2.0)
    return keras.Model(x, layers.Dense(2)(layer(layer(x))))


def shared_units(model, x):
    layer = model.layers[1]
    once = affine(x, layer)
    return [np.concatenate([once, affine(relu(once), layer)])]


def several():
    a, b = keras.Input((6,)), keras.Input((6,))
    z = layers.Concatenate()([rectified()(a), rectified()(b)])
    return keras.Model([a, b], [layers.Dense(2)(z), layers.Dense(2)(z)])


def several_units(model, x):
    return [affine(one, layer) for one, layer in zip(x, model.layers[2:4], strict=True)]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [rectified(), layers.Dense(2)]
        self.factor = self.add_weight(shape=(2,), initializer="ones", name="factor")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x * self.factor


def subclassed():
    model = Subclassed()
    model(inputs())
    return model


def frozen():
    model = sequential()
    first_of(model).trainable = False
    return model


def convolution():
    hidden = layers.Conv2D(UNITS, 3, activation="relu")
    model = keras.Sequential(
        [keras.Input((5, 5, 2)), hidden, layers.Flatten(), layers.Dense(2)]
    )
    hidden.bias.assign(np.linspace(-4, 0.5, UNITS))
    return model


def embedding():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 3, embeddings_initializer="normal"),
            layers.Flatten(),
            rectified(lowest=-2.0),
            layers.Dense(2),
        ]
    )


def embedding_units(model, x):
    table = model.layers[0].get_weights()[0]
    return [affine(table[x].reshape(len(x), -1), model.layers[2])]


def recurrent():
    rnn = layers.SimpleRNN(4, activation="relu")
    return keras.Sequential([keras.Input((4, 3)), rnn, rectified(), layers.Dense(2)])


def recurrent_units(model, x):
    kernel, again, bias = model.layers[0].get_weights()
    state = np.zeros((len(x), 4))
    for step in range(4):
        state = relu(x[:, step] @ kernel + state @ again + bias)
    return [affine(state, model.layers[1])]


def first_units(model, x):
    return [affine(x, model.layers[0])]


DENSE_DATA = inputs(), targets()
DENSE = Net(sequential, first_units, *DENSE_DATA)
SEVERAL = Net(
    several, several_units, [inputs(), inputs(seed=3)], [targets(), targets(4)]
)
NETS = {
    "Functional": Net(
        functional, lambda m, x: [affine(x, m.layers[1])], inputs(), targets()
    ),
    "nested": Net(nested, nested_units, inputs(), targets()),
    "shared layers": Net(shared, shared_units, inputs(), targets()),
    "subclassed": Net(
        subclassed, lambda m, x: [affine(x, m.blocks[0])], inputs(), targets()
    ),
    "frozen layers": Net(frozen, first_units, inputs(), targets()),
    "convolutions": Net(convolution, first_units, inputs("images"), targets()),
    "embeddings": Net(embedding, embedding_units, inputs("tokens"), targets()),
    "recurrent layers": Net(recurrent, recurrent_units, inputs("sequences"), targets()),
}


# One fit, and what it should have shown.


def adam():
    return optimizers.Adam(0.01)


def by_arrays(net):
    return {"x": net.x, "y": net.y, "batch_size": BATCH}


def verify(
    net=DENSE,
    optimizer=adam,
    feed=by_arrays,
    steps=ALL,
    weights=None,
    loss=squared_error,
    compiled_loss="mse",
    every=1,
    margin=1e-5,
    logger=None,
    **compiled,
):
    """Compares norms and dead units of a fit with training by hand.

    Args:
        net: what is trained.
        optimizer: makes its optimizer.
        feed: a function of the net to the data arguments of `fit`.
        steps: the steps that are observed.
        weights: of the examples, for the training by hand.
        loss: of the training by hand.
        compiled_loss: of the fit.
        every: as the callbacks' argument.
        margin: how far from 0 the highest pre-activation of every unit must be.
        logger: the logger of norms, if not the usual one.
        **compiled: further arguments of `compile`.

    Returns:
        The logger, the norms by hand `(steps, variables)`, and the weights that each
        step started from.
    """
    model, twin = draw(net.build()), draw(net.build())
    model.compile(optimizer(), compiled_loss, **(compiled or MODES[USUAL]))
    twin.compile(optimizer())
    norms = logger or GradientNormLogger(every, alerts=False)
    dead = DeadReLULogger(every, alerts=False)
    model.fit(
        epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[norms, dead], **feed(net)
    )
    given = [net.x, net.y] if weights is None else [net.x, net.y, weights]
    seen, starts = [], []

    def noting(data):
        for x, *rest in data:
            seen.append(net.units(twin, x))
            starts.append([np.array(v) for v in twin.trainable_variables])
            yield (x, *rest)

    rows = replay(twin, noting(batches(*given, epochs=EPOCHS)), loss)[steps]
    assert norms.history["step"].tolist() == list(steps)
    assert_norms(norms.history, rows)
    assert_dead(dead.history, seen, steps, margin)
    return norms, rows, [starts[step] for step in steps]


def joined(rows):
    return np.sqrt(np.sum(np.square(rows), axis=-1))


def assert_norms(history, rows, prefix="", rtol=1e-5):
    found = np.array(list(history[f"{prefix}variables"].values())).T
    np.testing.assert_allclose(found, rows, rtol)
    np.testing.assert_allclose(history[f"{prefix}global_norm"], joined(rows), rtol)


def assert_dead(history, seen, steps, margin=1e-5):
    """Compares dead units with pre-activations `(examples, …, units)` by step."""
    expected = []
    for epoch in range(EPOCHS):
        mine = [seen[step] for step in steps if step // STEPS == epoch]
        expected.append([dead_of(each, margin) for each in zip(*mine, strict=True)])
    by_layer = [list(each) for each in zip(*expected, strict=True)]
    assert dead_units(history) == by_layer
    assert all(map(is_mixed, expected[0], seen[0]))


def dead_units(history):
    """By layer and epoch."""
    return [[u.tolist() for u in each] for each in history["dead_units"].values()]


def dead_of(pre_activations, margin=1e-5):
    peaks = [z.max(axis=tuple(range(z.ndim - 1))) for z in pre_activations]
    highest = np.max(peaks, axis=0)
    assert np.all(np.abs(highest) > margin)  # none too near to judge
    return np.flatnonzero(highest <= 0).tolist()


def is_mixed(dead, pre_activations):
    """Whether some units are dead and some alive, so that a test has teeth."""
    return 0 < len(dead) < pre_activations.shape[-1]


@functools.cache
def usual(name=USUAL):
    """One fit of the usual network, which several rows share."""
    verify(**MODES[name])


# Training.


def eagerly():
    usual("eager")


def without_compiler():
    if BACKEND == "jax":
        verify(jit_compile=False)
    else:
        usual()


def under_pytorchs_compiler(monkeypatch):
    """Its compiler takes a minute; what is given to it can be counted without it."""
    import torch

    compiled = []

    def compile_nothing(function):
        def run(*arguments):
            compiled.append(arguments)
            return function(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    verify(every=5, steps=[0, 2], jit_compile=True)
    assert len(compiled) == 2


def with_xla(monkeypatch):
    if BACKEND == "torch":
        under_pytorchs_compiler(monkeypatch)
    else:
        usual({"tensorflow": "xla", "jax": "jit"}[BACKEND])


def in_groups():
    verify(steps=[1, 3], steps_per_execution=2, **MODES[USUAL])


def refused_in_groups():
    with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
        in_groups()


def clipping():
    for argument in ("clipvalue", "clipnorm", "global_clipnorm"):
        verify(optimizer=lambda name=argument: optimizers.SGD(0.1, **{name: 0.01}))


def scaled():
    return optimizers.LossScaleOptimizer(adam(), 1024.0)


def scaling():
    verify(optimizer=scaled)
    verify(optimizer=lambda: optimizers.Adam(0.01, loss_scale_factor=1024.0))


def mixing():
    """Eagerly: a compiler that fuses rounds less often, and all rounding is coarse."""
    former = keras.config.dtype_policy()
    for policy, optimizer in [("mixed_float16", scaled), ("mixed_bfloat16", adam)]:
        keras.config.set_dtype_policy(policy)
        try:
            verify(optimizer=optimizer, margin=0.05, run_eagerly=True)
        finally:
            keras.config.set_dtype_policy(former)


def accumulating():
    return optimizers.Adam(0.01, gradient_accumulation_steps=2)


def averaging():
    return optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    )


# Figures.


def clipped_by_norm():
    logger = GradientNormLogger(1, alerts=False, clipped=True)
    _, rows, _ = verify(
        optimizer=lambda: optimizers.SGD(0.1, clipnorm=0.2), logger=logger
    )
    assert np.any(rows > 0.2)
    assert np.any(rows < 0.2)
    assert_norms(logger.history, np.minimum(rows, 0.2), "clipped_")


def clipped_while_accumulating():
    logger = GradientNormLogger(1, alerts=False, clipped=True)
    verify(optimizer=accumulating, logger=logger)
    assert np.isnan(logger.history["clipped_global_norm"]).all()


def updates():
    logger = GradientNormLogger(1, alerts=False, updates=True)
    _, rows, starts = verify(optimizer=lambda: optimizers.SGD(0.5), logger=logger)
    sizes = np.array([[np.linalg.norm(w) for w in start] for start in starts])
    expected = 0.5 * joined(rows) / joined(sizes)
    np.testing.assert_allclose(logger.history["update_ratio"], expected, 1e-5)


# Models.


def several_of_each():
    def loss(y, z):
        return sum(squared_error(one, two) for one, two in zip(y, z, strict=True))

    verify(SEVERAL, loss=loss, compiled_loss=["mse", "mse"])


def two_players():
    """At rates of 0, so that every step can be computed by itself."""
    model = Gan()
    for player in (model.generator, model.critic):  # not the momentum, too
        draw(player)
    hidden = model.generator.layers[0], model.critic.layers[0]
    for layer, lowest in zip(hidden, [-4.0, -12.0], strict=True):
        layer.bias.assign(np.linspace(lowest, 0.5, UNITS))
    model.own.learning_rate = 0.0
    model.compile(optimizers.SGD(0.0), **MODES[USUAL])
    x = [inputs()[:, :3], inputs(seed=3)]
    norms, dead = GradientNormLogger(1, alerts=False), DeadReLULogger(1, alerts=False)
    model.fit(x, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[norms, dead])
    rows, seen = [], []
    for (part,) in batches(x):
        fooled = gradient_norms(model, part, model.generator_loss)
        judged = gradient_norms(model, part, model.critic_loss)
        rows.append([*fooled[:4], *judged[4:]])
        first = affine(part[0], model.generator.layers[0])
        generated = affine(relu(first), model.generator.layers[1])
        both = np.concatenate([generated, part[1]])
        seen.append([first, affine(both, model.critic.layers[0])])
    assert_norms(norms.history, np.array(rows))
    expected = [dead_of(each) for each in zip(*seen, strict=True)]
    assert dead_units(dead.history) == [[each] for each in expected]
    assert all(map(is_mixed, expected, seen[0]))


# Data.


def without_batch_size(source):
    return lambda net: {"x": source(), "batch_size": None, "steps_per_epoch": STEPS}


def dataset():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((inputs(), targets()))
    return data.batch(BATCH).repeat()


def endless():
    while True:
        yield from batches(inputs(), targets())


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return inputs()[part], targets()[part]


def loader():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(*map(torch.tensor, (inputs(), targets())))
    return torch.utils.data.DataLoader(data, batch_size=BATCH)


WEIGHTS = np.linspace(0, 3, EXAMPLES, dtype="float32")
CLASSES = np.arange(EXAMPLES) % 2


def weighted():
    verify(
        feed=lambda net: by_arrays(net) | {"sample_weight": WEIGHTS}, weights=WEIGHTS
    )


def crossentropy(y, logits, weights):
    each = -ops.sum(ops.one_hot(y, 2) * ops.log_softmax(logits), axis=-1)
    return ops.mean(ops.multiply(weights, each))


def weighted_by_class():
    verify(
        Net(sequential, first_units, inputs(), CLASSES),
        feed=lambda net: by_arrays(net) | {"class_weight": {0: 0.5, 1: 4.0}},
        weights=np.where(CLASSES == 0, 0.5, 4.0).astype("float32"),
        loss=crossentropy,
        compiled_loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


# Devices.


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """What training on two devices gave, by name."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return run_replicas(tmp_path_factory.mktemp("replicas") / "found")
    path = tmp_path_factory.getbasetemp().parent / "replicas"  # of all workers
    try:
        path.with_suffix(".begun").touch(exist_ok=False)
    except FileExistsError:
        for _ in range(2400):  # another worker is at it
            if path.exists():
                return pickle.loads(path.read_bytes())
            time.sleep(0.1)
    found = run_replicas(path.with_suffix(".own" + os.environ["PYTEST_XDIST_WORKER"]))
    path.with_suffix(".whole").write_bytes(pickle.dumps(found))
    path.with_suffix(".whole").replace(path)
    return found


@pytest.fixture(scope="module")
def more_replicas(tmp_path_factory):
    """What rarer ways of training on two devices gave, by name."""
    return run_replicas(tmp_path_factory.mktemp("replicas") / "found", "more")


def run_replicas(path, *arguments):
    program = Path(__file__).with_name("replicas.py")
    root = str(program.parents[1])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, program, path, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": paths},
    )
    assert result.returncode == 0, result.stderr
    return pickle.loads(path.read_bytes())


def by_hand(run, optimizer, kind="vectors", examples=EXAMPLES, loss=squared_error):
    """Norms and pre-activations of the same training on one device."""
    import replicas as program

    twin = program.network(kind)
    twin.set_weights(run["start"])
    twin.compile(optimizer())
    x, y = program.data(kind, examples)
    units = embedding_units if kind == "tokens" else first_units
    seen = []

    def noting():
        for _ in range(EPOCHS):
            for start in range(0, examples, BATCH):
                part = slice(start, start + BATCH)
                seen.append(units(twin, x[part]))
                yield x[part], y[part]

    return replay(twin, noting(), loss), seen, twin


def same_on_both(run, optimizer=adam, **arguments):
    """Compares a run on two devices with training by hand on one."""
    rows, seen, twin = by_hand(run, optimizer, **arguments)
    norms, dead, _ = run["histories"]
    assert_norms(norms, rows)
    assert_dead(dead, seen, ALL)
    assert not any(run["left_over"])
    for one, other in zip(run["weights"], twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-6)


def of_replicas(name, **arguments):
    return lambda replicas: same_on_both(replicas[name], **arguments)


def data_parallel(replicas):
    if BACKEND == "jax":
        same_on_both(replicas["adam"])
    else:
        ignored_by_keras()


def ignored_by_keras():
    """It names a device that there is not, and nobody minds."""
    if keras.__version__.startswith("3.14."):
        pytest.skip("Keras 3.14 has no distribution on TensorFlow")
    two = keras.distribution.DataParallel(devices=["cpu:0", "cpu:7"])
    keras.distribution.set_distribution(two)
    try:
        verify()
    finally:
        keras.distribution.set_distribution(None)


def not_in_keras():
    with pytest.raises(AttributeError, match="list_devices"):
        keras.distribution.DataParallel()


def not_on_this_backend():
    assert not hasattr(sequential(), "distribute_strategy")


def clipped_by_replica(replicas):
    """Each replica clips the gradient of its half; the sum of both trains."""
    import replicas as program

    history = replicas["clipped"]["histories"][0]
    weights = [np.asarray(w, "float64") for w in replicas["clipped"]["start"]]
    rows, clipped_rows = [], []
    for x, y in batches(*program.data(), epochs=EPOCHS):
        halves = []
        for part in (slice(BATCH // 2), slice(BATCH // 2, BATCH)):
            each = backpropagated(weights, x[part], y[part])
            halves.append([gradient / 2 for gradient in each])
        rows.append(norms_of_sum(halves))
        for half in halves:
            factor = min(1, 0.01 / joined([np.linalg.norm(g) for g in half]))
            half[:] = [factor * gradient for gradient in half]
        clipped_rows.append(norms_of_sum(halves))
        step = [one + other for one, other in zip(*halves, strict=True)]
        weights = [w - 0.1 * g for w, g in zip(weights, step, strict=True)]
    assert_norms(history, np.array(rows))
    assert_norms(history, np.array(clipped_rows), "clipped_")


def norms_of_sum(halves):
    return [np.linalg.norm(one + other) for one, other in zip(*halves, strict=True)]


def failing_in_keras(replicas):
    plain, observed = replicas["accumulating"]["errors"]
    assert "`merge_call` called while defining a new graph" in plain
    assert "`merge_call` called while defining a new graph" in observed
    assert not any(replicas["accumulating"]["left_over"])


def refused(replicas):
    assert replicas["central"]["error"].startswith(
        "RuntimeError: Training on several replicas is observed under "
        "`MirroredStrategy`. Received: model='sequential"
    )
    assert "under `CentralStorageStrategy`" in replicas["central"]["error"]
    assert not any(replicas["central"]["left_over"])


# What backs every cell: functions of the fixtures that they name.
CASES = {
    "`run_eagerly=True`": eagerly,
    "`jit_compile=False`": without_compiler,
    "`jit_compile=True`": with_xla,
    "`steps_per_execution=2`": in_groups,
    "gradient accumulation": lambda: verify(optimizer=accumulating),
    "`clipvalue`, `clipnorm`, `global_clipnorm`": clipping,
    "`LossScaleOptimizer`, `loss_scale_factor`": scaling,
    "`mixed_float16`, `mixed_bfloat16`": mixing,
    "`use_ema=True`": lambda: verify(optimizer=averaging),
    "`clipped=True`": clipped_by_norm,
    "`updates=True`": updates,
    "Sequential": usual,
    **{name: lambda net=net: verify(net) for name, net in NETS.items()},
    "several inputs and outputs": several_of_each,
    "a `train_step` of your own, two optimizers (GAN)": two_players,
    "arrays": usual,
    "`tf.data`": lambda: verify(feed=without_batch_size(dataset)),
    "generators": lambda: verify(feed=without_batch_size(endless)),
    "Keras's `PyDataset`": lambda: verify(feed=without_batch_size(Batches)),
    "PyTorch's `DataLoader`": lambda: verify(feed=without_batch_size(loader)),
    "`sample_weight=`": weighted,
    "`class_weight=`": weighted_by_class,
    "`tf.distribute.MirroredStrategy`": of_replicas("adam"),
    "… with clipping": clipped_by_replica,
    "`keras.distribution.DataParallel`": data_parallel,
}
# By what the cell says.
DEMONSTRATIONS = {
    ("`steps_per_execution=2`", "refused by Keras"): refused_in_groups,
    ("`clipped=True`, gradient accumulation", modes.MEAN): clipped_while_accumulating,
    ("`tf.distribute.MirroredStrategy`", modes.ELSEWHERE): not_on_this_backend,
    ("… with clipping", modes.ELSEWHERE): not_on_this_backend,
    ("… with gradient accumulation", "fails in Keras"): failing_in_keras,
    (
        "… with gradient accumulation",
        modes.ELSEWHERE,
    ): not_on_this_backend,
    ("other strategies of replicas", "refused"): refused,
    ("other strategies of replicas", modes.ELSEWHERE): not_on_this_backend,
    ("`keras.distribution.DataParallel`", "fails in Keras"): not_in_keras,
}


def backing(row, backend):
    """What shows that a cell is true; an error if nothing does."""
    if row.is_observed(backend):
        return CASES[row.feature]
    return DEMONSTRATIONS[row.feature, row.cell(backend)]


@pytest.mark.seconds
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[pytest.mark.slow] * ("Mirrored" in row.feature))
        for row in modes.ROWS
    ],
    ids=lambda row: row.feature,
)
def test_the_table_is_true(row, request):
    case = backing(row, BACKEND)
    names = inspect.signature(case).parameters
    fixtures = {"replicas", "monkeypatch"} & set(names)
    case(**{name: request.getfixturevalue(name) for name in fixtures})


@pytest.mark.parametrize("backend", modes.BACKENDS, ids=modes.BACKENDS.get)
def test_every_cell_is_backed_and_nothing_else(backend):
    assert all(callable(backing(row, backend)) for row in modes.ROWS)
    assert len({row.feature for row in modes.ROWS}) == len(modes.ROWS)
    cells = {(r.feature, r.cell(b)) for r in modes.ROWS for b in modes.BACKENDS}
    assert set(CASES) == {name for name, cell in cells if cell.startswith(modes.YES)}
    assert set(DEMONSTRATIONS) == {
        (name, cell) for name, cell in cells if not cell.startswith(modes.YES)
    }


def test_the_readme_holds_the_table():
    _, between, _ = modes.split(modes.README.read_text(encoding="utf-8"))
    assert between == f"\n{modes.table()}\n", "run `python tests/modes.py --write`"


def test_the_table_is_written_between_the_markers(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- modes -->\nold\n<!-- /modes -->\nb\n")
    monkeypatch.setattr(modes, "README", readme)
    modes.write()
    expected = f"a\n<!-- modes -->\n{modes.table()}\n<!-- /modes -->\nb\n"
    assert readme.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("what", ["norms", "dead units", "steps"])
def test_the_check_can_fail(what, monkeypatch):
    oracle = replay
    if what == "norms":
        monkeypatch.setitem(
            globals(), "replay", lambda *arguments: oracle(*arguments) * (1 + 3e-5)
        )
    wrong = Net(sequential, lambda m, x: [affine(x, m.layers[0]) - 1], *DENSE_DATA)
    net = wrong if what == "dead units" else DENSE
    steps = ALL[1:] if what == "steps" else ALL
    with pytest.raises(AssertionError):
        verify(net, steps=steps)


# More of MirroredStrategy.


@pytest.mark.seconds
@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["adam", "scaled"])
def test_replicas_train_the_same_weights_with_and_without_the_callbacks(replicas, name):
    run = replicas[name]
    assert not np.array_equal(run["start"][0], run["weights"][0])
    for one, other in zip(run["weights"], run["plain"], strict=True):
        np.testing.assert_array_equal(one, other)


def unequal_halves(y, z):
    """The loss of a batch of which the larger half goes to the first replica."""
    half = (len(y) + 1) // 2
    each = squared_error(y[:half], z[:half]), squared_error(y[half:], z[half:])
    return sum(each) / 2


@pytest.mark.seconds
@pytest.mark.tensorflow
def test_replicas_under_a_scaled_loss(replicas):
    same_on_both(replicas["scaled"], scaled)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("eager", {}),
        ("tokens", {"kind": "tokens"}),
        ("uneven", {"examples": 13, "loss": unequal_halves}),
    ],
)
def test_rarer_ways_of_training_replicas(more_replicas, name, arguments):
    same_on_both(more_replicas[name], **arguments)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_replicas_that_draw_train_the_same_weights(more_replicas):
    plain, *observed = more_replicas["noisy"]
    for weights in observed:
        for one, other in zip(weights, plain, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.seconds
@pytest.mark.tensorflow
def test_some_units_fire_on_one_replica_only(replicas):
    """So that dead units of the whole batch mean something."""
    _, seen, _ = by_hand(replicas["adam"], adam)
    halves = [
        dead_of([z[0][part] for z in seen[:STEPS]])
        for part in (slice(BATCH // 2), slice(BATCH // 2, BATCH))
    ]
    both = dead_of([z[0] for z in seen[:STEPS]])
    assert {0, 1} <= set(halves[0]) ^ set(halves[1])
    assert not {0, 1} & set(both)


@pytest.mark.seconds
@pytest.mark.tensorflow
def test_statistics_of_replicas_are_those_of_the_whole_batch(replicas):
    import replicas as program

    stats = replicas["adam"]["histories"][2]
    _, seen, _ = by_hand(replicas["adam"], adam)
    given = [x for (x,) in batches(program.data()[0], epochs=EPOCHS)]
    before = np.array([z for (z,) in seen])
    after, axes = relu(before), (1, 2)
    expected = {
        "mean": after.mean(axes),
        "std": after.std(axes),
        "min": after.min(axes),
        "max": after.max(axes),
        "zero_share": np.mean(after == 0, axes),
        "preactivation_mean": before.mean(axes),
        "preactivation_std": before.std(axes),
        "variance_preservation": before.std(axes) / np.std(given, axes),
    }
    for kind, values in expected.items():
        found, *_ = stats[kind].values()
        np.testing.assert_allclose(found, values, 1e-5, err_msg=kind)
