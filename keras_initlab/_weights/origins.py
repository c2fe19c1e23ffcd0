"""What drew the values that a variable holds, as far as that can be known.

What this package writes is noted beside a fingerprint of the values, outside of model
and layer: nothing of it is saved, copied or kept alive. A note counts while the
variable holds exactly these values, so that training, loading and assignment void it,
and undoing brings the note of the former values back. Where there is no note, the
layer's own initializer is asked to draw once more: one that keeps its seed repeats what
it has drawn, and nothing else.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .._core.arrays import as_numpy, to_numpy
from .._keras.kinds import Kernel, kind_of, placed, standing
from .drawing import handed_axes

# Undo goes back by one; a sweep over seeds may leave many.
_MOST_NOTES = 8
_SAMPLE = 2**14  # values that are hashed one by one
_ROUNDING = 1e-6  # between a compiled draw and an eager one


@dataclass(frozen=True)
class Origin:
    """Where a variable's values come from.

    Attributes:
        initializer: what drew them; None for a draw that was then scaled by what a
            calibration measured, of which no formula is known.
        is_recommended: whether this package chose initializer or scale, and not the
            layer's own initializer.
    """

    initializer: Any
    is_recommended: bool


_notes: dict[int, tuple[weakref.ref[Any], dict[bytes, Origin]]] = {}


def note(
    variables: Iterable[Any], initializers: Mapping[int, Any], is_recommended: bool
) -> None:
    """Notes what drew the values that variables hold now.

    Args:
        variables: they have just been written.
        initializers: what drew them, by the variable's id.
        is_recommended: whether this package chose initializer or scale.
    """
    for variable in variables:
        known = _notes_of(variable)
        values = fingerprint(as_numpy(variable))
        known.pop(values, None)  # the newest come last
        known[values] = Origin(initializers.get(id(variable)), is_recommended)
        while len(known) > _MOST_NOTES:
            del known[next(iter(known))]


def noted(variable: Any) -> Origin | None:
    """The note for the values that a variable holds, None if there is none."""
    reference, known = _notes.get(id(variable), (None, {}))
    if reference is None or reference() is not variable:
        return None
    return known.get(fingerprint(as_numpy(variable)))


def drawn_by(root: Any, kernel: Kernel, own: Any) -> Any:
    """What drew the values that a kernel holds, None where that cannot be known.

    Args:
        root: the model or layer that was asked about.
        kernel: the kernel.
        own: the initializer that its layer keeps for it, or None.
    """
    origin = noted(kernel.variable)
    if origin is not None:
        return origin.initializer
    return own if _repeats(root, kernel, own) else None


def _is_repeatable(initializer: Any) -> bool:
    """Whether an initializer draws the same again and leaves no trace of it."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return False
    if "seed" in initializer.get_config():
        return isinstance(getattr(initializer, "seed", None), int)
    return type(initializer).__module__.partition(".")[0] in ("keras", "keras_initlab")


def is_rebuilt(layer: Any, initializer: Any) -> bool:
    """Whether a layer draws by a copy of its initializer that kept another seed."""
    config = initializer.get_config()
    return (
        kind_of(layer).hands_axes
        and "input_axes" in config
        and not isinstance(config["seed"], int)
    )


def fingerprint(values: np.ndarray) -> bytes:
    """What tells values from others: a parity of all, a digest of some of them."""
    flat = np.ascontiguousarray(values).reshape(-1)
    words = flat.view("uint8")
    whole = words[: words.size // 8 * 8].view("uint64")
    parity = int(np.bitwise_xor.reduce(whole)) if whole.size else 0
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{values.dtype} {values.shape} {parity}".encode())
    digest.update(words[whole.size * 8 :].tobytes())
    digest.update(flat[:: -(-flat.size // _SAMPLE) or 1].tobytes())
    return digest.digest()


def _notes_of(variable: Any) -> dict[bytes, Origin]:
    key = id(variable)  # a variable has no hash
    reference, known = _notes.get(key, (None, {}))
    if reference is None or reference() is not variable:
        known = {}
        _notes[key] = weakref.ref(variable, lambda gone: _forget(key, gone)), known
    return known


def _forget(key: int, gone: Any) -> None:
    if key in _notes and _notes[key][0] is gone:  # else the id is another one's now
        del _notes[key]


def _repeats(root: Any, kernel: Kernel, own: Any) -> bool:
    variable = kernel.variable
    if not _is_repeatable(own) or is_rebuilt(kernel.layer, own):
        return False
    if tuple(variable.shape) != kernel.shape:
        return False  # packed
    try:
        again = _drawn_again(root, kernel, own)
    except Exception:  # whatever a custom initializer may raise
        return False
    values, again = (one.astype("float64") for one in (as_numpy(variable), again))
    if values.shape != again.shape:
        return False
    size = np.max(np.abs(again), initial=0.0)
    return bool(np.allclose(values, again, rtol=0, atol=_ROUNDING * size))


def _drawn_again(root: Any, kernel: Kernel, own: Any) -> np.ndarray:
    config = own.get_config()
    axes = handed_axes(kernel.layer, kernel.axes, len(kernel.shape), config)
    initializer = type(own).from_config({**config, **axes}) if axes else own
    if not _is_ours(own):
        return to_numpy(initializer(kernel.shape, dtype=kernel.variable.dtype))
    with placed(standing(root, kernel)):  # its seed depends on the place
        return to_numpy(initializer(kernel.shape, dtype=kernel.variable.dtype))


def _is_ours(initializer: Any) -> bool:
    kinds = type(initializer).__mro__
    return any(kind.__module__.startswith("keras_initlab.") for kind in kinds)
