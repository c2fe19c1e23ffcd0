"""What frozen kernels really give, measured on data.

Trained kernels fit what they read: of a trained body the features are larger than
independent inputs would make them, by ten times and more. Only a run can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arrays import to_numpy
from .._fans import variable_of
from ..calibration._hooks import hooks
from ..calibration._listener import Listener
from ..inspection import Inspection
from ..signal._record import all_replaced


class _Sizes(Listener):
    """Notes the size of what comes by, each kernel's at its last call."""

    def __init__(self, kernels: Sequence[Any]):
        super().__init__(kernels)
        self.sizes: dict[int, float] = {}

    def fitted(self, layer: Any, name: str, output: Any, has_bias: bool = True) -> Any:
        key = id(variable_of(layer, name))
        if self.is_open(layer, name) and not self.is_in_loop:
            square = ops.mean(ops.square(ops.cast(output, "float32")))
            self.sizes[key] = float(np.sqrt(to_numpy(square)))
        return output


def frozen_sizes(
    model: keras.Model, inspection: Inspection, batch: Any
) -> dict[int, float]:
    """Returns root mean squares of what frozen kernels give, by position.

    Those that run inside a loop or traced function are left out, as are those that
    give nothing or no finite numbers.

    Args:
        model: a built model.
        inspection: its kernels.
        batch: what the model is called on.
    """
    frozen = [record for record in inspection.kernels if not record.trainable]
    if not frozen:
        return {}
    run = _Sizes([record.kernel for record in frozen])
    mode = {"training": False} if model._call_has_training_arg else {}
    with all_replaced(hooks(model, run)):
        model(batch, **mode)
    found = {record.position: run.sizes.get(id(record.variable)) for record in frozen}
    return {
        position: size
        for position, size in found.items()
        if size is not None and np.isfinite(size) and size > 0
    }
