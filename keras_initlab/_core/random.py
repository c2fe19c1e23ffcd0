"""Random generators that are no variables of a model."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import numpy as np


def rewinding() -> Callable[[], None]:
    """Returns a function that brings random generators back to where they are now.

    Those of Python, NumPy and PyTorch. Keras keeps its own in variables; but on PyTorch
    its dropout draws from PyTorch's, and not from its seed's state.

    Example:
        >>> rewind = rewinding()
        >>> first = np.random.rand()
        >>> rewind()
        >>> bool(np.random.rand() == first)
        True
    """
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    # A model may draw from it on any backend.
    tensors = _of_torch() if "torch" in sys.modules else _nothing

    def rewind() -> None:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        tensors()

    return rewind


def _of_torch() -> Callable[[], None]:
    import torch  # pyright: ignore[reportMissingImports]

    state = torch.get_rng_state()
    # To ask for a device's state would make ready a device that nobody uses.
    is_used = torch.cuda.is_initialized()
    devices = torch.cuda.get_rng_state_all() if is_used else []

    def rewind() -> None:
        torch.set_rng_state(state)
        torch.cuda.set_rng_state_all(devices)

    return rewind


def _nothing() -> None:
    return None
