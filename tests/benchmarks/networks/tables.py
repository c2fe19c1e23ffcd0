"""Networks for tables: categories beside numbers, targets in their own units."""

from __future__ import annotations

import functools
from functools import partial

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from ._blocks import batch_norm, classes, dense
from ._network import add
from .data import parted

BINS = 6


# ---- data -----------------------------------------------------------------------


def shuffled(*arrays):
    order = np.random.default_rng(0).permutation(len(arrays[0]))
    return [array[order] for array in arrays]


def by_column(x, cut):
    """Standardized column by column, by the rows that training sees."""
    return ((x - x[:cut].mean(0)) / x[:cut].std(0)).astype("float32")


def in_bins(x, cut):
    """Columns as categories, about as many rows in each."""
    edges = np.quantile(x[:cut], np.linspace(0, 1, BINS + 1)[1:-1], axis=0)
    return (x[:, None] > edges).sum(1).astype("int32")


@functools.cache
def tumors(is_mixed=False):
    """Ten means and ten errors of cells' features, of 569 tumors, and their kind.

    Mixed: the means are in bins.
    """
    x, y = load_breast_cancer(return_X_y=True)
    x, y = shuffled(x[:, :20], y.astype("int32"))
    cut = 400
    numbers = by_column(x, cut)
    if is_mixed:
        x = {"categories": in_bins(x[:, :10], cut), "numbers": numbers[:, 10:]}
        return parted(x, y, cut)
    return parted(numbers, y, cut)


@functools.cache
def tumor_areas():
    """The largest area in a sample, 185 to 4,254, from the ten means."""
    x = load_breast_cancer().data
    x, y = shuffled(x[:, :10], x[:, [23]].astype("float32"))
    return parted(by_column(x, 400), y, 400)


@functools.cache
def progressions(is_mixed=False, is_standardized=False):
    """How a disease went on in 442 patients, 25 to 346, or standardized.

    Mixed: sex, age, body mass index and blood pressure are in bins.
    """
    x, y = shuffled(*load_diabetes(return_X_y=True))
    y, cut = y[:, None].astype("float32"), 330
    if is_standardized:
        y = by_column(y, cut)
    numbers = by_column(x, cut)
    if is_mixed:
        x = {"categories": in_bins(x[:, :4], cut), "numbers": numbers[:, 4:]}
        return parted(x, y, cut)
    return parted(numbers, y, cut)


@functools.cache
def wines():
    """Thirteen columns of 178 wines in their own units, from 0.1 to 1,680."""
    x, y = shuffled(*load_wine(return_X_y=True))
    return parted(x.astype("float32"), y.astype("int32"), 118)


# ---- networks -------------------------------------------------------------------


def hidden(x, initializer, widths, dropout=0.0, activation="relu"):
    for width in widths:
        x = dense(x, width, initializer, activation)
        x = layers.Dropout(dropout)(x) if dropout else x
    return x


def classifier(initializer, columns, count, widths=(64, 64), dropout=0.2):
    inputs = keras.Input((columns,))
    return classes(inputs, hidden(inputs, initializer, widths, dropout), count)


def normalized_inside(initializer, widths=(64, 64)):
    """Raw columns into batch normalization, and again after each layer."""
    inputs = keras.Input((13,))
    x = batch_norm(inputs)
    for width in widths:
        x = layers.ReLU()(batch_norm(dense(x, width, initializer)))
    return classes(inputs, x, 3)


def regressor(initializer, columns=10, widths=(64, 64), activation="relu"):
    inputs = keras.Input((columns,))
    x = hidden(inputs, initializer, widths, activation=activation)
    return keras.Model(inputs, layers.Dense(1, name="value")(x))


def mixed_inputs(columns, numbers):
    """Inputs, and numbers beside an embedding of each category."""
    categories = keras.Input((columns,), name="categories", dtype="int32")
    numbers = keras.Input((numbers,), name="numbers")
    found = [layers.Embedding(BINS, 4)(categories[:, i]) for i in range(columns)]
    inputs = {"categories": categories, "numbers": numbers}
    return inputs, layers.Concatenate()([*found, numbers])


def mixed_classifier(initializer):
    inputs, x = mixed_inputs(10, 10)
    return classes(inputs, hidden(x, initializer, (64, 32), 0.1), 2)


def mixed_regressor(initializer):
    inputs, x = mixed_inputs(4, 6)
    x = hidden(x, initializer, (64, 32))
    return keras.Model(inputs, layers.Dense(1, name="value")(x))


def wide_and_deep(initializer):
    """Cheng et al. 2016: a linear model beside a deep one."""
    inputs = keras.Input((20,))
    deep = hidden(inputs, initializer, (64, 32, 16))
    return classes(inputs, layers.Concatenate()([inputs, deep]), 2)


def crossed(initializer, depth=2):
    """Wang et al. 2021: columns times what all columns say of them."""
    x = inputs = keras.Input((20,))
    for _ in range(depth):
        x = layers.Add()([x, layers.Multiply()([inputs, dense(x, 20, initializer)])])
    deep = hidden(inputs, initializer, (64, 32))
    return classes(inputs, layers.Concatenate()([x, deep]), 2)


_classes = partial(add, batch=20)
_values = partial(add, batch=20, figure="explained")
_build, _family = partial(classifier, columns=20, count=2), "tabular classifier"
_classes("tumors mlp 2, dropout", _family, _build, tumors, epochs=15)
_classes("wines, batch norm inside", _family, normalized_inside, wines, epochs=8)
_family, _mixed = "category embeddings", partial(tumors, is_mixed=True)
_classes("tumors, categories", _family, mixed_classifier, _mixed, epochs=10)
_mixed = partial(progressions, is_mixed=True, is_standardized=True)
_values("diabetes, categories", _family, mixed_regressor, _mixed, epochs=10)
_classes("tumors, wide and deep", "wide and deep", wide_and_deep, tumors, epochs=10)
_classes("tumors, cross network", "cross network", crossed, tumors, epochs=10)
_family, _standard = "regression mlp", partial(progressions, is_standardized=True)
_values("diabetes mlp 2", _family, regressor, _standard, epochs=8)
_family = "regression in own units"
_values("diabetes mlp 2, own units", _family, regressor, progressions, epochs=60)
_build = partial(regressor, widths=(64, 64, 64), activation="silu")
_values("areas mlp 3, own units", _family, _build, tumor_areas, "silu", epochs=60)
