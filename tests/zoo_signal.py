"""How evenly the signal passes every model of the zoo, forward and backward.

`python tests/zoo_signal.py` prints the table. The measuring knows nothing of the
theory that chose the kernels: it records what the models' own code computes.

Places are compared with places of their kind, where one scale is meant to hold:

* `trunk`: pre-activations of hidden kernels outside residual branches, of a recurrent
  cell's gates and candidate, and the residual stream: forward as its branches read
  it, backward where they end, as a sum hands its gradient to all that it adds.
* `branch 1`, `branch 2`, …: pre-activations of the first, second, … layer inside the
  residual branches, which bear a share of the gradient, the same for all of them.
* either of these, or the last of a branch, `normalized`: pre-activations that a
  normalization divides by their own deviation, so that their scale leaves no trace;
  gradients there count for such a unit.
* `value`: an attention's values, averaged over positions thereafter.
* `gate`: what decides on another signal. It stands beside a path of the gradient, not
  on it.

Forward is the standard deviation over examples and units, a recurrent cell's about
each gate's mean. Where signals run side by side, each bears but a part of the
gradient: backward takes the kernels of one kind at one depth together. Backward is
the norm of an example's gradient, by a random linear
function of the outputs: at equal widths its ratios are those of the gradients'
standard deviation, and where the width changes, no scale can hold the two standard
deviations together (He et al. 2015, 1502.01852, sec. 2.2). Outputs count in units of
their own deviation. The figures are largest over smallest,
over all places of a kind, the worst kind's; by ours each place's is the geometric
mean of several draws of the kernels.
"""

import contextlib
import functools
import itertools
import math
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from scipy.stats import gmean
from zoo import VOCABULARY, ZOO

from keras_initlab import recommend
from keras_initlab.inspection import Effect, KernelRecord, inspect

