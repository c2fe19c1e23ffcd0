"""The state of one pass that calibrates: values so far, and a row for each kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from .._core.arrays import to_numpy
from .._core.errors import message
from .._core.random import rewinding
from .._keras.kinds import Kernel, variable_of
from ._bias import Bias, bias_of
from ._channels import channels_of
from ._folding import Folding
from ._listener import Listener
from ._report import CalibratedKernel
from ._scaling import OutOfSightError, Scaling, Wanted, centered, scaling

_LARGE = 100.0  # weights times less stay within every dtype


class Pass(Listener):
    """Scales kernels as their outputs come by, within a scope of its own.

    The variables keep their values: what they shall become is in the scope, from where
    the model reads it while it runs.

    Attributes:
        rows: what became of each kernel, by the variable's id.
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        reasons: Mapping[int, str],
        wanted: Callable[[Kernel], Wanted],
        scope: keras.StatelessScope,
        folding: Folding | None = None,
    ):
        super().__init__(kernels)
        self.rows: dict[int, CalibratedKernel] = {}
        self._wanted = {id(kernel.variable): wanted(kernel) for kernel in kernels}
        self._scope = scope
        self._folding = folding
        self._changed: dict[int, Any] = {}
        for key, reason in reasons.items():
            self._close(key, Scaling(note=reason))

    def fitted(self, layer: Any, name: str, output: Any, has_bias: bool = True) -> Any:
        """What a layer's kernel computes, scaled, when it first does; or as it is."""
        key = id(variable_of(layer, name))
        if key not in self._open:
            return output
        kernel = self._open[key]._replace(layer=layer, name=name)
        try:
            if self._loops:
                raise OutOfSightError
            return self._fit(kernel, output, has_bias)
        except OutOfSightError:
            self._close(key, Scaling(note="it runs inside a loop or traced function"))
        except FloatingPointError:
            raise ValueError(_not_finite(kernel)) from None
        return output

    def refitted(
        self, layer: Any, name: str, hear: Callable[[], tuple[Any, Any]]
    ) -> Any:
        """What a layer returns when it runs with the scaled kernel.

        It runs twice, the second time from the same state. What it then computes must
        be what scaling meant it to be; else its kernel is left as it was.
        """
        before = self._state()
        output, value = hear()
        if value is None:
            self.leave(layer, name, "its own `call` does not let its signal be heard")
        if value is None or not self.is_open(layer, name):
            return output
        after, changed = self._state(), dict(self._changed)
        meant = self.fitted(layer, name, value)
        if meant is value:
            return output
        self._go_back(*before)
        again, found = hear()
        if _is_near(found, meant):
            return again
        self._changed = changed
        self._go_back(*after)
        key = id(variable_of(layer, name))
        row, note = self.rows[key], "its own `call` does not compute in proportion"
        self.rows[key] = replace(
            row, std_after=row.std_before, is_changed=False, note=note
        )
        return output

    def leave(self, layer: Any, name: str, note: str) -> None:
        """Leaves a kernel as it is."""
        if self.is_open(layer, name):
            self._close(id(variable_of(layer, name)), Scaling(note=note))

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Has what is computed in the block change nothing but kernels."""
        before = self._state()
        yield
        self._go_back(*before)

    def _state(self) -> tuple[dict[int, Any], Callable[[], None]]:
        """The variables' values, and what rewinds random generators."""
        return dict(self._scope.state_mapping), rewinding()

    def _go_back(self, values: dict[int, Any], rewind: Callable[[], None]) -> None:
        """Goes back to an earlier state, but for what is scaled."""
        kept = {key: self.value(one) for key, one in self._changed.items()}
        self._scope.state_mapping.clear()
        self._scope.state_mapping.update({**values, **kept})
        rewind()

    def keep(self, layer: Any, name: str, note: str) -> None:
        """Has a kernel written with the values that the pass began with."""
        variable = variable_of(layer, name)
        if id(variable) in self._open:
            self._changed[id(variable)] = variable
            self._close(id(variable), Scaling(note=note))

    def value(self, variable: Any) -> Any:
        return self._scope.get_current_value(variable)

    def finish(self) -> None:
        """Leaves the kernels that are still to be calibrated."""
        for key in list(self._open):
            self._close(key, Scaling(note="the pass did not reach it"))

    def changed(self) -> list[tuple[Any, Any]]:
        """Returns the variables to be written, with their values."""
        return [(one, self.value(one)) for one in self._changed.values()]

    def _close(self, key: int, found: Scaling) -> None:
        kernel = self._open.pop(key)
        self.rows[key] = CalibratedKernel(
            path=kernel.variable.path,
            shape=kernel.shape,
            std_before=found.before,
            std_after=found.after,
            is_changed=key in self._changed,
            note=found.note,
        )

    def _fit(self, kernel: Kernel, output: Any, has_bias: bool) -> Any:
        dtype = keras.backend.standardize_dtype(output.dtype)
        wide = dtype if dtype == "float64" else "float32"
        wanted = self._wanted[id(kernel.variable)]
        is_beside = has_bias and not wanted.scales_bias
        bias = bias_of(kernel, self.value, len(output.shape), is_beside)
        wanted = replace(wanted, center=wanted.center and bias.is_trainable)
        offset = None if bias.is_zero else ops.convert_to_tensor(bias.values, wide)
        product = _as_type(output, wide)
        if offset is not None:
            product = ops.subtract(product, offset)
        found = self._scale(kernel, product, bias, wanted)
        if found.factors is None:
            return output
        if product is output and self._is_folded(kernel, found.factors, wanted):
            return output
        product = product * _multiplier(found.factors, wide)
        if wanted.center:
            product = self._center(product, bias)
        if offset is not None:
            product = ops.add(product, offset)
        return _as_type(product, dtype)

    def _is_folded(self, kernel: Kernel, factors: np.ndarray, wanted: Wanted) -> bool:
        if self._folding is None or wanted.center or kernel.name == "depthwise_kernel":
            return False
        return self._folding.takes(kernel.layer, factors)

    def _scale(
        self, kernel: Kernel, product: Any, bias: Bias, wanted: Wanted
    ) -> Scaling:
        """Scales a kernel, if its product allows it; returns how."""
        counts = (wanted.center or not bias.is_zero) and not wanted.is_alone
        channels = channels_of(kernel)
        found = scaling(product, bias.values if counts else None, channels, wanted)
        if found.factors is not None:
            factors = channels.on_kernel(found.factors, kernel.shape)
            self._multiply(kernel, kernel.variable, factors)
            if wanted.scales_bias and bias.variable is not None:
                self._multiply(kernel, bias.variable, found.factors)
        self._close(id(kernel.variable), found)
        return found

    def _multiply(self, kernel: Kernel, variable: Any, factors: np.ndarray) -> None:
        value = self.value(variable)
        # Not `variable.dtype`: that is the layer's compute dtype while the layer runs.
        dtype = keras.backend.standardize_dtype(value.dtype)
        wide = "float64" if dtype == "float64" else "float32"
        value = _as_type(value, wide)
        scaled = value * _multiplier(factors, wide)
        low, high = float(factors.min()), float(factors.max())
        is_usual = 1 / _LARGE < low <= high < _LARGE
        if not is_usual and _has_left(value, scaled, kernel.layer.compute_dtype):
            raise ValueError(_out_of_range(kernel, low, high))
        self._set(variable, _as_type(scaled, dtype))

    def _center(self, product: Any, bias: Bias) -> Any:
        means = centered(product, bias.values)
        self._set(bias.variable, bias.minus(self.value(bias.variable), means))
        return ops.subtract(product, means)

    def _set(self, variable: Any, value: Any) -> None:
        self._changed[id(variable)] = variable
        self._scope.add_update((variable, value))


