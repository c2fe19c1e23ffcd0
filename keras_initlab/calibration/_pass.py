"""The state of one pass that calibrates: values so far, and a row for each kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from .._errors import message
from .._fans import Kernel, variable_of
from ._bias import Bias, bias_of
from ._channels import channels_of
from ._folding import Folding
from ._listener import Listener
from ._report import CalibratedKernel
from ._scaling import OutOfSightError, Scaling, Wanted, centered, scaling


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
            self._multiply(kernel.variable, factors)
            if wanted.scales_bias and bias.variable is not None:
                self._multiply(bias.variable, found.factors)
        self._close(id(kernel.variable), found)
        return found

    def _multiply(self, variable: Any, factors: np.ndarray) -> None:
        wide = "float64" if variable.dtype == "float64" else "float32"
        value = _as_type(self.value(variable), wide)
        scaled = value * _multiplier(factors, wide)
        self._set(variable, _as_type(scaled, variable.dtype))

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


def _multiplier(factors: np.ndarray, dtype: str) -> Any:
    """Factors as the quickest that multiplies a tensor of this dtype."""
    return (
        factors.item() if factors.size == 1 else ops.convert_to_tensor(factors, dtype)
    )


def _not_finite(kernel: Kernel) -> str:
    return message(
        f"Layer {kernel.layer.path!r} ({type(kernel.layer).__name__}, kernel "
        f"{kernel.shape}): what it computes must be finite.",
        "NaN or Inf",
        "Look at the weights before it, and at the range of its dtype.",
    )
