"""How initializers are written in tables and reasons."""

from __future__ import annotations

import inspect
import re
from typing import Any


def initializer_label(initializer: Any) -> str:
    """Returns an initializer as one would write it, defaults and axes left out."""
    if initializer is None:
        return "kept"
    name = type(initializer).__name__
    if re.fullmatch("(Glorot|He|Lecun)(Normal|Uniform)", name):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    parameters = inspect.signature(type(initializer)).parameters
    arguments = ", ".join(
        f"{key}={_short(value)}"
        for key, value in initializer.get_config().items()
        if key not in ("seed", "input_axes", "output_axes")
        and value != parameters[key].default
    )
    return f"{name}({arguments})"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return str(value.get("class_name", value))
    return str(value)
