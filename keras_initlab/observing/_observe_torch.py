"""Observing training on PyTorch, where every step runs eagerly.

A model compiled with `jit_compile=True` runs its plain steps through `torch.compile`
and its observed ones eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from .._keras.private import norms_of_each, stands_for_another, without_torch_compile
from ._capture import KEY, Capture
from ._recipe import Measured, Recipe, Reduction, Traced
from ._training import callbacks_of


def observing_step(
    model: Any, train_step: Callable[[Any], Any], recipe: Recipe
) -> Callable[[Any], Any]:
    """Returns a train step whose logs also hold what the recipe measures."""

    def step(data: Any) -> Any:
        capture = _Capture(model, recipe)
        capture.begin([value.clone() for value in weights()])
        with capture.outputs(), capture.gradients():
            logs = train_step(data)
        return {**logs, KEY: capture.finish(traced, weights())}

    def weights() -> list[Any]:
        if not recipe.updates:
            return []
        return [v.value.detach() for v in model.trainable_variables]

    traced = vars(step)["traced"] = Traced()
    return step


def check(model: Any) -> None:
    """Every way in which Keras trains on PyTorch can be observed."""


def making(model: Any, arguments: Sequence[Any]) -> Any:
    """A context in which the model makes its observing train function."""
    return without_torch_compile(model)


def take(result: Any, step: Any) -> tuple[Any, Measured]:
    """Splits the trainer's logs from what was measured."""
    logs = dict(result)
    arrays = logs.pop(KEY)
    return logs, step.traced.measured(arrays, _copy)


def data_source(arguments: Sequence[Any], caller: Any) -> Any:
    """Returns what `fit` draws an epoch's batches from."""
    return callbacks_of(caller)  # there is no iterator to go by


def is_end_of_data(error: BaseException) -> bool:
    """Whether the error is how an iterator says that it is exhausted."""
    return isinstance(error, StopIteration)


def keep_state(model: Any, arguments: Sequence[Any], result: Any) -> None:
    """The model's variables hold the state all the time."""


class _Capture(Capture):
    def is_readable(self, value: Any) -> bool:
        # Inside `vmap` or `torch.func.grad` a tensor stands for what it will become.
        return not stands_for_another(value)

    @torch.no_grad()
    def norms_of(self, tensors: list[Any]) -> Any:
        tensors = [_real(tensor) for tensor in tensors]
        if any(tensor.device.type != "cpu" for tensor in tensors):
            return torch.stack([_norm(tensor) for tensor in tensors])
        # A CPU is several times faster in float32, and asking it for values is free.
        # PyTorch does not narrow float64 while it sums.
        is_wide = any(tensor.dtype == torch.float64 for tensor in tensors)
        parts = [_by_rows(tensor) for tensor in tensors]
        dtype = torch.float64 if is_wide else torch.float32
        norms = torch.stack(list(norms_of_each(parts, dtype))).to(torch.float32)
        is_safe = (norms > 1e-12) & (norms < 1e18)  # squares may under- or overflow
        for i in torch.nonzero(~is_safe).flatten().tolist():
            norms[i] = _norm(tensors[i])
        return norms

    def stack(self, figures: list[Any]) -> Any:
        return torch.stack(figures)

    def reduced(self, reduction: Reduction, value: Any, mask: Any) -> Any:
        value = value.detach()
        if reduction.name == "total" and value.is_floating_point():
            return value.sum(dtype=torch.float32)  # quicker than through Keras
        return super().reduced(reduction, value, mask)

    @torch.no_grad()
    def finish(self, traced: Traced, weights: Sequence[Any]) -> dict[str, Any]:
        """Returns the arrays that leave the step."""
        return super().finish(traced, weights)


def _copy(tensor: Any) -> np.ndarray:
    return np.array(tensor.detach().cpu().numpy())  # a view would keep the tensor alive


def _real(tensor: Any) -> Any:
    """A dense tensor of real numbers with the same norm."""
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _by_rows(tensor: Any) -> Any:
    """The norm of each row of a large tensor, else the tensor itself."""
    if tensor.dim() < 2 or tensor.numel() < 2**18:
        return tensor
    # One float32 sum over millions of squares would lose digits.
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    return torch.linalg.vector_norm(tensor, dim=-1, dtype=dtype)


def _norm(tensor: Any) -> Any:
    """The L2 norm of a tensor in float32."""
    if tensor.device.type == "mps":  # has no float64
        return _scaled_norm(tensor.to(torch.float32))
    # In float64 no square under- or overflows.
    norm = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return norm.to(torch.float32)


def _scaled_norm(dense: Any) -> Any:
    """The L2 norm of a tensor that is scaled first, so that all squares fit."""
    largest = torch.linalg.vector_norm(dense, ord=float("inf"))
    is_usable = (largest > 0) & torch.isfinite(largest)
    divisor = torch.where(is_usable, largest, torch.ones_like(largest))
    return divisor * torch.linalg.vector_norm(dense / divisor)
