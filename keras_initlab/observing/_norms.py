"""The norms of variables, gathered while a train step runs or is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops


class Norms:
    """The norms of variables, in vectors as they came."""

    def __init__(self) -> None:
        self._vectors: list[Any] = []
        self._places: dict[int, tuple[int, int]] = {}

    def __contains__(self, variable: Any) -> bool:
        return id(variable) in self._places

    def add(self, variables: Sequence[Any], norms: Any) -> None:
        """Adds the norms `(n,)` of n variables."""
        place = len(self._vectors)
        self._vectors.append(norms)
        self._places |= {id(one): (place, i) for i, one in enumerate(variables)}

    def of(self, variables: Sequence[Any]) -> Any:
        """The norms of the variables `(n,)`, NaN for what is missing."""
        places = [self._places.get(id(variable)) for variable in variables]
        # As they came, with no operation for each.
        if self._vectors:
            last, vector = len(self._vectors) - 1, self._vectors[-1]
            if places == [(last, i) for i in range(vector.shape[0])]:
                return vector
        missing = ops.full((), float("nan"), dtype="float32")
        each = [missing if at is None else self._vectors[at[0]][at[1]] for at in places]
        return ops.stack(each) if each else ops.zeros((0,), dtype="float32")
