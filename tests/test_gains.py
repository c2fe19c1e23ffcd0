"""Weights drawn N(0, 1/fan_in) keep the rms of a signal, measured through the layers.

The number that decides is never computed from the fans: a layer is filled from NumPy,
run, and its output compared with its input.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from abilities import require
from keras import layers
from scipy.special import logit

from keras_initlab import fans

pytestmark = pytest.mark.slow_on_jax


@pytest.fixture(autouse=True)
def _no_draws(monkeypatch):
    # JAX compiles a draw for every new shape, and all kernels here come from NumPy.
    for name in ("VarianceScaling", "RandomUniform", "Orthogonal", "TruncatedNormal"):
        drawing = getattr(keras.initializers, name)
        monkeypatch.setattr(drawing, "__call__", keras.initializers.Zeros.__call__)


def built(layer, *input_shapes):
    """A built copy, so that one table can serve several tests."""
    fresh = type(layer).from_config(layer.get_config())
    fresh.build(*((None, *shape) for shape in input_shapes))
    return fresh


def keras_fans(shape):
    """Keras's `compute_fans` for a shape alone: two last axes, the rest a window."""
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def true_fans(layer, side):
    return {path: fan[side] for path, fan in fans(layer).items()}


def shape_fans(layer, side):
    return {path: keras_fans(weight(layer, path).shape)[side] for path in fans(layer)}


FAN_IN, FAN_OUT = 0, 1


def weight(layer, path):
    return next(variable for variable in layer.weights if variable.path == path)


def fill(layer, fan_of_path, rng):
    """Draws each kernel N(0, 1/fan)."""
    for path, fan in fan_of_path.items():
        variable = weight(layer, path)
        variable.assign(rng.normal(0, fan**-0.5, variable.shape))


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def signs(rng, *shape):
    return rng.choice(np.array([-1, 1], "float32"), size=shape)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def rms(signal):
    return np.sqrt(np.mean(np.square(signal, dtype="float64")))