DRAWS = 16  # of the kernels: those of these narrow models differ much
CLOSING = ("residual branch", "attention output")
CELLS = (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell)
NORMALIZATIONS = (
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


@dataclass
class Signal:
    """What was measured: `{place: value}` for every kind of place."""

    forward: dict = field(default_factory=lambda: defaultdict(dict))
    backward: dict = field(default_factory=lambda: defaultdict(dict))

    @property
    def forward_spread(self):
        return max(map(spread, self.forward.values()), default=1.0)

    @property
    def backward_spread(self):
        return max(map(spread, self.backward.values()), default=1.0)


def spread(values):
    """Largest over smallest."""
    least = min(values.values())
    return max(values.values()) / least if least > 0 else math.inf


def measure(model, entry, batch=64):
    """The signal at every place of a model; of a pair without `call`, in each part."""
    signal = Signal()
    places = Places(model)
    rng = np.random.default_rng(1)
    for part, x in _runs(model, entry, batch):
        with Listener(part, places) as listener, tf.GradientTape() as tape:
            x = keras.tree.map_structure(tf.constant, x)
            outputs = keras.tree.flatten(part(x, training=_is_batch_normalized(part)))
            heard = dict(listener.heard)
            logits = [z for k in list(heard) if k[0] == "output" for z in heard.pop(k)]
            loss = tf.add_n([_linear(rng, output) for output in logits or outputs])
        gradients: Any = tape.gradient(loss, heard)
        streams = [z for (_, name), z in heard.items() if name.endswith("reads")]
        rank = max((len(tensors[0].shape) for tensors in streams), default=0)
        for (kind, name), tensors in heard.items():
            if name.endswith("reads") and len(tensors[0].shape) < rank:
                continue  # pooled, and so a stream no longer
            group, place = f"{part.name} {kind}", f"{part.name} {name}"
            if kind == "sum":  # as large as its share; its gradient is the stream's
                group = f"{part.name} trunk"
            else:
                squares = [np.var(z.numpy()) for z in tensors]
                signal.forward[group][place] = math.sqrt(np.mean(squares))
            if kind != "gate":
                norm = _norm(gradients[kind, name]) / math.sqrt(batch)
                if kind.endswith("normalized"):
                    norm *= signal.forward[group][place]
                level = listener.levels[name]
                before = signal.backward[group].get(level, 0.0)
                signal.backward[group][level] = math.hypot(before, norm)
    return signal


def _norm(gradients):
    """Of all gradients that there are; the last state's forget gate has none."""
    found = [g.numpy() for g in gradients if g is not None]
    return math.sqrt(sum(float(np.sum(np.square(g))) for g in found))


def _linear(rng, output):
    """A random linear function of outputs in units of their own deviation."""
    weights = rng.normal(size=output.shape) / np.std(output.numpy())
    return tf.reduce_sum(output * weights.astype("float32"))


def _runs(model, entry, batch):
    """The parts of a model that can be called, with inputs."""
    rng = np.random.default_rng(0)
    if entry.is_called:
        parts = [(model, entry.example(batch))]
    else:
        shapes = [(part, part.input_shape[1:]) for part in model.layers]
        parts = [(part, np.zeros((batch, *shape))) for part, shape in shapes]
    return [
        (part, keras.tree.map_structure(functools.partial(_noise, rng), inputs))
        for part, inputs in parts
    ]


def _noise(rng, like):
    """Word numbers, rows of unit norm in place of a matrix of neighbors, or normal."""
    if like.dtype.kind == "i":
        return rng.integers(1, VOCABULARY, like.shape).astype("int32")
    noise = rng.normal(size=like.shape).astype("float32")
    is_square = noise.ndim == 3 and noise.shape[1] == noise.shape[2]
    return noise / np.linalg.norm(noise, axis=2, keepdims=True) if is_square else noise


def _is_batch_normalized(model):
    batch_normalization = keras.layers.BatchNormalization
    return any(isinstance(la, batch_normalization) for la in model._flatten_layers())


# ---- what is compared with what -------------------------------------------------


class Places:
    """Which kernels of a model are compared, as what.

    Attributes:
        kinds: the kind of every kernel that is, by the id of its variable.
        entrances: layers that read the residual stream as it is, by their ids.
        depths: how many kernels are on the longest way to a kernel's output, by the
            id of its variable.
    """

    def __init__(self, model):
        self.inspection = inspect(model)
        self.kinds, self.entrances = {}, set()
        self._inside = {}
        kernels = self.inspection.kernels
        for kernel in reversed(kernels):  # readers first
            readers = self.inspection.readers[kernel.position]
            inside = bool(readers) and all(map(self._is_inside, readers))
            self._inside[kernel.position] = inside
            self.kinds[id(kernel.variable)] = self._kind(kernel, readers)
        steps = {}
        for kernel in kernels:
            if not self._inside[kernel.position]:
                continue
            steps[kernel.position] = 1 + steps.get(kernel.upstream, 0)
            if self.kinds[id(kernel.variable)] == "branch":
                kind = f"branch {steps[kernel.position]}"
                self.kinds[id(kernel.variable)] = kind
            if self._enters(kernel):
                self.entrances.add(id(kernel.layer))
        for kernel in filter(self._is_normalized, kernels):
            kind = self.kinds[id(kernel.variable)]
            self.kinds[id(kernel.variable)] = kind and f"{kind}, normalized"
        self.depths = {id(kernel.variable): kernel.depth for kernel in kernels}

    def _kind(self, kernel, readers):
        if kernel.role in ("output", "value", "gate"):
            return kernel.role
        if kernel.role in CLOSING:
            return "sum"
        if kernel.role not in ("hidden", "shortcut", "recurrent input"):
            return None  # is a table, or decides attention's logits
        gates = [isinstance(r, KernelRecord) and r.role == "gate" for r in readers]
        if gates and all(gates):
            return "gate"
        return "branch" if self._inside[kernel.position] else "trunk"

    def _is_normalized(self, kernel):
        """Whether nothing reads a kernel's output as it is."""
        edges = [
            edge
            for reader in self.inspection.readers[kernel.position]
            for edge in reader.edges
            if edge.source == kernel.position
        ]
        is_normalized = all(edge.has(Effect.NORMALIZATION) for edge in edges)
        return kernel.normalization is not None and is_normalized

    def _is_inside(self, reader):
        """Whether what reads a kernel lies in a residual branch, or closes one."""
        if isinstance(reader, KernelRecord):
            return reader.role in CLOSING or self._inside[reader.position]
        if reader.effect is Effect.ADD:
            return False
        kernels = self.inspection.kernels
        starts = [edge.source for edge in reader.edges]
        if any(isinstance(p, int) and kernels[p].role in CLOSING for p in starts):
            return True  # a branch that ends in a product
        after = [
            other
            for other in (*self.inspection.kernels, *self.inspection.merges)
            if any(edge.source is reader for edge in other.edges)
        ]
        return bool(after) and all(map(self._is_inside, after))

    def _enters(self, kernel):
        """Whether a kernel inside a branch reads the stream, not normalized."""
        (edge, *others) = kernel.edges
        changed = edge.has(Effect.NORMALIZATION) or edge.has(Effect.ACTIVATION)
        if others or edge.source is None or changed:
            return False
        if isinstance(edge.source, int):
            return not self._inside[edge.source]
        return edge.source.effect is Effect.ADD


# ---- listening ------------------------------------------------------------------


class Listener:
    """Keeps what a model's kernels put out while it is active.

    Keras's layers hand their pre-activations to `layer.activation`, a linear one too;
    recurrent cells hand theirs to two. Raw products go through `keras.ops`.

    Attributes:
        heard: the tensors of each place, by `(kind, name)`.
        levels: the depth of each place in the order of the model, by its name.
    """

    def __init__(self, model, places):
        self.heard, self.levels = defaultdict(list), {}
        self._places, self._kinds = places, places.kinds
        self._stack = contextlib.ExitStack()
        self._layers = [model, *model._flatten_layers(include_self=False)]

    def __enter__(self):
        places = self._places
        has_branches = any(kind and "branch" in kind for kind in self._kinds.values())
        for number, layer in enumerate(self._layers):
            name = f"{number} {layer.path or layer.name}"
            if isinstance(layer, CELLS):
                self._hear_cell(layer, name)
            elif callable(getattr(layer, "activation", None)):
                kind = self._kind_of(layer)
                self._hear_activation(layer, "activation", kind, name)
            is_reader = isinstance(layer, NORMALIZATIONS) and has_branches
            if is_reader or id(layer) in self._places.entrances:
                self._hear_input(layer, f"{name} reads")
            depths = [places.depths.get(id(v)) for v in layer._trainable_variables]
            self.levels[name] = max((d for d in depths if d), default=name)
            if isinstance(layer, CELLS):  # a stack's are one call; two ways are one
                self.levels[name] = layer.path.replace("backward", "forward")
        for function in ("einsum", "matmul"):
            self._hear_product(function)
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _kind_of(self, layer):
        kinds = [self._kinds.get(id(v)) for v in layer._trainable_variables]
        return next((kind for kind in reversed(kinds) if kind), None)

    def _replace(self, owner, name, value):
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._stack.callback(setattr, owner, name, before)

    def _hear_activation(self, layer, attribute, kind, name, every=1):
        """Hears every so-manieth call of an activation, from the first."""
        if kind is None:
            return
        activation, count = getattr(layer, attribute), itertools.count()

        def heard(z, *others):
            if next(count) % every == 0:
                self.heard[kind, name].append(z)
            return activation(z, *others)

        self._replace(layer, attribute, heard)

    def _hear_cell(self, cell, name):
        is_gated = hasattr(cell, "recurrent_activation")
        if is_gated:
            self._hear_activation(cell, "recurrent_activation", "trunk", name)
        # An LSTM applies it to the candidate, and then to what the cell holds.
        every = 2 if "LSTM" in type(cell).__name__ else 1
        self._hear_activation(cell, "activation", "trunk", name, every)

    def _hear_input(self, layer, name):
        call = layer.call

        def heard(x, *others, **named):
            outputs = itertools.chain.from_iterable(self.heard.values())
            if not any(x is output for output in outputs):  # else it is no stream
                self.heard["trunk", name].append(x)
                self.levels[name] = name
            return call(x, *others, **named)

        self._replace(layer, "call", heard)

    def _hear_product(self, function):
        product = getattr(keras.ops, function)

        def heard(*operands, **named):
            out = product(*operands, **named)
            for operand in operands:
                kind = self._kinds.get(id(operand))
                if kind is not None:
                    self.heard[kind, operand.path].append(out)
                    self.levels[operand.path] = self._places.depths[id(operand)]
            return out

        self._replace(keras.ops, function, heard)


# ---- the table ------------------------------------------------------------------


def signals(name, default=True, draws=DRAWS):
    """A zoo model's signal by Keras's default (or None) and by ours."""
    keras.utils.set_random_seed(0)
    model = ZOO[name].build()
    before = measure(model, ZOO[name]) if default else None
    advice, ours = recommend(model), []
    for seed in range(draws):
        advice.apply(seed, overwrite=True)
        ours.append(measure(model, ZOO[name]))
    return before, typical(ours)


def typical(drawn):
    """The geometric mean of several draws, place by place."""
    mean = Signal()
    for part in ("forward", "backward"):
        for kind, places in getattr(drawn[0], part).items():
            each = [getattr(one, part)[kind] for one in drawn]
            found = {p: [values[p] for values in each] for p in places}
            getattr(mean, part)[kind] = {
                place: float(gmean(values)) for place, values in found.items()
            }
    return mean


def table(names=tuple(ZOO)):
    """Both figures for every model; those above 2 stand out."""
    shown = Table("model", "places", title="largest over smallest")
    for head in (
        "forward, Keras",
        "forward, ours",
        "backward, Keras",
        "backward, ours",
    ):
        shown.add_column(head, justify="right")
    for name in names:
        default, ours = signals(name)
        places = sum(map(len, ours.forward.values()))
        shown.add_row(name, str(places), *figures(default, ours))
    return shown


def figures(default, ours):
    """Forward and backward, by Keras's default and by ours, as text."""
    spreads = [
        default.forward_spread,
        ours.forward_spread,
        default.backward_spread,
        ours.backward_spread,
    ]
    return [f"{s:.2f}" if s <= 2 else f"[bold]{s:.2f}[/bold]" for s in spreads]


if __name__ == "__main__":
    Console().print(table(sys.argv[1:] or tuple(ZOO)))
