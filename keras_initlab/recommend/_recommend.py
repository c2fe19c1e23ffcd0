"""The recommender's front door."""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from .._core.errors import check_choice, check_positive, message
from .._keras.batch import Batch, gives_batches, read_batch
from .._keras.private import all_layers
from .._keras.unchanged import unchanged
from .._weights.constraining import Constraints
from ..inspection import Inspection, inspect, is_custom
from ._apply import drawn
from ._calibrated import measured_choices, thinned
from ._chain import chain_widths
from ._choice import Choice
from ._inputs import InputScale, input_scale
from ._measured import measure
from ._outputs import meant_outputs
from ._priors import log_priors, with_offsets
from ._recommendation import Recommendation
from ._row import make_row
from ._rules import recommend_widths, rules_choices
from ._signal import SignalPolicy, signal_choices
from ._synthetic import synthetic_inputs
from ._targets import Targets

_NEAR = 0.1  # as near to what is meant as a constraint leaves it without a word
_SEED = 0  # of the weights on which a model is run to measure
_POLICIES = ("calibrated", "rules", "signal")
_ADVICE = {
    "narrow_bottleneck": "A hidden layer of fewer than 10 units passes at most as many "
    "directions of the signal on: widen it unless that is its purpose.",
    "very_deep": "{depth} plain layers of up to {width} units: with Adam keep the "
    "learning rate at or below {rate:.0e}, at which one step changes the whole network "
    "by no more than itself. Two to four times that stopped training where it was "
    "measured.",
    "irregular_width": "Widths change by more than 10 times between hidden layers: the "
    "scales here follow, but the narrow side decides what gets through.",
}


def recommend(
    model: keras.Model,
    policy: str = "signal",
    input_std: float = 1.0,
    data: Any = None,
    class_priors: Any = None,
) -> Recommendation:
    """Returns which initializer each kernel of a model should have, and why.

    The model is only looked at. With `policy="signal"` every kernel gets the scale at
    which the signal that really reaches it (through its true fans, the activation or
    normalization before it, sums and residual branches) keeps its variance. Stretches
    of more than three plain hidden layers get kernels that keep the geometry too, so
    that they train at depths where a random kernel of any scale fails: mirrored pairs
    where φ(z) − φ(−z) is (nearly) linear, as for ReLU, GELU, SiLU and ELU; orthogonal
    kernels at the linear point for tanh and softsign; orthogonal kernels with a bias
    that takes the mean out for sigmoid. Where few kernels are in a row between
    normalizations, and the initializer that a layer has gives a std near to what is
    meant, it is kept, and drawn anew with the others. With `policy="rules"` the table
    of `recommend_widths` decides for all kernels alike.

    Args:
        model: a built model. Nested models, shared layers and what custom layers and
            subclassed models call inside are followed.
        policy: `"signal"`, `"rules"`, or `"calibrated"`: the signal policy's choices,
            which `apply` then scales by what it measures on `data`, in one forward
            pass. For models that theory only estimates: pooling, products, unknown
            layers, data that is not standardized.
        input_std: root mean square of the model's inputs, positive, as the first
            kernels read them: behind layers such as `Rescaling`. 1 for standardized
            data. The table of the policy `"rules"` does not ask for it.
        data: inputs to measure `input_std` on instead, each input's own: an array
            `(examples, ...)`; for several inputs a list or tuple of arrays, or a dict
            by name; a tuple `(inputs, targets)` or `(inputs, targets, weights)` as for
            `fit`; or a data set, as `tf.data.Dataset`, `PyDataset` or `DataLoader`, of
            which the first batch does. For a model of two inputs, two arrays are these.
            Inputs that only embeddings read are no signal. Targets tell what outputs
            start at: the bias at the logarithm of the classes' shares, where these
            differ by more than chance, or at the mean of values (the median for
            absolute errors), whose kernel starts at a share of their spread. Those that
            fit no output, or are no finite numbers, tell nothing; nor do the classes in
            the first batch of a data set, if some are missing there. Where theory does
            not know what kernels read, the model runs once on them to measure it;
            without data it runs on inputs made to what it takes, which tell nothing of
            kernels behind preprocessing and frozen ones. For a run, of arrays of more
            than 256 examples as many are taken, evenly spread. The policy
            `"calibrated"` needs it; for `"rules"` only its shapes count.
        class_priors: the share of each class, at which the output's bias starts,
            whatever targets in `data` tell:
            probabilities that sum to 1 for a softmax, one per unit for sigmoids; a
            dict by output name if several outputs give probabilities. What an output
            gives is read from its activation, or from the loss of `model.compile`.

    Returns:
        A `Recommendation`: print it, iterate over its rows, `apply` it.

    Raises:
        TypeError: if `data` holds anything else than arrays of numbers.
        UnbuiltModelError: if the model has no weights yet.
        UnsupportedModelError: if it is no model, or its `call` cannot be traced.
        NoKernelsError: if no layer has a kernel.
        ValueError: for an argument out of range, `input_std` beside `data`, data that
            is missing, empty, not finite or not of the model's shapes, another number
            of targets than of examples, or class priors
            that fit no output.

    Example:
        >>> model = keras.Sequential(
        ...     [keras.Input((64,))]
        ...     + [keras.layers.Dense(128, "relu") for _ in range(50)]
        ...     + [keras.layers.Dense(10)]
        ... )
        >>> advice = recommend(model)
        >>> advice[1].initializer.mirror_inputs
        True
        >>> len(advice.apply(seed=0).changed)
        102

    References:
        The reference of each row. The constructions for plain stretches follow
        Balduzzi et al. 2017, 1702.08591 (mirrored pairs) and Pennington et al. 2017,
        1711.04735 (orthogonal kernels at the linear point).
    """
    with unchanged(model):
        return _recommend(model, policy, input_std, data, class_priors)


