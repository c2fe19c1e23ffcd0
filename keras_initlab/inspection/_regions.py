"""Several operations that make one: a norm, a gate or a rotation written by hand.

What lies between a signal and a later one that comes from it alone, with no kernel in
between, is a function of that signal. What it does is asked of it (`_asking`), and it
then counts as one operation that does this. So is a single operation of which no record
says what it does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from .._core.arrays import to_numpy
from .._keras.kinds import Computed, Effect, Kind
from ._arguments import filled
from ._asking import Answer, ask, bends
from ._calls import Call
from ._operations import effect_of
from ._symbols import Symbol, value_of

_SETTING = (Effect.NORMALIZATION, Effect.ACTIVATION)
_STEPS = 4
_LARGEST = 64  # operations in one
_SMALL = 2**14  # numbers that are compared, and not taken for different
_ASKED = (Effect.OTHER, Effect.ADD, Effect.CONCATENATE)
_LOUD = (Effect.POOL, Effect.ADD, Effect.CONCATENATE)

_OF_INPUTS = (Effect.NORMALIZATION, Effect.REARRANGE)


def joined(calls: Sequence[Call]) -> tuple[Call, ...]:
    """Returns the calls with those that make one operation as one.

    Args:
        calls: a model's calls, sources first.
    """
    regions = _Regions(calls)
    for index in range(len(calls)):
        regions.look_at(index)
    return _without_unread(regions.calls)


class _Regions:
    def __init__(self, calls: Sequence[Call]):
        self.calls = list(calls)
        self._depths: dict[int | None, int] = {None: 0}
        self._above: dict[int, int | None] = {}
        self._early: dict[int, bool] = {}
        self._answers: dict[Any, Answer | None] = {}

    def look_at(self, index: int) -> None:
        """Joins what makes one with a call, all before it having been looked at."""
        call = self.calls[index]
        above = self._common(call.inputs)
        if above is not None and _may_be_asked(call):
            found = self._region(index, above)
            if found is not None:
                self._ask(index, *found)
        above = self._common(self.calls[index].inputs)
        self._above[index] = above
        self._depths[index] = 1 + self._depth(above)
        self._early[index] = self._is_preprocessed(self.calls[index])

    def _depth(self, index: int | None) -> int:
        return self._depths.get(index, 1)  # of a model's input

    def _common(self, inputs: Sequence[int]) -> int | None:
        """The last call, or input, that all these come through."""
        if not inputs:
            return None
        first, *others = inputs
        for other in others:
            first = self._meeting(first, other)
        return first

    def _meeting(self, one: Any, other: Any) -> Any:
        while one != other:
            if self._depth(one) < self._depth(other):
                one, other = other, one
            one = None if one is None or one < 0 else self._above[one]
        return one

    def _region(
        self, index: int, source: int
    ) -> tuple[int, Sequence[int], int, Any] | None:
        """The source of a region that ends in a call, its calls, and what they read."""
        before = self.calls[source] if source >= 0 else None
        is_alone = before is not None and len(self.calls[index].inputs) == 1
        if before is not None and is_alone and before.node is not None:
            is_activation = effect_of(before.operation) is Effect.ACTIVATION
            if is_activation and len(before.inputs) == 1:
                (source,) = before.inputs  # several activations in a row are one
        members, waiting = set(), [index]
        read: dict[int, Any] = {}
        while waiting:
            number = waiting.pop()
            if number in members:
                continue
            call = self.calls[number]
            if not _is_computed(call) or len(members) > _LARGEST:
                return None
            members.add(number)
            for one, taken, tensor in zip(
                call.inputs, call.taken, call.tensors, strict=True
            ):
                if one == source:
                    read[taken] = tensor
                else:
                    waiting.append(one)
        if len(read) != 1:
            return None  # several outputs of one call
        ((taken, tensor),) = read.items()
        return source, sorted(members), taken, tensor

    def _ask(
        self, index: int, source: int, members: Sequence[int], taken: int, tensor: Any
    ) -> None:
        if not str(tensor.dtype).startswith(("float", "bfloat")):
            return
        calls = {number: self.calls[number] for number in members}
        shape = filled(tensor.shape)
        names = [_name(calls[number].operation) for number in members]
        key = _key(calls, source), shape
        if key not in self._answers:
            self._answers[key] = _answer(calls, index, source, shape, names)
        answer = self._answers[key]
        own = effect_of(self.calls[index].operation)
        if answer is not None and answer.effect is Effect.NORMALIZATION:
            wider = self._softmax(index, source)
            if wider is not None:
                answer, source, calls, taken, tensor = wider
        is_early = self._is_of_input(source)
        if is_early and (answer is None or answer.effect not in _OF_INPUTS):
            # The scale of inputs is told as it is behind linear preprocessing.
            answer = _bent(calls, index, source, shape)
        if answer is None or (own in _LOUD and answer.effect is Effect.CHANNEL_LINEAR):
            return
        self.calls[index] = replace(
            self.calls[index],
            operation=Computed(
                _kind(answer),
                "_".join(names).lower(),
                answer.gain,
                answer.effect is Effect.OTHER,
            ),
            inputs=(source,),
            taken=(taken,),
            tensors=(tensor,),
            arguments=(),
            node=_Joined(calls, index, source),
        )

    def _softmax(self, index: int, source: int) -> Any:
        """A softmax of which what normalizes is but the end; None if it is none."""
        for _ in range(_STEPS):
            above = self._above.get(source) if source >= 0 else None
            region = None if above is None else self._region(index, above)
            if region is None:
                return None
            source, members, taken, tensor = region
            calls = {number: self.calls[number] for number in members}
            shape = filled(tensor.shape)
            answer = _answer(calls, index, source, shape, ["softmax"])
            if answer is not None and answer.effect is Effect.ACTIVATION:
                return answer, source, calls, taken, tensor
        return None

    def _is_preprocessed(self, call: Call) -> bool:
        """Whether a call gives a model's inputs, at most preprocessed."""
        bends = isinstance(call.operation, Computed) and call.operation.bends
        if call.kernels or bends or effect_of(call.operation) in _SETTING:
            return False
        return bool(call.inputs) and all(map(self._is_of_input, call.inputs))

    def _is_of_input(self, index: int) -> bool:
        return index < 0 or self._early.get(index, False)


