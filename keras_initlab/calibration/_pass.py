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
from .._keras.running import Bias, Listener, Product, bias_of
from .._weights.constraining import Constraints, constrained
from ._allowing import allowed_part, in_part
from ._check import sample
from ._report import CalibratedKernel
from ._scaling import (
    OutOfSightError,
    Scaling,
    Wanted,
    centered,
    mean_square,
    scaling,
)

_LARGE = 100.0  # weights times less stay within every dtype


class Pass(Listener):
    """Scales kernels as their outputs come by, within a scope of its own.

    The variables keep their values: what they shall become is in the scope, from where
    the model reads it while it runs.

    Attributes:
        rows: what became of each kernel, by the variable's id.
        samples: some of what each that was scaled computes, if that is to be checked.
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        reasons: Mapping[int, str],
        wanted: Callable[[Kernel], Wanted],
        scope: keras.StatelessScope,
        constraints: Constraints,
        obeying: Mapping[int, Any],
        is_to_check: bool = False,
        read: dict[int, list[float]] | None = None,
    ):
        super().__init__(kernels)
        self.rows: dict[int, CalibratedKernel] = {}
        self._read = read
        is_look = read is not None
        self._looked_at = {id(k.variable): k for k in kernels} if is_look else {}
        self.samples: dict[int, np.ndarray] = {}
        self._is_to_check = is_to_check
        self._wanted = wanted
        self._scope = scope
        self._constraints = constraints
        found = {id(kernel.variable): kernel.variable for kernel in kernels}
        self._changed: dict[int, Any] = {key: found[key] for key in obeying}
        for key, reason in reasons.items():
            self._close(key, Scaling(note=reason))

    def on_product(self, product: Product) -> Any:
        """What a kernel computes, scaled, when it first does; or as it is."""
        kernel = product.kernel
        try:
            if self.is_in_loop:
                raise OutOfSightError
            if self._read is not None and product.read is not None:
                read = self._read.setdefault(id(kernel.variable), [])
                read.append(mean_square(product.read))
            if id(kernel.variable) not in self._open:
                return product.output
            return self._fit(product)
        except OutOfSightError:
            note = "it runs inside a loop or traced function"
            if id(kernel.variable) in self._open:
                self._close(id(kernel.variable), Scaling(note=note))
        except FloatingPointError:
            raise ValueError(_not_finite(kernel)) from None
        return product.output

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Has what is computed in the block change nothing but kernels."""
        before, rewind = dict(self._scope.state_mapping), rewinding()
        yield
        kept = {key: self.value(one) for key, one in self._changed.items()}
        self._scope.state_mapping.clear()
        self._scope.state_mapping.update({**before, **kept})
        rewind()

    def on_recurrent(self, layer: Any, name: str) -> None:
        """Has a kernel written with the values that the pass began with."""
        variable = variable_of(layer, name)
        if id(variable) in self._open:
            self._changed[id(variable)] = variable
            self._close(id(variable), Scaling(note="orthogonal for each gate"))

    def value(self, variable: Any) -> Any:
        """What the model runs with in a variable's place, in the variable's dtype."""
        return self._scope.get_current_value(variable)

    def kernel_of(self, operand: Any) -> Kernel | None:
        """The kernel whose variable is an operand; all that is only looked at."""
        return self._looked_at.get(id(operand)) or super().kernel_of(operand)

    def kernel_with(self, operand: Any) -> Kernel | None:
        """The kernel, still to be calibrated, whose very value is an operand."""
        waiting = (self._looked_at or self._open).values()
        return next((k for k in waiting if self.value(k.variable) is operand), None)

    def finish(self) -> None:
        """Leaves the kernels that are still to be calibrated."""
        for key in list(self._open):
            self._close(key, Scaling(note="no product with it was heard"))

    def changed(self) -> list[tuple[Any, Any]]:
        """Returns the variables to be written, with their values."""
        values = [(one, self.value(one)) for one in self._changed.values()]
        if not any(map(self._constraints.normalizer, self._changed.values())):
            return values
        on_host = [(one, to_numpy(value)) for one, value in values]
        return list(self._constraints.with_states(on_host))

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

    def _fit(self, product: Product) -> Any:
        kernel, output = product.kernel, product.output
        dtype = keras.backend.standardize_dtype(output.dtype)
        wide = dtype if dtype == "float64" else "float32"
        wanted = self._wanted(kernel)
        bias = bias_of(product, self.value, product.meets_bias)
        wanted = replace(wanted, center=wanted.center and bias.is_trainable)
        values = _as_type(output, wide)
        found = self._scale(product, values, bias, wanted)
        if found.factors is None:
            return output
        values = values * _multiplier(found.factors, wide)
        if wanted.center:
            self._center(values, bias)
        values = _as_type(values, dtype)
        if self._is_to_check:
            self.samples[id(kernel.variable)] = sample(values)
        return values

    def _scale(
        self, product: Product, values: Any, bias: Bias, wanted: Wanted
    ) -> Scaling:
        """Scales a kernel, if its product allows it; returns how."""
        counts = (wanted.center or not bias.is_zero) and not wanted.is_alone
        kernel, channels = product.kernel, product.channels
        if wanted.scales_bias and not bias.is_zero:
            dtype = keras.backend.standardize_dtype(values.dtype)
            values = values + ops.convert_to_tensor(bias.values, dtype)
        found = scaling(values, bias.values if counts else None, channels, wanted)
        if found.factors is not None and _is_near(found, wanted):
            found = replace(found, after=found.before, factors=None)
        if found.factors is not None and self._constraints.names(kernel.variable):
            start = to_numpy(self.value(kernel.variable))
            added = bias.values if counts else 0.0
            part = allowed_part(found, start, kernel, channels, self._constraints)
            if part < 1:
                names = self._constraints.names(kernel.variable)
                found = in_part(found, part, values, added, channels, wanted, names)
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

    def _center(self, product: Any, bias: Bias) -> None:
        """Has the bias, which is added next, take away the means of a product."""
        means = centered(product, bias.values)
        self._set(bias.variable, bias.minus(self.value(bias.variable), means))

    def _set(self, variable: Any, value: Any) -> None:
        self._changed[id(variable)] = variable
        if variable.constraint is not None:
            on_host = to_numpy(value)
            left = constrained(variable, on_host)
            value = value if left is on_host else ops.convert_to_tensor(left)
        self._scope.add_update((variable, value))


def _is_near(found: Scaling, wanted: Wanted) -> bool:
    """Whether an output is as near to what is wanted as is asked for."""
    before = found.before or 0.0
    return wanted.std / wanted.spare < before < wanted.std * wanted.spare


def _as_type(tensor: Any, dtype: str) -> Any:
    """The tensor in a dtype; to ask first is quicker than to cast."""
    is_so = keras.backend.standardize_dtype(tensor.dtype) == dtype
    return tensor if is_so else ops.cast(tensor, dtype)


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
