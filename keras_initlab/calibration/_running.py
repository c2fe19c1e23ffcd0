"""Running a model once, with kernels that are scaled as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from .._core.arrays import as_tensor, kept, to_numpy
from .._core.random import rewinding
from .._core.transaction import within
from .._keras.hearing import runs_own_code_of_keras
from .._keras.kinds import Hook, Kernel
from .._keras.private import all_layers, takes_training
from .._keras.replacing import all_replaced
from .._keras.running import Listener, listening, normalizing_by_batch
from .._weights.constraining import Constraints
from ..inspection import all_built
from ._check import Check
from ._pass import Pass
from ._scaling import Wanted


def one_pass(
    model: keras.Model,
    batch: Any,
    kernels: Sequence[Kernel],
    wanted: Callable[[Kernel], Wanted],
    reasons: Mapping[int, str],
    starts: Mapping[int, Any],
    training: bool = False,
    normalizes_by_batch: bool = False,
    looked_at: dict[int, list[float]] | None = None,
) -> Pass:
    """Returns the finished pass, from which new values and rows can be read.

    The model's variables are the same afterwards. Kernels with a constraint begin the
    pass with what that leaves of their values.

    Args:
        model: a built model.
        batch: what it is called on.
        kernels: those to be scaled.
        wanted: gives what a kernel's output shall be like.
        reasons: why some of them are left as they are, by the variable's id.
        starts: the values with which variables begin the pass, by the variable's id;
            the others begin with their own.
        training: the mode in which the model runs.
        normalizes_by_batch: whether batch normalization alone runs as in training.
        looked_at: given if the values are not to be kept: where the mean squares of
            what each kernel reads are noted, call by call, by the variable's id, before
            it is asked what is wanted. No model then runs once more to find kernels
            that do not compute in proportion to their values.
    """
    constraints = Constraints(model)
    obeying = _obeying(kernels, reasons, starts, constraints)
    values = list(_values(model, kernels, {**starts, **obeying}))
    scope = keras.StatelessScope(state_mapping=values)
    # A `call` of the user's own may use a kernel before it is heard, or twice.
    is_own = not all(map(runs_own_code_of_keras, all_layers(model)))
    is_to_check = is_own and looked_at is None
    given = kernels, reasons, wanted, scope, constraints, obeying
    run = Pass(*given, is_to_check, looked_at)
    set_hooks = normalizing_by_batch(model) if normalizes_by_batch else []
    rewind = rewinding()
    _hear(model, batch, run, scope, set_hooks, training)
    run.finish()
    if not is_to_check:
        return run
    rewind()
    check = Check(kernels, run.samples)
    mapping = {id(one): (one, value) for one, value in [*values, *run.changed()]}
    scope = keras.StatelessScope(state_mapping=list(mapping.values()))
    _hear(model, batch, check, scope, set_hooks, training)
    if check.off is None:
        return run
    rewind()
    reasons = {**reasons, check.off: "its layer does not compute in proportion to it"}
    return one_pass(
        model, batch, kernels, wanted, reasons, starts, training, normalizes_by_batch
    )


def _hear(
    model: keras.Model,
    batch: Any,
    listener: Listener,
    scope: keras.StatelessScope,
    set_hooks: Sequence[Hook],
    training: bool = False,
) -> None:
    """Runs a model in a scope, with a listener."""
    mode = {"training": training} if takes_training(model) else {}
    heard = listening(model, listener)
    try:
        contexts = (all_built(model), scope, all_replaced(set_hooks), heard)
        within(contexts, lambda: model(batch, **mode))
    except Exception as error:
        shapes = keras.tree.map_structure(lambda leaf: str(tuple(leaf.shape)), batch)
        error.add_note(
            f"This happened while the calibration ran {model.name!r} on x of shape "
            f"{shapes}. The weights are unchanged."
        )
        raise


def _obeying(
    kernels: Sequence[Kernel],
    reasons: Mapping[int, str],
    starts: Mapping[int, Any],
    constraints: Constraints,
) -> dict[int, Any]:
    """What constraints leave of the kernels that do not obey them, by variable's id."""
    left = {}
    for kernel in kernels:
        variable, key = kernel.variable, id(kernel.variable)
        is_left = key in reasons and constraints.normalizer(variable) is None
        if is_left or not variable.trainable or not constraints.names(variable):
            continue
        values = to_numpy(starts[key]) if key in starts else kept(variable)
        obeying = constraints.applied(variable, values)
        if obeying is not values:
            left[key] = obeying
    return left


def reasons_to_leave(model: keras.Model, kernels: Sequence[Kernel]) -> dict[int, str]:
    """Returns why some kernels are not calibrated, by the variable's id."""
    normalized = {
        id(layer.layer)
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.SpectralNormalization)
    }
    reasons = {}
    for kernel in kernels:
        if getattr(kernel.layer, "quantization_mode", None) is not None:
            reason = "quantized"
        elif not kernel.variable.trainable:
            reason = "frozen"
        elif not kernel.is_known:
            kind = type(kernel.layer).__name__
            reason = f"what a {kind} computes with it is not known"
        elif id(kernel.layer) in normalized:
            reason = "spectral normalization gives it its scale"
        else:
            continue
        reasons[id(kernel.variable)] = reason
    return reasons


def _values(
    model: keras.Model, kernels: Sequence[Kernel], starts: Mapping[int, Any]
) -> Iterator[tuple[Any, Any]]:
    """What variables are during the pass: those that it may change, in their dtype."""
    # PyTorch would keep a graph, of all of them, for gradients that nobody asks for.
    is_torch = keras.backend.backend() == "torch"
    changing = {id(variable) for k in kernels for variable in (k.variable, k.bias)}
    for variable in model.variables:
        if id(variable) in starts:
            yield variable, starts[id(variable)]
        elif is_torch or id(variable) in changing:
            yield variable, as_tensor(variable)
