"""Orthogonal kernels, right for every layout of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from .._core.errors import check_count, check_flag, check_positive, message
from .._keras.kinds import KernelAxes
from ._base import PACKAGE, LayoutInitializer
from ._matrices import (
    at_window_center,
    check_blocks,
    check_matrix,
    join_columns,
    matrix_shape,
    oriented,
    orthonormal,
    tall,
    tap_shape,
    to_kernel,
)


class _OrthogonalBlocks(LayoutInitializer):
    """Base of the kernels whose gates and groups are orthogonal each."""

    def _side_by_side(
        self,
        matrix: tuple[int, int, int],
        axes: KernelAxes,
        shape: tuple[int, ...],
        dtype: str,
    ) -> Any:
        """Random orthogonal blocks, laid out as a stack `(batch, rows, columns)`."""
        batch, rows, columns = matrix
        check_blocks(shape, axes, columns)
        count, block = axes.blocks, columns // axes.blocks
        normal = self._normal((batch * count, *tall(rows, block)), dtype)
        return join_columns(oriented(orthonormal(normal), rows, block), count)


@keras.saving.register_keras_serializable(PACKAGE)
class Orthogonal(_OrthogonalBlocks):
    """Kernels whose matrix from inputs to outputs is orthogonal, times a gain.

    Every batch index, gate and group gets a matrix of its own, uniformly distributed:
    orthonormal columns where it has at least as many rows as columns, orthonormal rows
    otherwise. Rows are what one output unit sums over (window and inputs). Differs
    from Keras's class of that name where the kernel is no plain matrix: attention,
    depthwise, transposed, grouped and recurrent kernels come out orthogonal here.

    Args:
        gain: factor on all singular values, positive.
        gates: how many matrices lie side by side on the last output axis: 4 for an
            LSTM's kernels, 3 for a GRU's. None for what the layer says, 1 for a shape
            alone.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in.
        output_axes: axes whose product is fan_out.
        per_head: True for attention kernels `(inputs, heads, units)` and
            `(heads, units, outputs)` of which each head is orthogonal by itself, and
            not all heads together. Both hold where inputs = heads·units.

    Raises:
        ValueError: for an argument out of range, a shape with fewer than two axes,
            outputs that do not divide into the gates, or `per_head` for a kernel
            without an axis of heads.

    Example:
        >>> kernel = Orthogonal(gates=4, seed=0)((32, 128))
        >>> forget = keras.ops.convert_to_numpy(kernel)[:, 32:64]
        >>> bool(abs(forget.T @ forget - np.eye(32)).max() < 1e-5)
        True

    References:
        Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in
        deep linear neural networks", 1312.6120, section 4.
    """

    def __init__(
        self,
        gain: float = 1.0,
        gates: int | None = None,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
        per_head: bool = False,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.gain = check_positive("gain", gain, usual=1.0)
        self.gates = None if gates is None else check_count("gates", gates, usual=1)
        self.per_head = check_flag("per_head", per_head)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        check_matrix(type(self).__name__, shape)
        if self.gates is not None:
            axes = replace(axes, gates=self.gates)
        if self.per_head:
            axes = _one_head(axes, shape)
        matrices = self._side_by_side(matrix_shape(shape, axes), axes, shape, dtype)
        return self.gain * to_kernel(matrices, shape, axes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {
            "gain": self.gain,
            "gates": self.gates,
            "per_head": self.per_head,
            **super().get_config(),
        }


@keras.saving.register_keras_serializable(PACKAGE)
class DeltaOrthogonal(_OrthogonalBlocks):
    """Convolution kernels that are orthogonal at the center tap and zero elsewhere.

    With padding "same" such a convolution keeps the norm of its input exactly where
    it has no more inputs than outputs: it is the orthogonal matrix at every position,
    one for each group.
    A window of even size has its center at `(size − 1)//2`, where Keras puts it.

    Args:
        gain: factor on all singular values, positive.
        seed: see `LayoutInitializer`, as for the axes.
        input_axes: axes whose product is fan_in, the window among them.
        output_axes: axes whose product is fan_out, the window among them.

    Raises:
        ValueError: if `gain` is out of range or the kernel has no window.

    Example:
        >>> layer = keras.layers.Conv2D(
        ...     8, 3, padding="same", kernel_initializer=DeltaOrthogonal(seed=0)
        ... )
        >>> x = np.random.default_rng(0).normal(size=(1, 5, 5, 8)).astype("float32")
        >>> y = keras.ops.convert_to_numpy(layer(x))
        >>> bool(abs((y**2).sum() / (x**2).sum() - 1) < 1e-5)
        True

    References:
        Xiao et al. 2018, "Dynamical isometry and a mean field theory of CNNs",
        1806.05393, algorithm 1.
    """

    def __init__(
        self,
        gain: float = 1.0,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(seed, input_axes, output_axes)
        self.gain = check_positive("gain", gain, usual=1.0)

    def _draw(self, shape: tuple[int, ...], axes: KernelAxes, dtype: str) -> Any:
        check_matrix(type(self).__name__, shape)
        if not axes.window:
            raise ValueError(
                message(
                    "`DeltaOrthogonal` needs a kernel with a window.",
                    f"shape={shape}",
                    "Use `Orthogonal` for a dense kernel.",
                )
            )
        tap = self._side_by_side(tap_shape(shape, axes), axes, shape, dtype)
        return at_window_center(self.gain * tap, shape, axes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal initializer."""
        return {"gain": self.gain, **super().get_config()}


def _one_head(axes: KernelAxes, shape: tuple[int, ...]) -> KernelAxes:
    """The axes of one head; that of the heads becomes a batch axis."""
    several = [side for side in (axes.inputs, axes.outputs) if len(side) > 1]
    if len(several) != 1:
        raise ValueError(
            message(
                "`per_head` needs a kernel (inputs, heads, units) or "
                "(heads, units, outputs).",
                f"shape={shape} with inputs {axes.inputs} and outputs {axes.outputs}",
                "It is meant for the kernels of attention layers.",
            )
        )
    heads = several[0][0]
    return replace(
        axes,
        inputs=tuple(axis for axis in axes.inputs if axis != heads),
        outputs=tuple(axis for axis in axes.outputs if axis != heads),
    )