def _recommend(
    model: keras.Model, policy: str, input_std: float, data: Any, class_priors: Any
) -> Recommendation:
    check_choice("policy", policy, _POLICIES)
    input_std = check_positive("input_std", input_std, usual=1.0)
    if data is not None and input_std != 1:
        raise ValueError(
            message(
                "`input_std` must be left out where `data` is measured instead.",
                f"input_std={input_std:g} beside data of type {type(data).__name__}",
                "Leave out one of them.",
            )
        )
    if policy == "calibrated" and data is None:
        raise ValueError(
            message(
                "The policy 'calibrated' must have `data` to measure on.",
                "data=None",
                "Pass a batch of inputs, or use the policy 'signal'.",
            )
        )
    batch = None if data is None else read_batch(model, data, "data")
    inspection = inspect(model, batch and batch.x)
    outputs = meant_outputs(model, inspection)
    offsets = log_priors(model, inspection, outputs, class_priors)
    if batch is not None and batch.y is not None:
        told = Targets(model, inspection, outputs, batch, gives_batches(data))
        outputs, offsets = told.outputs, {**told.offsets, **offsets}
    if policy == "rules":
        choices, record = rules_choices(inspection)
        issues, advice = record.issues, record.advice
    else:
        scale = InputScale(input_std)
        if batch is not None:
            scale = input_scale(inspection, batch.x)
        run = functools.partial(_run, model, inspection, batch, input_std)
        has_data = batch is not None
        choices = signal_choices(
            inspection, scale, outputs, run, has_data, Constraints(model)
        )
        issues = _issues(inspection)
        advice = _advice(issues, inspection)
    choices = with_offsets(choices, offsets, outputs)
    inputs = None
    if policy == "calibrated" and batch is not None:
        inputs = thinned(batch)
        choices = measured_choices(model, inspection, choices)
    return Recommendation(
        model,
        inspection,
        choices,
        policy,
        issues,
        advice,
        inputs,
        None if batch is None else thinned(batch),
        input_std,
    )


def _run(
    model: Any,
    inspection: Inspection,
    batch: Batch | None,
    input_std: float,
    policy: SignalPolicy,
    choices: Sequence[Choice],
) -> bool:
    """Measures what theory is not sure of; whether the model has run."""
    is_sure = all(policy.is_sure(kernel) for kernel in inspection.kernels)
    is_custom_inside = any(map(is_custom, all_layers(model)))
    if is_sure and not is_custom_inside:
        return False
    rows = [
        make_row(kernel, choice)
        for kernel, choice in zip(inspection.kernels, choices, strict=True)
        if choice.initializer is not None
    ]
    obeyed = policy.constraints
    starts: dict[int, Any] = {}
    bound = [row.kernel.position for row in rows if obeyed.names(row.kernel.variable)]
    found = [policy.expected(row.kernel) for row in rows]
    # Made-up numbers that are preprocessed are not what the model will read.
    is_preprocessed = any(one.needs_data and not one.is_sure for one in found)
    is_doubted = batch is not None or (is_custom_inside and not is_preprocessed)
    for row in rows:
        for variable, values in drawn(row, _SEED, obeyed, {}, is_look=True):
            # The values as numbers of NumPy's would be as many bytes again.
            starts[id(variable)] = keras.ops.convert_to_tensor(values)
            position = row.kernel.position
            is_table = row.role == "embedding" and variable is row.kernel.variable
            if not is_table or position not in bound:
                continue
            std = float(np.std(values))
            if not math.isclose(std, choices[position].std, rel_tol=_NEAR):
                policy.measured.left[position] = std
    given = starts, policy.expected, policy.measured, bound, is_doubted
    if batch is not None:
        measure(model, inspection, thinned(batch), *given)
        return True
    for inputs in synthetic_inputs(model, inspection, input_std):
        # Whatever a model may raise or warn of on numbers that nobody gave.
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure(model, inspection, inputs, *given)
            return True
    return False


def _advice(issues: Sequence[str], inspection: Inspection) -> list[str]:
    hidden = chain_widths(inspection)[1:-1] or [1]
    depth, width = len(hidden), max(hidden)
    # A step of Adam changes every entry by about its rate η, an orthogonal kernel by
    # 2η√width of its norm 1, and so the product of all by 2·depth·η√width.
    rate = 1 / (2 * depth * math.sqrt(width))
    return [
        _ADVICE[issue].format(depth=depth, width=width, rate=rate) for issue in issues
    ]


def _issues(inspection: Inspection) -> tuple[str, ...]:
    """The rule table's issues, as far as they are ones for this policy."""
    widths = chain_widths(inspection)
    issues = recommend_widths(widths).issues
    has_help = any(k.normalization or k.branches for k in inspection.kernels)
    inner = widths[1:-1]  # channels in and classes out say nothing about the trunk
    is_irregular = len(inner) > 1 and (
        "irregular_width" in recommend_widths(inner).issues
    )
    keeps = {
        "wide_layers": False,  # every scale follows the fans
        "narrow_bottleneck": True,
        "very_deep": not has_help,
        "irregular_width": is_irregular,
    }
    return tuple(issue for issue in issues if keeps[issue])