def _as_type(tensor: Any, dtype: str) -> Any:
    """The tensor in a dtype; to ask first is quicker than to cast."""
    is_so = keras.backend.standardize_dtype(tensor.dtype) == dtype
    return tensor if is_so else ops.cast(tensor, dtype)


def _is_near(found: Any, meant: Any) -> bool:
    """Whether two tensors are the same, as far as rounding goes."""
    if found is None or tuple(found.shape) != tuple(meant.shape):
        return False
    dtype = keras.backend.standardize_dtype(meant.dtype)
    one, other = (to_numpy(ops.cast(tensor, "float32")) for tensor in (found, meant))
    difference = np.linalg.norm((one - other).ravel())
    return bool(difference <= _ROUNDING.get(dtype, 1e-3) * np.linalg.norm(other))


# Of weights, inputs and products, relative to what is computed.
_ROUNDING = {"float16": 2.0**-7, "bfloat16": 2.0**-4}


def _multiplier(factors: np.ndarray, dtype: str) -> Any:
    """Factors as the quickest that multiplies a tensor of this dtype."""
    return (
        factors.item() if factors.size == 1 else ops.convert_to_tensor(factors, dtype)
    )


def _has_left(value: Any, scaled: Any, dtype: str) -> bool:
    """Whether multiplied values have left the range of a dtype, at either end."""
    before, after = (
        float(to_numpy(ops.max(ops.abs(_as_type(one, dtype)))))
        for one in (value, scaled)
    )
    return not np.isfinite(after) or (before > 0 and after == 0)


def _out_of_range(kernel: Kernel, low: float, high: float) -> str:
    factors = f"{high:.1g}" if low == high else f"{low:.1g} to {high:.1g}"
    return message(
        f"Layer {kernel.layer.path!r} ({type(kernel.layer).__name__}, kernel "
        f"{kernel.shape}): calibrated weights must fit {kernel.layer.compute_dtype}.",
        f"inputs for which they are multiplied by {factors}",
        "Scale the data.",
    )


def _not_finite(kernel: Kernel) -> str:
    return message(
        f"Layer {kernel.layer.path!r} ({type(kernel.layer).__name__}, kernel "
        f"{kernel.shape}): what it computes must be finite.",
        "NaN or Inf",
        "Look at the weights before it, and at the range of its dtype.",
    )
