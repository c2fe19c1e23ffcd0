"""The adapter of the backend that runs."""

from __future__ import annotations

import importlib
from typing import Any

import keras


def adapter() -> Any:
    """The module with this backend's `Backward`."""
    module = f"._backward_{keras.backend.backend()}"
    return importlib.import_module(module, __package__)
