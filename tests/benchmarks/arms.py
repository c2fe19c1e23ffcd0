"""Where a network can start from: Keras's default, the textbook, rivals, and ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import published
from networks import DEFAULT, Network

import keras_initlab as initlab

CALIBRATED_ON = 100  # examples


def default(network: Network, data: Any, seed: int) -> keras.Model:
    """Keras's own initializers."""
    return network.build(DEFAULT)


def textbook(network: Network, data: Any, seed: int) -> keras.Model:
    """He, Glorot or LeCun by the activation, on all hidden kernels."""
    return network.build(network.textbook)


def calibrated(network: Network, data: Any, seed: int) -> keras.Model:
    """Keras's initializers, scaled layer by layer to unit variance (LSUV)."""
    model = network.build(DEFAULT)
    (x, _), _ = data
    initlab.calibrate(
        model, keras.tree.map_structure(lambda part: part[:CALIBRATED_ON], x)
    )
    return model


def ours(network: Network, data: Any, seed: int) -> keras.Model:
    """What is recommended for the compiled model."""
    model = network.build(DEFAULT)
    model.compile("adam", network.loss())  # outputs start by their loss
    initlab.recommend(model).apply(seed=seed)
    return model


def zero(network: Network, data: Any, seed: int) -> keras.Model:
    """ZerO: identities and parts of Hadamard matrices (2110.12661)."""
    model = network.build(DEFAULT)
    published.zero(model)
    return model


def fixup(network: Network, data: Any, seed: int) -> keras.Model:
    """Fixup, without its additional scalars (1901.09321)."""
    model = network.build(DEFAULT)
    published.fixup(model, seed)
    return model


def gradinit(network: Network, data: Any, seed: int) -> keras.Model:
    """GradInit, from Keras's initializers and on the data to train on (2102.08098)."""
    model = network.build(DEFAULT)
    published.gradinit(model, network, data, seed)
    return model


ARMS: dict[str, Callable[[Network, Any, int], keras.Model]] = {
    "default": default,
    "textbook": textbook,
    "calibrated": calibrated,
    "ours": ours,
    "zero": zero,
    "fixup": fixup,
    "gradinit": gradinit,
}


def weights_for(arm: str, network: Network, data: Any, seed: int) -> list[Any] | None:
    """What a user would have after building a network this way.

    None for a published start that says nothing of such a network.
    """
    keras.utils.set_random_seed(seed)
    try:
        return ARMS[arm](network, data, seed).get_weights()
    except published.NotForThisError:
        return None
