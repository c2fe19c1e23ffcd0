"""What a network of the benchmark is, and the table that they are put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

DEFAULT = "glorot_uniform"
TWO_TAILS = ("tanh", "sigmoid", "softsign")
FIGURES = ("accuracy", "explained", "loss")


@dataclass(frozen=True)
class Network:
    """What is trained, on what, and for how long.

    Attributes:
        name: what it is called in tables.
        family: what a practitioner would call its kind.
        build: makes the model, not compiled, from an initializer for hidden kernels.
        data: gives inputs and targets to train on and to test, as the model takes
            them; of a network that needs text it takes the folder of sentences.
        textbook: the textbook's initializer for its activation.
        epochs: over the training examples.
        batch: examples a step.
        figure: "accuracy" of logits for sparse classes; "explained", the share of the
            targets' variance; or "loss", minus the cross-entropy in nats a token.
        needs_text: whether `data` reads the folder of sentences.
    """

    name: str
    family: str
    build: Callable[[Any], keras.Model]
    data: Callable[..., tuple]
    textbook: str
    epochs: int
    batch: int = 100
    figure: str = "accuracy"
    needs_text: bool = False

    def data_from(self, folder=None):
        """Inputs and targets to train on and to test."""
        return self.data(folder) if self.needs_text else self.data()

    def loss(self):
        """The loss that it is trained with."""
        if self.figure == "explained":
            return keras.losses.MeanSquaredError()
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


NETWORKS: dict[str, Network] = {}


def textbook(activation):
    """The initializer that textbooks name for an activation."""
    if activation == "selu":
        return "lecun_normal"
    return "glorot_normal" if activation in TWO_TAILS else "he_normal"


def add(name, family, build, data, activation="relu", epochs=10, **options):
    """Puts a network into the table.

    Raises:
        ValueError: if there is one of this name, or no such figure.
    """
    if name in NETWORKS:
        raise ValueError(f"Names must differ. Received: {name!r} twice.")
    if options.get("figure", "accuracy") not in FIGURES:
        raise ValueError(
            f"`figure` must be one of {', '.join(FIGURES)}. "
            f"Received: figure={options['figure']!r}."
        )
    known = textbook(activation)
    NETWORKS[name] = Network(name, family, build, data, known, epochs, **options)