def away_from_borders(signal):
    """The middle half of every axis but the batch and the channels."""
    for axis in range(1, signal.ndim - 1):
        size = signal.shape[axis]
        middle = np.arange(size // 4, size - size // 4)
        signal = np.take(signal, middle, axis)
    return signal


class Gain(NamedTuple):
    """A measured factor on the rms, and its standard error."""

    value: float
    error: float

    @property
    def is_unit(self):
        return 0.97 <= self.value <= 1.03

    def __mul__(self, factor):
        return Gain(self.value * factor, self.error * factor)


def measured(draw, draws):
    """The rms gain over several draws of the kernels; `draw` returns one."""
    powers = [draw() ** 2 for _ in range(draws)]
    gain = math.sqrt(np.mean(powers))
    return Gain(gain, np.std(powers) / math.sqrt(draws) / (2 * gain))


def batch_size(input_shape):
    # So many numbers that the input's own sampling error does not show.
    return max(4, 2**14 // math.prod(input_shape))


def forward_gain(layer, input_shape, fan_of_path, rng, draws=12):
    def draw():
        fill(layer, fan_of_path, rng)
        x = normal(rng, batch_size(input_shape), *input_shape)
        return rms(away_from_borders(array(layer(x)))) / rms(x)

    return measured(draw, draws)


def backward_gain(forward, layer, input_shape, fan_ins, fan_outs):
    """The backward gain with kernels N(0, 1/fan_out), from a forward gain."""
    # A linear map A has rms gains |A|/sqrt(outputs) forward and |A|/sqrt(inputs)
    # backward in the Frobenius norm, and is linear in each kernel: the one
    # measurement gives the other.
    ratio = outputs_per_input(layer, input_shape)
    for path, fan_in in fan_ins.items():
        ratio *= fan_in / fan_outs[path]
    return forward * math.sqrt(ratio)


def outputs_per_input(layer, input_shape):
    *window, channels = input_shape
    if hasattr(layer, "kernel_size"):
        # Of an image so large that its borders do not count.
        window = [size * 2**20 for size in window]
        outputs = layer.compute_output_shape((1, *window, channels))
    else:
        outputs = layer(np.zeros((1, *input_shape), "float32")).shape
    return math.prod(outputs) / math.prod((*window, channels))


def assert_unit(gain):
    # Five standard errors fit into the bar.
    assert gain.error < 0.006
    assert gain.is_unit, gain


# --- layers with one input: what is drawn is the whole layer -------------------------

SUMMED = "an input label found in no other operand is summed as well, and not counted"


class Measured(NamedTuple):
    """A layer, and the gains that Keras's fans give it instead of 1.

    A gain of None is not measured. `wrong_in` says why `fans` does not hold.
    """

    layer: keras.Layer
    input_shape: tuple[int, ...]
    keras_forward: float = 1
    keras_backward: float | None = 1
    wrong_in: str = ""


# The dense layers see a sequence, so that many positions share one kernel draw.
SEQUENCE = (9, 64)
LINE, IMAGE, VOLUME = (36, 32), (16, 16, 32), (8, 8, 8, 16)

DENSE = {
    "Dense": Measured(layers.Dense(96), SEQUENCE),
    "Dense, LoRA": Measured(layers.Dense(96, lora_rank=3), SEQUENCE),
    "EinsumDense": Measured(layers.EinsumDense("abc,cd->abd", (None, 96)), SEQUENCE),
    "EinsumDense, LoRA": Measured(
        layers.EinsumDense("abc,cd->abd", (None, 96), lora_rank=3), SEQUENCE
    ),
    "EinsumDense, ellipsis on the left": Measured(
        layers.EinsumDense("...b,bc->...c", 96), SEQUENCE
    ),
    "EinsumDense, ellipsis on the right": Measured(
        layers.EinsumDense("ab...,bc->ac...", 96), (64, 9)
    ),
    "EinsumDense, outputs first": Measured(
        layers.EinsumDense("abc,dc->abd", (None, 96)),
        SEQUENCE,
        keras_forward=(64 / 96) ** 0.5,
        keras_backward=(96 / 64) ** 0.5,
    ),
    "EinsumDense, two inputs": Measured(
        layers.EinsumDense("abcd,cde->abe", (None, 96)),
        (9, 4, 16),
        keras_backward=0.5,
    ),
    "EinsumDense, two outputs": Measured(
        layers.EinsumDense("abc,cde->abde", (None, 4, 24)),
        SEQUENCE,
        keras_forward=0.5,
        keras_backward=(4 / 64) ** 0.5,
    ),
    "EinsumDense, outputs around an input": Measured(
        layers.EinsumDense("abc,dce->abde", (None, 4, 24)),
        SEQUENCE,
        keras_forward=0.5,
    ),
    "EinsumDense, a batch label": Measured(
        layers.EinsumDense("bhd,hde->bhe", (8, 96)),
        (8, 64),
        keras_forward=8**-0.5,
        keras_backward=8**-0.5,
    ),
    "EinsumDense, a batch label last": Measured(
        layers.EinsumDense("abc,bdc->adc", (96, 8)),
        (64, 8),
        keras_forward=96**-0.5,
        keras_backward=(96 / (64 * 8)) ** 0.5,
    ),
    "EinsumDense, only batch labels": Measured(
        layers.EinsumDense("abc,bc->abc", (64, 48)),
        (64, 48),
        keras_forward=1 / 8,
        keras_backward=48**-0.5,
    ),
    "EinsumDense, an input summed apart": Measured(
        layers.EinsumDense("abc,bd->ad", 128),
        (64, 3),
        keras_forward=3**0.5,
        wrong_in=SUMMED,
    ),
    "EinsumDense, no input in the kernel": Measured(
        layers.EinsumDense("ab,cd->acd", (32, 96)),
        (8,),
        keras_forward=0.5,
        keras_backward=32**0.5,
        wrong_in=SUMMED,
    ),
}

CONV = {
    "Conv1D": Measured(layers.Conv1D(48, 5, padding="same"), LINE),
    "Conv1D, LoRA": Measured(layers.Conv1D(48, 5, padding="same", lora_rank=3), LINE),
    "Conv1D, causal and dilated": Measured(
        layers.Conv1D(48, 5, padding="causal", dilation_rate=2), LINE
    ),
    "Conv1D, strides": Measured(
        layers.Conv1D(48, 5, strides=3, padding="same"),
        LINE,
        keras_backward=3**-0.5,
    ),
    "Conv1D, groups": Measured(
        layers.Conv1D(64, 5, padding="same", groups=4), LINE, keras_backward=0.5
    ),
    "Conv2D": Measured(layers.Conv2D(48, 3, padding="same"), IMAGE),
    "Conv2D, LoRA": Measured(layers.Conv2D(48, 3, padding="same", lora_rank=3), IMAGE),
    "Conv2D, valid": Measured(layers.Conv2D(48, (3, 2)), IMAGE),
    "Conv2D, dilated": Measured(
        layers.Conv2D(48, 3, dilation_rate=2, padding="same"), IMAGE
    ),
    "Conv2D, strides": Measured(
        layers.Conv2D(48, 3, strides=2, padding="same"),
        IMAGE,
        keras_backward=0.5,
    ),
    "Conv2D, valid, unequal strides": Measured(
        layers.Conv2D(48, 3, strides=(2, 1)),
        IMAGE,
        keras_backward=2**-0.5,
    ),
    "Conv2D, groups": Measured(
        layers.Conv2D(64, 3, padding="same", groups=8),
        (16, 16, 64),
        keras_backward=8**-0.5,
    ),
    "Conv3D": Measured(layers.Conv3D(32, (3, 2, 1), padding="same"), VOLUME),
    "Conv3D, groups": Measured(
        layers.Conv3D(16, 3, padding="same", groups=2), VOLUME, keras_backward=2**-0.5
    ),
    "Conv3D, dilated, valid": Measured(
        layers.Conv3D(16, 3, dilation_rate=2), (10, 10, 10, 16)
    ),
    "Conv3D, strides": Measured(
        layers.Conv3D(16, 3, strides=2, padding="same"),
        (10, 10, 10, 16),
        keras_backward=8**-0.5,
    ),
    "DepthwiseConv1D": Measured(
        layers.DepthwiseConv1D(5, padding="same", depth_multiplier=4),
        (36, 256),
        keras_forward=1 / 16,
    ),
    "DepthwiseConv1D, dilated, valid": Measured(
        layers.DepthwiseConv1D(5, dilation_rate=2, depth_multiplier=4),
        (36, 256),
        keras_forward=1 / 16,
    ),
    "DepthwiseConv2D": Measured(
        layers.DepthwiseConv2D(3, padding="same"), (12, 12, 256), keras_forward=1 / 16
    ),
    "DepthwiseConv2D, multiplier": Measured(
        layers.DepthwiseConv2D((3, 2), depth_multiplier=4),
        (16, 16, 100),
        keras_forward=1 / 10,
    ),
    "DepthwiseConv2D, strides": Measured(
        layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
        (12, 12, 256),
        keras_forward=1 / 16,
        keras_backward=0.5,
    ),
    "SeparableConv1D": Measured(
        layers.SeparableConv1D(64, 5, padding="same", depth_multiplier=3),
        (36, 100),
        keras_forward=1 / 10,
    ),
    "SeparableConv2D": Measured(
        layers.SeparableConv2D(64, 3, padding="same", depth_multiplier=2),
        (12, 12, 144),
        keras_forward=1 / 12,
    ),
    "SeparableConv2D, strides": Measured(
        layers.SeparableConv2D(64, 3, strides=2, padding="same", depth_multiplier=2),
        (12, 12, 144),
        keras_forward=1 / 12,
        keras_backward=0.5,
    ),
}

TRANSPOSED = {
    "Conv1DTranspose": Measured(
        layers.Conv1DTranspose(64, 5, padding="same"),
        (36, 16),
        keras_forward=0.5,
        keras_backward=2,
    ),
    "Conv1DTranspose, strides": Measured(
        layers.Conv1DTranspose(32, 6, strides=3),
        (11, 32),
        keras_forward=3**-0.5,
    ),
    "Conv1DTranspose, 5 by 2": Measured(
        layers.Conv1DTranspose(32, 5, strides=2, padding="same"),
        (16, 32),
        keras_forward=2**-0.5,
    ),
    "Conv1DTranspose, dilated": Measured(
        layers.Conv1DTranspose(32, 5, dilation_rate=2, padding="same"), LINE
    ),
    "Conv1DTranspose, output padding": Measured(
        layers.Conv1DTranspose(32, 4, strides=2, output_padding=1),
        (16, 32),
        keras_forward=2**-0.5,
    ),
    "Conv2DTranspose, narrower": Measured(
        layers.Conv2DTranspose(16, 3, padding="same"),
        (16, 16, 64),
        keras_forward=2,
        keras_backward=0.5,
    ),
    "Conv2DTranspose, wider": Measured(
        layers.Conv2DTranspose(64, 3, padding="same"),
        (16, 16, 16),
        keras_forward=0.5,
        keras_backward=2,
    ),
    "Conv2DTranspose, 4x4 by 2": Measured(
        layers.Conv2DTranspose(32, 4, strides=2, padding="same"),
        IMAGE,
        keras_forward=0.5,
    ),
    "Conv2DTranspose, 3x3 by 2": Measured(
        layers.Conv2DTranspose(32, 3, strides=2, padding="same"),
        IMAGE,
        keras_forward=0.5,
    ),
    "Conv2DTranspose, a window below the stride": Measured(
        layers.Conv2DTranspose(32, 2, strides=3),
        (12, 12, 32),
        keras_forward=1 / 3,
    ),
    "Conv2DTranspose, unequal strides": Measured(
        layers.Conv2DTranspose(32, (3, 4), strides=(1, 2), padding="same"),
        IMAGE,
        keras_forward=2**-0.5,
    ),
    "Conv2DTranspose, dilated": Measured(
        layers.Conv2DTranspose(32, 3, dilation_rate=2, padding="same"), IMAGE
    ),
    "Conv2DTranspose, output padding": Measured(
        layers.Conv2DTranspose(32, 4, strides=2, output_padding=1),
        IMAGE,
        keras_forward=0.5,
    ),
    "Conv3DTranspose": Measured(
        layers.Conv3DTranspose(32, 3, strides=2, padding="same"),
        (6, 6, 6, 32),
        keras_forward=8**-0.5,
    ),
    "Conv3DTranspose, valid": Measured(
        layers.Conv3DTranspose(8, 3),
        (6, 6, 6, 32),
        keras_forward=2,
        keras_backward=0.5,
    ),
}

# One step from a zero state makes a recurrent layer a dense one.
STEP = (1, 96)

WRAPPERS = {
    "TimeDistributed": Measured(
        layers.TimeDistributed(layers.DepthwiseConv2D(3, padding="same")),
        (2, 8, 8, 256),
        keras_forward=1 / 16,
    ),
    "RNN": Measured(
        layers.RNN(layers.SimpleRNNCell(64, activation="linear"), unroll=True), STEP
    ),
    "RNN of several cells": Measured(
        layers.RNN(
            [
                layers.SimpleRNNCell(64, activation="linear"),
                layers.SimpleRNNCell(48, activation="linear"),
            ],
            unroll=True,
        ),
        STEP,
    ),
    "StackedRNNCells": Measured(
        layers.RNN(
            layers.StackedRNNCells(
                [
                    layers.SimpleRNNCell(64, activation="linear"),
                    layers.SimpleRNNCell(48, activation="linear"),
                ]
            ),
            unroll=True,
        ),
        STEP,
    ),
    # The input reaches both directions: no property of either kernel.
    "Bidirectional": Measured(
        layers.Bidirectional(layers.SimpleRNN(64, activation="linear", unroll=True)),
        STEP,
        keras_backward=None,
    ),
    "SpectralNormalization of Dense": Measured(
        layers.SpectralNormalization(layers.Dense(96)), SEQUENCE
    ),
    "SpectralNormalization of Conv2D": Measured(
        layers.SpectralNormalization(layers.Conv2D(48, 3, padding="same")), IMAGE
    ),
    "SpectralNormalization of Conv2D, groups": Measured(
        layers.SpectralNormalization(layers.Conv2D(64, 3, padding="same", groups=8)),
        (16, 16, 64),
        keras_backward=8**-0.5,
    ),
    "SpectralNormalization of DepthwiseConv2D": Measured(
        layers.SpectralNormalization(layers.DepthwiseConv2D(3, padding="same")),
        (12, 12, 256),
        keras_forward=1 / 16,
    ),
    "SpectralNormalization of Conv2DTranspose": Measured(
        layers.SpectralNormalization(layers.Conv2DTranspose(16, 3, padding="same")),
        (16, 16, 64),
        keras_forward=2,
        keras_backward=0.5,
    ),
    "SpectralNormalization of EinsumDense": Measured(
        layers.SpectralNormalization(layers.EinsumDense("abc,dc->abd", (None, 96))),
        SEQUENCE,
        keras_forward=(64 / 96) ** 0.5,
        keras_backward=(96 / 64) ** 0.5,
    ),
}

MEASURED = {**DENSE, **CONV, **TRANSPOSED, **WRAPPERS}
LINEAR = {
    name: case for name, case in MEASURED.items() if case.keras_backward is not None
}


def rows(table, fault=""):
    """The names in a table; a row where `fans` has the `fault` must fail."""
    return [
        pytest.param(name, id=name, marks=expected_failure(getattr(case, fault, "")))
        for name, case in table.items()
    ]


def expected_failure(reason):
    return [pytest.mark.xfail(strict=True, reason=reason)] if reason else []


@functools.cache
def measured_row(name):
    """A built layer and its forward gain with its true fans; two tests read it."""
    case, rng = MEASURED[name], np.random.default_rng(0)
    layer = built(case.layer, case.input_shape)
    require(layer, (1, *case.input_shape))
    fan_ins = true_fans(layer, FAN_IN)
    return layer, forward_gain(layer, case.input_shape, fan_ins, rng)


@pytest.mark.onednn
@pytest.mark.parametrize("name", rows(MEASURED, "wrong_in"))
def test_true_fan_in_keeps_the_signal(name):
    assert_unit(measured_row(name)[1])


@pytest.mark.onednn
@pytest.mark.parametrize("name", LINEAR)
def test_true_fan_out_keeps_the_gradient(name):
    assert_unit(backward_of_row(name, true_fans))


@pytest.mark.parametrize("name", rows(MEASURED))
def test_what_fan_in_of_the_shape_does_to_the_signal(name, rng):
    case = MEASURED[name]
    layer = built(case.layer, case.input_shape)
    require(layer, (1, *case.input_shape))
    gain = forward_gain(layer, case.input_shape, shape_fans(layer, FAN_IN), rng, 6)
    assert gain.value == pytest.approx(case.keras_forward, rel=0.03)


@pytest.mark.parametrize("name", rows(LINEAR))
def test_what_fan_out_of_the_shape_does_to_the_gradient(name):
    gain = backward_of_row(name, shape_fans)
    assert gain.value == pytest.approx(MEASURED[name].keras_backward, rel=0.03)


def backward_of_row(name, fans_of):
    layer, forward = measured_row(name)
    fan_ins, fan_outs = true_fans(layer, FAN_IN), fans_of(layer, FAN_OUT)
    shape = MEASURED[name].input_shape
    return backward_gain(forward, layer, shape, fan_ins, fan_outs)


def gradient(layer, x, upstream):
    """The gradient of sum(layer(x) * upstream) on x, by the backend itself."""
    if keras.backend.backend() == "torch":
        x = keras.ops.convert_to_tensor(x).requires_grad_()
        (layer(x) * keras.ops.convert_to_tensor(upstream)).sum().backward()
        return x.grad.cpu().numpy()
    if keras.backend.backend() == "jax":
        import jax

        return jax.vjp(layer, x)[1](upstream)[0]
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    return tape.gradient(y, x, upstream)


@pytest.mark.parametrize("name", ["Conv2D, strides", "Conv2DTranspose, 4x4 by 2"])
def test_backward_gains_are_those_of_real_gradients(name, rng):
    layer, shape = built(MEASURED[name].layer, MEASURED[name].input_shape), IMAGE
    fan_outs = true_fans(layer, FAN_OUT)

    def draw():
        fill(layer, fan_outs, rng)
        x = normal(rng, 4, *shape)
        upstream = normal(rng, *layer.compute_output_shape(x.shape))
        return rms(away_from_borders(array(gradient(layer, x, upstream))))

    expected = backward_of_row(name, true_fans).value
    assert measured(draw, 12).value == pytest.approx(expected, rel=0.03)


# --- gates: one step from chosen states, with all other gates held open or shut ------

OPEN, SHUT = 1e3, -1e3


class Gate(NamedTuple):
    """How to read what a gate sums off the output of a layer.

    Attributes:
        bias: one number a gate, 0 for the gate that is read.
        read: the pre-activation from the output and the last state.
        carry: what the cell state is at first.
        candidate: the candidate is this times the state; None for its own kernels.
    """

    bias: tuple[float, ...]
    read: Callable
    carry: float = 0
    candidate: float | None = None


SIMPLE_GATES = {"state": Gate((0,), lambda output, state: np.arctanh(output))}

# The cell state is forget * carry + input * candidate, the output that times a gate.
LSTM_GATES = {
    "input": Gate((0, SHUT, OPEN, OPEN), lambda output, state: logit(state)),
    "forget": Gate((SHUT, 0, 0, 0), lambda output, state: logit(state), carry=1),
    "candidate": Gate((OPEN, SHUT, 0, 0), lambda output, state: np.arctanh(state)),
    "output": Gate((SHUT, OPEN, 0, 0), lambda output, state: logit(output), carry=OPEN),
}

# The output is update * state + (1 - update) * tanh(candidate), the state +1 or -1.
GRU_GATES = {
    "update": Gate((0, 0, 0), lambda output, state: logit(np.abs(output)), candidate=0),
    "reset": Gate(
        (SHUT, 0, 0),
        lambda output, state: logit(np.arctanh(np.abs(output))),
        candidate=1,
    ),
    "candidate": Gate((SHUT, OPEN, 0), lambda output, state: np.arctanh(output)),
}

# One step unrolled: a loop would be compiled anew at every call.
ONE_STEP = {"return_state": True, "unroll": True}


class Recurrent(NamedTuple):
    layer: keras.Layer
    input_shape: tuple[int, ...]
    gates: dict[str, Gate]


RECURRENT = {
    "SimpleRNN": Recurrent(layers.SimpleRNN(64, **ONE_STEP), (96,), SIMPLE_GATES),
    "LSTM": Recurrent(layers.LSTM(64, **ONE_STEP), (96,), LSTM_GATES),
    "GRU": Recurrent(layers.GRU(64, **ONE_STEP), (96,), GRU_GATES),
    "GRU, reset before": Recurrent(
        layers.GRU(64, reset_after=False, **ONE_STEP), (96,), GRU_GATES
    ),
    "ConvLSTM1D": Recurrent(
        layers.ConvLSTM1D(24, 5, padding="same", **ONE_STEP), (11, 32), LSTM_GATES
    ),
    "ConvLSTM2D": Recurrent(
        layers.ConvLSTM2D(32, (3, 2), padding="same", **ONE_STEP),
        (7, 7, 24),
        LSTM_GATES,
    ),
    "ConvLSTM3D": Recurrent(
        layers.ConvLSTM3D(24, 2, padding="same", **ONE_STEP), (7, 7, 7, 16), LSTM_GATES
    ),
}

GATED = [
    pytest.param(
        case.layer, case.input_shape, gate, kernel, id=f"{name}, {of} {kernel}"
    )
    for name, case in RECURRENT.items()
    for of, gate in case.gates.items()
    for kernel in ("kernel", "recurrent_kernel")
]


def set_candidate(kernels, gates, factor):
    """Makes the candidate `factor` times the state, whatever the input."""
    units = kernels["kernel"].shape[-1] // gates
    kernels["kernel"][..., -units:] = 0
    kernels["recurrent_kernel"][..., -units:] = factor * np.eye(units)


def gate_gain(layer, input_shape, gate, name, fan, rng):
    """The rms of one gate's sums, from inputs or from states of rms 1."""
    cell, gates = layer.cell, len(gate.bias)
    units = cell.kernel.shape[-1] // gates
    bias = np.zeros(cell.bias.shape)
    bias.reshape(-1, gates * units)[0] = np.repeat(gate.bias, units)
    cell.bias.assign(bias)
    reads_input = name == "kernel"

    def draw():
        kernels = {
            "kernel": np.zeros(cell.kernel.shape),
            "recurrent_kernel": np.zeros(cell.recurrent_kernel.shape),
        }
        kernels[name] = rng.normal(0, fan**-0.5, kernels[name].shape)
        if gate.candidate is not None:
            set_candidate(kernels, gates, gate.candidate)
        for kernel, value in kernels.items():
            getattr(cell, kernel).assign(value)
        batch = batch_size(input_shape)
        x = normal(rng, batch, 1, *input_shape) * reads_input
        state = signs(rng, batch, *input_shape[:-1], units)
        carry = [np.full_like(state, gate.carry)] * (gates == 4)
        output, *states = layer(x, initial_state=[state, *carry])
        read = gate.read(array(output), array(states[-1]))
        return rms(away_from_borders(read)) / (rms(x) if reads_input else 1)

    return measured(draw, 12)


@pytest.mark.parametrize(("layer", "input_shape", "gate", "name"), GATED)
def test_true_fans_keep_the_signal_at_every_gate(layer, input_shape, gate, name, rng):
    layer = built(layer, (1, *input_shape))
    kernel = getattr(layer.cell, name)
    fan_in, fan_out = fans(layer)[kernel.path]
    gain = gate_gain(layer, input_shape, gate, name, fan_in, rng)
    assert_unit(gain)
    # Backward it is the same linear map: see `backward_gain`.
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // len(gate.bias)
    backward = gain * math.sqrt(outputs / inputs * fan_in / fan_out)
    assert_unit(backward)
    # The gates are blocks of their own; the shape alone shows one wide kernel.
    wrong = backward * math.sqrt(fan_out / keras_fans(kernel.shape)[FAN_OUT])
    assert wrong.value == pytest.approx(len(gate.bias) ** -0.5, rel=0.03)


# --- attention: every projection, and the signal through the whole layer -------------


class Projection(NamedTuple):
    """The gains that Keras's fans give one projection instead of 1."""

    keras_forward: float
    keras_backward: float
    inputs: tuple[int, ...] = (64,)


PER_HEAD = Projection(8**-0.5, 8**-0.5)
SHARED_HEADS = Projection(2**-0.5, 32**-0.5)
FROM_HEADS = Projection(1, 8**-0.5, inputs=(8, 16))

ATTENTION = {
    "MultiHeadAttention": (
        layers.MultiHeadAttention(8, 16, use_gate=True),
        {
            "query": PER_HEAD,
            "key": PER_HEAD,
            "value": PER_HEAD,
            "gate": PER_HEAD,
            "attention_output": FROM_HEADS,
        },
    ),
    "MultiHeadAttention, wide values": (
        layers.MultiHeadAttention(8, 16, value_dim=32),
        {"value": PER_HEAD, "attention_output": FROM_HEADS._replace(inputs=(8, 32))},
    ),
    "GroupQueryAttention": (
        layers.GroupQueryAttention(32, 8, 2, use_gate=True),
        {
            "query": PER_HEAD,
            "key": SHARED_HEADS,
            "value": SHARED_HEADS,
            "gate": PER_HEAD,
            "attention_output": FROM_HEADS._replace(inputs=(8, 32)),
        },
    ),
}

PROJECTIONS = [
    pytest.param(layer, name, case, id=f"{kind}, {name}")
    for kind, (layer, projections) in ATTENTION.items()
    for name, case in projections.items()
]

TOKENS = (16, 64)


@pytest.mark.parametrize(("layer", "name", "case"), PROJECTIONS)
def test_true_fans_keep_the_signal_at_every_projection(layer, name, case, rng):
    layer = built(layer, TOKENS, TOKENS)
    dense = next(inner for inner in layer._flatten_layers() if inner.name == name)
    # A gate's sigmoid is no part of its kernel.
    dense.activation = keras.activations.linear
    (path,) = fans(dense)
    fan_in, fan_out = fans(layer)[path]
    wrong_in, wrong_out = keras_fans(dense.kernel.shape)
    shape = (16, *case.inputs)

    def backward(fan):
        return backward_gain(forward, dense, shape, {path: fan_in}, {path: fan})

    forward = forward_gain(dense, shape, {path: fan_in}, rng)
    assert_unit(forward)
    assert_unit(backward(fan_out))
    wrong = forward_gain(dense, shape, {path: wrong_in}, rng, 6)
    assert wrong.value == pytest.approx(case.keras_forward, rel=0.03)
    assert backward(wrong_out).value == pytest.approx(case.keras_backward, rel=0.03)


END_TO_END = {
    "MultiHeadAttention": layers.MultiHeadAttention(8, 16),
    "GroupQueryAttention": layers.GroupQueryAttention(32, 8, 2),
}


@pytest.mark.parametrize("layer", END_TO_END.values(), ids=END_TO_END)
def test_attention_to_a_single_key_keeps_the_signal(layer, rng):
    layer = built(layer, TOKENS, TOKENS)

    def draw():
        fill(layer, true_fans(layer, FAN_IN), rng)
        query, value = normal(rng, 128, 3, 64), normal(rng, 128, 1, 64)
        # All weight lies on the one key: the output is that of two dense layers.
        return rms(array(layer(query, value))) / rms(value)

    assert_unit(measured(draw, 24))


@pytest.mark.parametrize("layer", END_TO_END.values(), ids=END_TO_END)
def test_attention_scores_have_unit_variance(layer, rng):
    layer = built(layer, TOKENS, TOKENS)

    def draw():
        fill(layer, true_fans(layer, FAN_IN), rng)
        query, value = normal(rng, 64, 8, 64), normal(rng, 64, 2, 64)
        _, weights = layer(query, value, return_attention_scores=True)
        log = np.log(array(weights))
        # The softmax shows the difference of two scores, of variance 1 each.
        return rms(log[..., 0] - log[..., 1]) / math.sqrt(2)

    assert_unit(measured(draw, 24))


# --- embeddings ----------------------------------------------------------------------

EMBEDDINGS = {
    "Embedding": layers.Embedding(1000, 64),
    "Embedding, LoRA": layers.Embedding(1000, 64, lora_rank=3),
    "ReversibleEmbedding": layers.ReversibleEmbedding(1000, 64),
    "SpectralNormalization": layers.SpectralNormalization(layers.Embedding(1000, 64)),
}


@pytest.mark.parametrize("layer", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_an_embedding_looks_up_one_row(layer, rng):
    layer = built(layer, (9,))
    # As floats: SpectralNormalization casts its output to the type of its input.
    tokens = rng.integers(0, 1000, (256, 9)).astype("float32")

    def gain(fan_of_path):
        def draw():
            fill(layer, fan_of_path, rng)
            return rms(array(layer(tokens)))

        return measured(draw, 6)

    assert_unit(gain(true_fans(layer, FAN_IN)))
    wrong = gain(shape_fans(layer, FAN_IN))
    assert wrong.value == pytest.approx(1000**-0.5, rel=0.03)


def test_untied_reverse_embeddings_keep_the_signal(rng):
    layer = built(layers.ReversibleEmbedding(1000, 64, tie_weights=False), (9,))
    path = layer.reverse_embeddings.path
    assert_unit(reverse_gain(layer, {path: fans(layer)[path].fan_in}, rng))


def test_tied_reverse_embeddings_read_the_table_backward(rng):
    # One table cannot keep both signals: the logits sum over what a row spreads.
    layer = built(layers.ReversibleEmbedding(1000, 64), (9,))
    assert_unit(reverse_gain(layer, true_fans(layer, FAN_OUT), rng))
    tied = reverse_gain(layer, true_fans(layer, FAN_IN), rng)
    assert tied.value == pytest.approx(8, rel=0.03)


def reverse_gain(layer, fan_of_path, rng):
    def draw():
        fill(layer, fan_of_path, rng)
        x = normal(rng, 256, 64)
        return rms(array(layer(x, reverse=True))) / rms(x)

    return measured(draw, 6)


# --- quantized layers ----------------------------------------------------------------

QUANTIZED = {
    "Dense": (layers.Dense(255), (256,)),
    "EinsumDense": (layers.EinsumDense("ab,bc->ac", 255), (256,)),
    "EinsumDense, outputs first": (layers.EinsumDense("ab,cb->ac", 255), (256,)),
    "EinsumDense, two outputs": (layers.EinsumDense("ab,bcd->acd", (5, 51)), (256,)),
    "EinsumDense, a batch label": (
        layers.EinsumDense("abc,bcd->abd", (9, 15)),
        (9, 64),
    ),
    "Embedding": (layers.Embedding(500, 33), (9,)),
    "ReversibleEmbedding": (
        layers.ReversibleEmbedding(500, 33, tie_weights=False),
        (9,),
    ),
}

# An odd number of units: the last byte of a packed row holds one of them alone.
MODES = {
    "int8": (),
    "float8": ("Embedding", "ReversibleEmbedding"),
    "int4/-1": (),
    "int4/16": (),
    "gptq/8/-1": ("Embedding", "ReversibleEmbedding"),
    "gptq/4/-1": ("Embedding", "ReversibleEmbedding"),
    "awq/4/-1": ("Embedding", "ReversibleEmbedding"),
}

POLICIES = [
    pytest.param(
        layer,
        shape,
        f"{mode}_from_float32",
        id=f"{name}, {mode}",
    )
    for mode, without in MODES.items()
    for name, (layer, shape) in QUANTIZED.items()
    if name not in without
]


def fans_by_name(layer):
    return {path.split("/", 1)[1]: fan for path, fan in fans(layer).items()}


@pytest.mark.parametrize(("layer", "input_shape", "policy"), POLICIES)
def test_a_quantized_kernel_keeps_its_fans(layer, input_shape, policy):
    expected = fans_by_name(built(layer, input_shape))
    config = {**layer.get_config(), "dtype": policy}
    quantized = built(type(layer).from_config(config), input_shape)
    assert fans_by_name(quantized) == expected


QUANTIZE = [
    ("Dense", "int8"),
    ("Dense", "int4"),
    ("Dense", "float8"),
    ("EinsumDense, two outputs", "int8"),
    ("EinsumDense, two outputs", "int4"),
]


@pytest.mark.seconds
@pytest.mark.parametrize(("name", "mode"), QUANTIZE)
def test_true_fan_in_keeps_the_signal_of_a_quantized_layer(name, mode, rng):
    layer, input_shape = QUANTIZED[name]
    (fan_in,) = quantized_fan_ins(layer, input_shape, mode)
    layer = built(layer, input_shape)
    fill(layer, {layer.kernel.path: fan_in}, rng)
    layer.quantize(mode)
    x = normal(rng, 1024, *input_shape)
    assert_unit(gain_over_units(array(layer(x)) / rms(x)))


def quantized_fan_ins(layer, input_shape, mode):
    layer = built(layer, input_shape)
    layer.quantize(mode)
    return true_fans(layer, FAN_IN).values()


def gain_over_units(signal):
    """The gain of one draw of the kernel: each unit has columns of its own."""
    units = iter(signal.reshape(len(signal), -1).T)
    return measured(lambda: rms(next(units)), signal[0].size)


# --- what is no kernel ---------------------------------------------------------------


NO_KERNELS = {
    "LoRA of Dense": (layers.Dense(5, lora_rank=2), (4,)),
    "LoRA of EinsumDense": (layers.EinsumDense("ab,bc->ac", 5, lora_rank=2), (4,)),
    "LoRA of Conv2D": (layers.Conv2D(5, 3, lora_rank=2), (8, 8, 4)),
    "LoRA of Embedding": (layers.Embedding(9, 5, lora_rank=2), (4,)),
    "SpectralNormalization": (layers.SpectralNormalization(layers.Dense(5)), (4,)),
    "GRU, two biases": (layers.GRU(5), (9, 4)),
    "PReLU": (layers.PReLU(), (8, 8, 4)),
    "LayerNormalization": (layers.LayerNormalization(axis=(1, 2)), (8, 4)),
    "RMSNormalization": (layers.RMSNormalization(), (8, 4)),
    "BatchNormalization": (layers.BatchNormalization(), (8, 8, 4)),
}


@pytest.mark.parametrize(("layer", "input_shape"), NO_KERNELS.values(), ids=NO_KERNELS)
def test_only_kernels_are_listed(layer, input_shape):
    names = {path.rsplit("/", 1)[1] for path in fans(built(layer, input_shape))}
    assert names <= {"kernel", "recurrent_kernel", "embeddings"}


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_only_the_kernel_is_listed_after_quantizing_and_enabling_lora(mode):
    layer = built(layers.Dense(5, name="dense"), (4,))
    layer.enable_lora(2)
    layer.quantize(mode)
    assert fans(layer) == {"dense/kernel": (4, 5)}


def test_spectral_normalization_forgets_the_scale_while_training(rng):
    # At inference the kernel is used as drawn (above). A training step divides it by
    # its largest singular value: the gain is then that of the shape, at any scale.
    layer = built(layers.SpectralNormalization(layers.Dense(96)), SEQUENCE)
    kernel, x = rng.normal(size=(64, 96)), normal(rng, 4, *SEQUENCE)
    _, singular, right = np.linalg.svd(kernel, full_matrices=False)
    for scale in (0.01, 1, 100):
        layer.layer.kernel.assign(scale * kernel)
        # One power iteration a step: start where many steps lead.
        layer.vector_u.assign(right[:1])
        gain = rms(array(layer(x, training=True))) / rms(x)
        assert gain == pytest.approx(rms(x @ kernel) / rms(x) / singular[0], rel=1e-4)


# --- the whole zoo -------------------------------------------------------------------

TABLES = [
    *(case.layer for case in MEASURED.values()),
    *(case.layer for case in RECURRENT.values()),
    *(layer for layer, _ in ATTENTION.values()),
    *EMBEDDINGS.values(),
]

FOREIGN = "wraps a module of another library, whose weights have that one's layouts"

NOT_MEASURED = {
    "PReLU": "a slope is a factor on its own unit; nothing is summed",
    "STFTSpectrogram": "its kernels are the windowed sines of the Fourier transform",
    "FlaxLayer": FOREIGN,
    "JaxLayer": FOREIGN,
    "TorchModuleWrapper": FOREIGN,
    "TFSMLayer": FOREIGN,
    "Lambda": "a function without weights",
    "InputLayer": "no function at all",
    "Wrapper": "the base of wrappers",
    "Pipeline": "only runs the layers that it is given, which are their own rows",
}

# What a class asks for, by the name of the argument.
ARGUMENTS = {
    "activation": "relu",
    "axes": -1,
    "dims": (1,),
    "factor": 1,
    "filters": 4,
    "height": 4,
    "height_factor": 0.5,
    "input_dim": 9,
    "kernel_size": 2,
    "max_number": 4,
    "n": 2,
    "num_bins": 4,
    "num_tokens": 4,
    "output_dim": 5,
    "output_size": 2,
    "pool_size": 2,
    "rate": 0.5,
    "scale": 2,
    "stddev": 1,
    "target_shape": (-1,),
    "units": 3,
    "width": 4,
    "width_factor": 0.5,
}

SHAPES = [(None, *(4,) * rank, 32) for rank in range(5)]
SHAPES += [[(None, 32)] * 2, [(None, 4, 32)] * 2]


def keras_layers():
    public = {value for value in vars(layers).values() if inspect.isclass(value)}
    return {
        value.__name__: value for value in public if issubclass(value, layers.Layer)
    }


def measured_layers():
    """The names of all classes in the tables, with those of the layers inside."""
    inside = [inner for layer in TABLES for inner in layer._flatten_layers()]
    return {type(inner).__name__ for inner in inside}


def has_matrix(layer_class):
    """Whether some input gives the layer a trainable weight of two axes or more.

    None if no way was found to build it.
    """
    asked = inspect.signature(layer_class.__init__).parameters.values()
    names = [each.name for each in asked if each.name in ARGUMENTS and is_asked(each)]
    found = [
        any(len(variable.shape) > 1 for variable in layer.trainable_weights)
        for shape in SHAPES
        if (layer := try_to_build(layer_class, names, shape)) is not None
    ]
    return any(found) if found else None


def is_asked(parameter):
    return parameter.default in (inspect.Parameter.empty, None)


def try_to_build(layer_class, names, shape):
    # Most shapes do not fit most layers, and each says so with an error of its own.
    with contextlib.suppress(Exception):
        layer = layer_class(**{name: ARGUMENTS[name] for name in names})
        layer.build(shape)
        return layer
    return None


def test_every_keras_layer_with_a_kernel_is_measured():
    left = keras_layers().keys() - measured_layers() - NOT_MEASURED.keys()
    assert {
        name for name in left if has_matrix(keras_layers()[name]) is not False
    } == set()


def test_no_layer_is_left_out_without_need():
    assert NOT_MEASURED.keys() <= keras_layers().keys()
    assert NOT_MEASURED.keys().isdisjoint(measured_layers())


ZOO = {
    "Dense": True,
    "Conv3DTranspose": True,
    "PReLU": True,
    "Dropout": False,
    "Dot": False,
    "LayerNormalization": False,
    "Wrapper": None,
}


@pytest.mark.parametrize(("name", "expected"), ZOO.items())
def test_the_search_finds_matrices(name, expected):
    assert has_matrix(keras_layers()[name]) is expected