class _Joined:
    """Calls that make one, as something that can be computed.

    Attributes:
        key: equal for calls that compute the same, as far as can be seen.
    """

    def __init__(self, calls: Mapping[int, Call], last: int, source: int):
        self._calls, self._last, self._source = dict(calls), last, source
        self.key = _key(calls, source)

    def compute(self, x: Any) -> Any:
        """What the last call gives for a value of what the first ones read."""
        values: dict[int, Any] = {}
        for number, call in self._calls.items():
            given = [
                x if one == self._source else _one_of(values[one], taken)
                for one, taken in zip(call.inputs, call.taken, strict=True)
            ]
            values[number] = _computed(call, given)
        return _one_of(values[self._last], 0)


def _answer(
    calls: Mapping[int, Call],
    last: int,
    source: int,
    shape: Sequence[int],
    names: Sequence[str],
) -> Answer | None:
    try:
        function = _Joined(calls, last, source).compute
        return ask(function, shape, "_".join(names).lower())
    except Exception:  # whatever an operation may raise on such values
        return None


def _bent(
    calls: Mapping[int, Call], last: int, source: int, shape: Sequence[int]
) -> Answer | None:
    """That something is unknown and no preprocessing; None if it may be one."""
    try:
        is_bent = bends(_Joined(calls, last, source).compute, shape)
    except Exception:  # whatever an operation may raise on such values
        return None
    return Answer(Effect.OTHER) if is_bent else None


def _computed(call: Call, given: Sequence[Any]) -> Any:
    """What a call returns when its inputs are these."""
    if isinstance(call.node, _Joined):
        return call.node.compute(given[0])
    values = dict(zip(map(id, call.tensors), given, strict=True))

    def value(one: Any) -> Any:
        return values[id(one)] if id(one) in values else value_of(one)

    arguments = call.node.arguments
    args, kwargs = keras.tree.map_structure(value, (arguments.args, arguments.kwargs))
    return call.operation(*args, **kwargs)


def _name(operation: Any) -> str:
    is_one = isinstance(operation, Computed)
    return operation.name if is_one else type(operation).__name__


def _one_of(returned: Any, number: int) -> Any:
    return keras.tree.flatten(returned)[number]


def _may_be_asked(call: Call) -> bool:
    if not _is_computed(call) or isinstance(call.operation, Computed):
        return False
    return effect_of(call.operation) in _ASKED


def _is_computed(call: Call) -> bool:
    is_kernel = bool(call.kernels) or call.operation is None
    return not is_kernel and call.node is not None and len(call.tensors) > 0


def _kind(answer: Answer) -> Kind:
    return Kind(
        effect=answer.effect,
        activation=lambda _: answer.activation,
        mean_square=lambda _, __: answer.mean_square,
    )


def _key(calls: Mapping[int, Call], source: int) -> Any:
    numbers = {number: place for place, number in enumerate(calls)} | {source: -1}
    return tuple(
        (
            call.node.key if isinstance(call.node, _Joined) else None,
            type(call.operation),
            tuple(numbers[one] for one in call.inputs),
            call.taken,
            _settings(call),
        )
        for call in calls.values()
    )


def _settings(call: Call) -> Any:
    """What an operation computes by beside its inputs, as far as it is plain."""
    if isinstance(call.node, _Joined):
        return None  # it is computed by what it was joined from
    own = {
        name: value
        for name, value in vars(call.operation).items()
        if isinstance(value, (int, float, str, bool, tuple, type(None)))
        and not name.startswith("_")
        and name != "name"
    }
    arguments = call.node.arguments
    flat = keras.tree.flatten((arguments.args, arguments.kwargs))
    read = {id(tensor) for tensor in call.tensors}
    others = [_identity(value) for value in flat if id(value) not in read]
    return repr((sorted(own.items()), others))


def _identity(value: Any) -> Any:
    """Equal for values that are equal, as far as they are small or plain."""
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    has_value = isinstance(value, Symbol) or keras.ops.is_tensor(value)
    if not has_value or not all(value.shape) or math.prod(value.shape) > _SMALL:
        return id(value)
    found = to_numpy(value_of(value))
    return found.shape, str(found.dtype), hash(found.tobytes())


def _without_unread(calls: Sequence[Call]) -> tuple[Call, ...]:
    """The calls without those that nothing reads any more."""
    is_read = [call.is_output or bool(call.kernels) for call in calls]
    for index in reversed(range(len(calls))):
        if is_read[index]:
            for source in calls[index].inputs:
                if source >= 0:
                    is_read[source] = True
    places: dict[int, int] = {}
    kept: list[Call] = []
    for index, call in enumerate(calls):
        if is_read[index] or call.operation is None:
            places[index] = len(kept)
            inputs = tuple(one if one < 0 else places[one] for one in call.inputs)
            kept.append(replace(call, inputs=inputs))
    return tuple(kept)
