"""Layer-sequential unit variance in one forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import keras

from .._core import seeds as _seeds
from .._core.errors import (
    NoKernelsError,
    UnsupportedModelError,
    check_count,
    check_flag,
    check_positive,
    message,
)
from .._keras.batch import read_batch
from .._keras.kinds import Kernel, check_built, kernels
from .._keras.unchanged import unchanged
from .._weights.choosing import chosen
from .._weights.drawing import draw
from .._weights.trained import check_untrained
from .._weights.writing import write
from ..initializers import Orthogonal
from ..inspection import check_parts, inspect
from ._report import Calibrated
from ._running import one_pass, reasons_to_leave
from ._scaling import Wanted


def calibrate(
    model: keras.Model,
    x: Any,
    target_std: float = 1.0,
    *,
    per_channel: bool = False,
    center_bias: bool = False,
    orthogonal: bool = False,
    training: bool = False,
    only: Sequence[Any] | Callable[[Kernel], bool] | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> Calibrated:
    """Scales every kernel so that what it computes has one standard deviation on `x`.

    The model runs once, eagerly, on one batch. Where a kernel's output comes by (its
    pre-activation, the bias added), its standard deviation over examples, positions
    and channels is measured, the kernel divided by it, and the output handed on as it
    is with the new kernel. Running the model on `x` once more, in the same mode, then
    finds `target_std` at every kernel, whatever the layers between them do. On other
    data it holds as far as the batch is like them.

    A layer of a single unit is the exception. Over many units their different means
    count as variance; where the mean of a single one is larger than its standard
    deviation, the root mean square is brought to `target_std` instead, and its row says
    so.

    It holds at the first call of a layer that is called several times. A loop over
    time cannot be corrected while it runs: in recurrent layers the kernel is scaled by
    the standard deviation of the input projection (without bias and state), and the
    recurrent kernel drawn orthogonal for each gate. Positions that a mask hides count
    as others do. In custom layers, and in a `call` of your own, a kernel is heard where
    it meets a signal in a function of `keras.ops` that multiplies (`matmul`, `dot`,
    `tensordot`, `einsum`, `take`, a convolution) or in the operator `@`. Such a model
    runs once more, to see that all products are what they were scaled to be. Left as
    they are, each with its reason in the result: frozen and quantized kernels, those
    that are not heard, those whose layer does not compute in proportion to them, and
    those whose output is constant or holds fewer than 8 values. A kernel with a
    constraint begins with what that leaves of it, and is scaled as far as it allows;
    its row says how far. Biases keep their values; if these vary, the kernel's factor
    takes that into account. Embeddings are brought to the standard deviation as well,
    tied ones to that over the root of their width; where most of their rows are looked
    up in few steps they learn faster from a small one, as `recommend` gives them: leave
    them out with `only`.

    Args:
        model: a built Keras model or layer of any kind.
        x: one batch of inputs `(batch, …)`, an array or a list or dict of them; a tuple
            `(inputs, targets)`; or data as for `fit` (`tf.data.Dataset`, `PyDataset`,
            `DataLoader`, generator), of which the first batch is taken. Targets are
            left out; for a model of two inputs, two arrays are these. An array is run
            as a whole: 32 to 256 examples are usual.
        target_std: the standard deviation of each kernel's output, positive.
        per_channel: give it to each output channel (unit, filter) by itself.
        center_bias: also move biases so that what each kernel adds to its channels is
            0 on average. Kernels without a trainable bias are only scaled.
        orthogonal: begin with orthogonal kernels, as the published procedure does,
            and not with the present ones. Embeddings stay.
        training: the mode in which the model runs. By default, dropout does nothing
            and batch normalization uses its moving statistics; these and the states
            of Keras's random generators are the same afterwards in any case.
        only: paths of kernels or layers, or layers themselves; or a function of a
            kernel (with `variable`, `layer`, `axes`) that says whether to calibrate it;
            None for all.
        seed: a non-negative int for repeatable orthogonal kernels; None for fresh ones.
            It may be given where none is drawn.
        overwrite: also change weights that look trained.

    Returns:
        A `Calibrated`: a table of the standard deviations before and after, with
        `changed`, `skipped` and `undo()`.

    Raises:
        TypeError: if `model` is no Keras model, or `x` holds no arrays.
        UnbuiltModelError: if the model has no weights yet.
        NoKernelsError: if it has no kernel.
        TrainedWeightsError: if the weights look trained and `overwrite` is False.
        ValueError: for an argument out of range, an empty batch, inputs that are not
            finite or not of the model's shapes, or a kernel whose output is not
            finite. Whatever goes wrong while the model runs is passed on. All weights
            are then as they were.

    Example:
        >>> layers = [keras.layers.Dense(64, "relu") for _ in range(9)]
        >>> model = keras.Sequential([keras.Input((32,)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(128, 32)).astype("float32")
        >>> calibrated = calibrate(model, x)
        >>> calibrated[8].std_before < 0.75, calibrated[8].std_after
        (True, 1.0)
        >>> inner = keras.Model(model.inputs[0], layers[7].output)(x)
        >>> bool(abs(keras.ops.std(inner @ layers[8].kernel) - 1) < 1e-3)
        True
        >>> calibrated.undo()

    References:
        Mishkin and Matas 2016, "All you need is a good init", 1511.06422, algorithm 1;
        which runs the model one to ten times for each layer. Saxe et al. 2014,
        1312.6120, for orthogonal kernels.
    """
    check_built("model", model)
    wanted = Wanted(
        check_positive("target_std", target_std, usual=1.0),
        check_flag("per_channel", per_channel),
        check_flag("center_bias", center_bias),
    )
    check_flag("orthogonal", orthogonal)
    check_flag("training", training)
    check_flag("overwrite", overwrite)
    if seed is not None:
        seed = check_count("seed", seed, usual=0, least=0)
    if seed is None and (orthogonal or any(map(_is_drawn, kernels(model)))):
        seed = _seeds.fresh()
    base = seed or 0
    with unchanged(model):
        batch = read_batch(model, x, "x").x
        check_parts(model, batch)
        meant = _looked_into(model, batch, _meant(model, only))
        if not overwrite:
            _check_untrained(model, meant, is_part=only is not None)
        reasons = reasons_to_leave(model, meant)
        tied = _tied(model, batch, meant)
        drawn = _drawn(meant, reasons, base, orthogonal)
        run = one_pass(
            model,
            batch,
            meant,
            lambda kernel: _of_rows(kernel, wanted) if _key(kernel) in tied else wanted,
            reasons,
            drawn,
            training=training,
        )
    rows = [run.rows[id(kernel.variable)] for kernel in meant]
    applied = write(model, run.changed(), base, {}, is_recommended=True)
    return Calibrated(applied, rows)


def _is_drawn(kernel: Kernel) -> bool:
    """Whether a pass begins with another kernel, whatever is asked for."""
    return kernel.name == "recurrent_kernel"


def _meant(
    model: keras.Model, only: Sequence[Any] | Callable[[Kernel], bool] | None
) -> list[Kernel]:
    found = kernels(model)
    if not found:
        raise NoKernelsError(
            message("`model` must have at least one kernel.", f"model={model.name!r}")
        )
    return chosen(found, only, lambda kernel: kernel.variable.path)


def _looked_into(model: Any, batch: Any, meant: list[Kernel]) -> list[Kernel]:
    """The kernels, those of custom layers as a look into these shows them."""
    if all(kernel.is_known for kernel in meant):
        return meant
    try:
        records = inspect(model, batch).kernels
    except (UnsupportedModelError, NoKernelsError):
        return meant
    found = {id(record.variable): record.kernel for record in records}
    return [one if one.is_known else found.get(id(one.variable), one) for one in meant]


def _tied(model: Any, batch: Any, meant: Sequence[Kernel]) -> set[int]:
    """The tables that are also, transposed, the kernel of an output."""
    tables = [kernel for kernel in meant if kernel.part.role == "embedding"]
    if not tables:
        return set()
    try:
        records = inspect(model, batch).kernels
    except (UnsupportedModelError, NoKernelsError):
        return set()
    return {id(record.variable) for record in records if record.is_tied}


def _of_rows(kernel: Kernel, wanted: Wanted) -> Wanted:
    """What a tied table's rows shall be like, so that its logits are as wanted."""
    return replace(wanted, std=wanted.std / math.sqrt(kernel.shape[-1]))


def _key(kernel: Kernel) -> int:
    return id(kernel.variable)


def _check_untrained(
    model: keras.Model, meant: Sequence[Kernel], is_part: bool
) -> None:
    rows = [
        SimpleNamespace(kernel=k, bias_offset=None)
        for k in meant
        if k.variable.trainable
    ]
    check_untrained(model, rows, is_part, "calibrate")


def _drawn(
    meant: Sequence[Kernel], reasons: dict[int, str], base: int, orthogonal: bool
) -> dict[int, Any]:
    """The orthogonal kernels that the pass begins with, by the variable's id."""
    return {
        id(kernel.variable): draw(
            Orthogonal(),
            kernel.variable,
            _seeds.derive(base, position, 0),
            kernel.layer,
            kernel.axes,
        )
        for position, kernel in enumerate(meant)
        if id(kernel.variable) not in reasons
        and (_is_drawn(kernel) or (orthogonal and kernel.axes.input_axes))
    }
