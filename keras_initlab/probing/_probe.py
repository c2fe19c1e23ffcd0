"""`probe`: the signal through a model before it trains."""

from __future__ import annotations

from typing import Any

import keras

from .._core.errors import check_flag
from .._keras.batch import Batch
from .._keras.kinds import check_built
from .._keras.unchanged import unchanged
from .._weights.trained import steps_taken
from ..diagnosis import probe_findings
from ..inspection import all_built, check_parts
from ._batch import batch_of
from ._objective import SYNTHETIC, Objective, objective
from ._report import SignalReport
from ._run import Passed, run


def probe(
    model: keras.Model,
    x: Any,
    y: Any = None,
    loss: Any = None,
    *,
    sample_weight: Any = None,
    training: bool = True,
) -> SignalReport:
    """Measures the signal and its gradient in every layer, in one pass over `x`.

    The model runs once forward and once backward, eagerly, on any backend and for any
    kind of model: what `call` computes is what is measured. Of each layer with weights
    or an activation: mean, standard deviation, extremes and zeros of what it receives,
    of its pre-activations and of what it returns, units that never fire, how it keeps
    the variance, the gradient with respect to what it returns, its weights beside what
    their initializer says, and their gradients. Layers that run inside a loop or a
    compiled function (the cells of recurrent layers) are out of sight; their weights'
    gradients are not.

    Weights, metrics, moving statistics, random generators and optimizer are the same
    afterwards, whatever happens.

    With labels the loss is the compiled one, regularizers included, or `loss`. Without
    labels and loss it is synthetic: the sum of all outputs times N(0, 1) numbers, the
    same at every call. The gradient with respect to the outputs is then N(0, 1)
    itself, so the std of the gradient in a layer is the gain from there to the output,
    independent of task, labels and batch size, and can be compared between models;
    norms of the weights' gradients grow with √examples.

    Args:
        model: a built Keras model or layer.
        x: one batch of inputs `(batch, …)`, an array or a list or dict of them; a tuple
            `(inputs, labels)` or `(inputs, labels, weights)`; or data as for `fit`
            (`tf.data.Dataset`, `PyDataset`, `DataLoader`, generator), of which the
            first batch is taken, labels included. For a model of two inputs, two arrays
            are these. An array is run as a whole: 32 to 256 examples are usual.
        y: labels as for `fit`.
        loss: a Keras loss, its name or a function; a list or dict of them for several
            outputs. None for the compiled one.
        sample_weight: weights of the examples as for `fit`.
        training: the mode in which the model runs. True is what training sees: batch
            normalization by the batch, dropout on. False is what `predict` sees.

    Returns:
        A `SignalReport`: print it for a table, iterate over its layers, read
        `.diagnosis`, look at `.plot()`.

    Raises:
        TypeError: if `model` is no Keras model, or `x` holds no arrays.
        UnbuiltModelError: if the model has no weights yet.
        ValueError: for an empty batch, inputs or labels that are not finite or not of
            the model's shapes, labels without a loss, a loss or weights without labels.
            Whatever goes wrong while the model runs is passed on.

    Example:
        >>> layers = [keras.layers.Dense(64, "sigmoid") for _ in range(8)]
        >>> model = keras.Sequential([keras.Input((32,)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(128, 32)).astype("float32")
        >>> report = probe(model, x)
        >>> [one.kind for one in report.findings]
        ['vanishing signal', 'vanishing gradient']
        >>> report[0].variance_preservation == report[0].preactivation.std
        True

    References:
        Glorot and Bengio 2010, "Understanding the difficulty of training deep
        feedforward neural networks", sections 3 and 4, for figures of the signal and
        of its gradient by layer.
    """
    check_built("model", model)
    check_flag("training", training)
    with unchanged(model):
        return _probe(model, batch_of(model, x, y, sample_weight), loss, training)


def _probe(model: keras.Model, batch: Batch, loss: Any, training: bool) -> SignalReport:
    check_parts(model, batch.x)
    chosen = objective(model, batch, loss)
    with all_built(model):
        passed = _passed(model, batch, chosen, training)
    found = probe_findings(passed.layers, passed.broken, passed.loss, batch.examples)
    return SignalReport(
        model_name=model.name,
        layers=passed.layers,
        findings=found,
        loss=passed.loss,
        loss_name=chosen.name,
        is_synthetic=chosen.name == SYNTHETIC,
        training=training,
        examples=batch.examples,
        trained=steps_taken(model),
    )


def _passed(
    model: keras.Model, batch: Batch, objective: Objective, training: bool
) -> Passed:
    try:
        return run(model, batch, objective, training)
    except Exception as error:
        shapes = keras.tree.map_structure(lambda leaf: str(tuple(leaf.shape)), batch.x)
        error.add_note(
            f"This happened while `probe` ran {model.name!r} on x of shape {shapes}. "
            "The model is unchanged."
        )
        raise
