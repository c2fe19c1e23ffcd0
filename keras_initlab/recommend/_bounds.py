"""How large a kernel is at most, however small what it reads.

What gives logits and what feeds gates does not make up for all of a small signal. What
reads looked-up rows that nothing normalizes, or what is made of them, makes up for
nothing: rows start small and grow in training, and with a large kernel everything
behind it.
"""

from __future__ import annotations

import math

from .._keras.kinds import keras_fans
from ..inspection import Effect, Inspection, KernelRecord, Merge
from ._choice import tidy
from ._embeddings import is_tied

# Times Glorot's std. Chosen between 1, 3 and no bound on text networks of the fitted
# half of `tests/benchmarks/networks`.
_MOST, _OF_ROWS = 3.0, 1.0


class Bounds:
    """The bounds of a model's kernels, asked for in the order of the model.

    Attributes:
        told: of kernels that are bounded, how, in words, by position.
    """

    def __init__(self, inspection: Inspection):
        self._kernels = inspection.kernels
        self.told: dict[int, str] = {}
        self._growing: set[int] = set()

    def bounded(self, kernel: KernelRecord, std: float, moment: float) -> float:
        """Returns a std, or less where its kernel would be too large for that.

        Args:
            kernel: the kernel.
            std: that its output is meant to have.
            moment: mean square of what it reads.
        """
        grows = self.reads_rows(kernel)
        factor = _OF_ROWS if grows else _MOST
        most = tidy(factor * math.sqrt(_glorot_gain(kernel) * moment))
        if std <= most:
            return std
        self.told[kernel.position] = f"at most {_MOST:g} times Glorot's"
        if grows:
            self._note_growing(kernel)
        return most

    def reads_rows(self, reader: KernelRecord | Merge) -> bool:
        """Whether what a kernel reads grows with rows alone: nothing normalizes it."""
        joins = getattr(reader, "effect", None) in (Effect.ADD, Effect.CONCATENATE)
        found = False
        for edge in reader.edges:
            if edge.source is None:  # as a mask, beside what it hides
                if joins or isinstance(reader, KernelRecord):
                    return False
                continue
            if edge.has(Effect.NORMALIZATION):
                return False
            if isinstance(edge.source, Merge):
                found = self.reads_rows(edge.source)
            else:
                source = self._kernels[edge.source]
                is_table = source.role == "embedding" and not is_tied(source)
                found = is_table or edge.source in self._growing
            if not found:
                return False
        return found

    def _note_growing(self, kernel: KernelRecord) -> None:
        told = "no larger than Glorot's, as what it reads grows with rows"
        self.told[kernel.position] = told
        is_cell = kernel.role == "recurrent input"
        self._growing |= {
            one.position
            for one in self._kernels
            if one is kernel or (is_cell and one.layer is kernel.layer)
        }


def _glorot_gain(kernel: KernelRecord) -> float:
    """Returns the gain on the mean square of Keras's default, `glorot_uniform`."""
    given = keras_fans(kernel.shape)
    return 2 * kernel.fans.fan_in / max(1.0, given.fan_in + given.fan_out)
