"""Orthogonal kernels between mirrored pairs of units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from .._core.errors import check_flag, check_positive, message
from .._keras.kinds import KernelAxes
from ._base import PACKAGE, LayoutInitializer
from ._matrices import (
    at_window_center,
    check_matrix,
    oriented,
    orthonormal,
    tall,
    tap_shape,
    to_kernel,
)


@keras.saving.register_keras_serializable(PACKAGE)
class MirroredOrthogonal(LayoutInitializer):
    """Orthogonal kernels between units in mirrored pairs.

    Unit i and unit i + ⌊n/2⌋ get opposite incoming weights, so they compute φ(u) and
    φ(−u), and the next kernel reads their difference. For ReLU, GELU, SiLU, hard SiLU
    and softplus that difference is exactly u (for leaky ReLU (1 + slope)·u), so a
    network of such kernels with zero biases is at initialization exactly linear and
    orthogonal, at any depth, and becomes nonlinear as it learns. The kernel is
    [[W, −W], [−W, W]] with W orthogonal. Kernels with a window hold it at the center
    tap, as `DeltaOrthogonal` does.

    W has orthonormal rows where it widens and orthonormal columns where it narrows, so
    a narrowing kernel keeps the norm of what it lets through. Of an odd number of
    units, the last stands alone: as an output it looks in a random direction, as an
    input it starts with zero weights.

    Args:
        gain: factor on the singular values of W, positive: 1 for the activations
            above, 1/(1 + slope) for leaky ReLU.
        mirror_inputs: False for the first kernel of a stretch, whose inputs are no
            pairs.
        mirror_outputs: False for the last kernel, whose outputs are no pairs.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.
        spread: whether W reads the whole window, as a strided convolution's or the
            first one's must, and not the center tap alone. The convolution is then
            orthogonal where its windows do not overlap.

    Raises:
        ValueError: if `gain` is out of range, the shape has fewer than two axes, the
            kernel has gates or groups, or there are fewer than two units on a mirrored
            side.

    Example:
        >>> kernels = [MirroredOrthogonal(1.0, i > 0, seed=1) for i in range(30)]
        >>> dense = keras.layers.Dense
        >>> hidden = [dense(16, "relu", kernel_initializer=one) for one in kernels]
        >>> model = keras.Sequential([keras.Input((8,)), *hidden])
        >>> x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
        >>> y = keras.ops.convert_to_numpy(model(x))
        >>> u = y[:, :8] - y[:, 8:]
        >>> bool(np.allclose(np.linalg.norm(u, axis=1), np.linalg.norm(x, axis=1)))
        True

    References:
        Balduzzi et al. 2017, "The shattered gradients problem: If resnets are the
        answer, then what is the question?", 1702.08591, section 4.1, for ReLU.
    """

    def __init__(
        self,
        gain: float = 1.0,
        mirror_inputs: bool = True,
        mirror_outputs: bool = True,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        spread: bool = False,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.gain = check_positive("gain", gain, usual=1.0)
        self.mirror_inputs = check_flag("mirror_inputs", mirror_inputs)
        self.mirror_outputs = check_flag("mirror_outputs", mirror_outputs)
        self.spread = check_flag("spread", spread)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        check_matrix(type(self).__name__, shape)
        _check_one_block(axes, shape)
        batch, inputs, outputs = tap_shape(shape, axes)
        _check_pairs("mirror_inputs", self.mirror_inputs, inputs, shape)
        _check_pairs("mirror_outputs", self.mirror_outputs, outputs, shape)
        rows = inputs // 2 if self.mirror_inputs else inputs
        columns = outputs // 2 if self.mirror_outputs else outputs
        taps = math.prod(shape[i] for i in axes.window) if self.spread else 1
        pair_seed, alone_seed = self._streams(2)
        normal = keras.random.normal(
            (batch, *tall(taps * rows, columns)), dtype=dtype, seed=pair_seed
        )
        matrix = self.gain * oriented(orthonormal(normal), taps * rows, columns)
        if self.mirror_outputs:
            alone = keras.random.normal(
                (batch, taps * rows, outputs % 2), dtype=dtype, seed=alone_seed
            )
            alone = alone / ops.sqrt(ops.sum(alone**2, axis=-2, keepdims=True))
            matrix = ops.concatenate([matrix, -matrix, self.gain * alone], axis=-1)
        if self.mirror_inputs:
            matrix = ops.reshape(matrix, (batch * taps, rows, outputs))
            silent = ops.zeros((batch * taps, inputs % 2, outputs), dtype)
            matrix = ops.concatenate([matrix, -matrix, silent], axis=-2)
        if self.spread:
            return to_kernel(matrix, shape, axes)
        return at_window_center(matrix, shape, axes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "gain": self.gain,
            "mirror_inputs": self.mirror_inputs,
            "mirror_outputs": self.mirror_outputs,
            "spread": self.spread,
            **super().get_config(),
        }


def _check_one_block(axes: KernelAxes, shape: tuple) -> None:
    # The two units of a pair would stand in different groups, and read other inputs.
    if axes.blocks > 1:
        raise ValueError(
            message(
                "`MirroredOrthogonal` needs a kernel without gates and groups.",
                f"shape={shape}, gates={axes.gates}, groups={axes.groups}",
                "Use `Orthogonal` or `DeltaOrthogonal`.",
            )
        )


def _check_pairs(name: str, mirrored: bool, units: int, shape: tuple) -> None:
    if mirrored and units < 2:
        raise ValueError(
            message(
                f"`{name}` needs at least two units on that side.",
                f"shape={shape}, {units} unit",
                f"Pass `{name}=False`.",
            )
        )
