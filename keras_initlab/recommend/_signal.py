"""The signal policy: kernels that let the signal through, forward and backward.

Kernels are decided in the order of the model, so that each knows at what scale its
sources hand the signal on. What a kernel is decides where its scale is from: a plain
stretch (`_constructions`), a residual branch (`_residuals`), a cell (`_recurrent`), an
embedding (`_embeddings`), an output (`_outputs`); all others keep the variance of
their input (`_variance`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from .._weights.constraining import Constraints
from ..initializers import Orthogonal
from ..inspection import Effect, Inspection, KernelRecord
from ._bounds import Bounds
from ._choice import ESTIMATE, FROZEN, KEPT_BIAS, MEASURED, VARIANCE, Choice, tidy
from ._constructions import Place
from ._embeddings import Embeddings
from ._input_moments import (
    InputMoment,
    InputMoments,
    activation_std,
    statistics_or_none,
)
from ._inputs import InputScale
from ._keeping import Keeping
from ._measured import Expected, Measured
from ._normalized import NORMALIZED_STD, is_scale_free, moving
from ._outputs import Output, as_output
from ._recurrent import input_std, is_gated, recurrent_choice, state_moment
from ._residuals import Residuals
from ._stretches import Carrier, carriers, stretch_lengths
from ._variance import (
    ROUTER_VARIANCE,
    frozen_std,
    is_router,
    random_reason,
    random_reference,
    variance_scaling,
    variance_told,
)

_BY_RULE = ("bias", "embedding", "recurrent")
_SAXE = "Saxe et al. 2014, 1312.6120, sec. 3"


def signal_choices(
    inspection: Inspection,
    scale: InputScale,
    outputs: Mapping[int, Output] | None = None,
    run: Callable[[SignalPolicy, Sequence[Choice]], bool] | None = None,
    has_data: bool = False,
    constraints: Constraints | None = None,
) -> list[Choice]:
    """Returns the signal policy's choice for every kernel, in order of position.

    Args:
        inspection: the model's kernels.
        scale: root mean square of the model's inputs.
        outputs: what output kernels give whose meaning is known, by position.
        run: runs the model on what theory chooses, to measure what it is not sure of;
            returns whether it has.
        has_data: whether it runs on data, which tell the scale of inputs.
        constraints: what the model's variables obey.
    """
    obeyed = constraints or Constraints(None)
    given = inspection, scale, outputs or {}, Measured(), obeyed, has_data
    policy = SignalPolicy(*given)
    choices = policy.choices()
    if run is None or not run(policy, choices):
        return choices
    return SignalPolicy(*given).choices()


class SignalPolicy:
    """The choices for a model's kernels, made in order.

    Attributes:
        inspection: the kernels.
        measured: what a run of the model has told so far.
        stds: the std of what kernels give, by position, as they are decided.
    """

    def __init__(
        self,
        inspection: Inspection,
        scale: InputScale,
        outputs: Mapping[int, Output],
        measured: Measured,
        constraints: Constraints,
        has_data: bool = False,
    ):
        self.constraints, self.has_data = constraints, has_data
        self.inspection = inspection
        self.outputs = outputs
        self.measured = measured
        self.carriers = carriers(inspection, constraints.names)
        self.lengths = stretch_lengths(inspection, self.carriers)
        # The std of outputs where it is not 1; each kernel's is noted when decided.
        self.stds: dict[int, float] = {}
        self.input_moments = InputMoments(inspection, scale, self.stds, measured)
        self.residuals = Residuals(inspection, self.input_moments)
        self.embeddings = Embeddings(inspection)
        self.keeping = Keeping(inspection)
        self.bounds = Bounds(inspection)

    def choices(self) -> list[Choice]:
        """Returns the choice for every kernel, in order of position."""
        # A choice notes its kernel's std, so it comes first.
        return [
            replace(self.choice(kernel), std=self.stds.get(kernel.position, 1.0))
            for kernel in self.inspection.kernels
        ]

    def is_sure(self, kernel: KernelRecord) -> bool:
        """Whether theory knows what a kernel reads, or need not know it."""
        is_free = not self.constraints.names(kernel.variable)
        needs_nothing = not kernel.trainable or (kernel.role in _BY_RULE and is_free)
        return needs_nothing or self.expected(kernel).is_sure

    def expected(self, kernel: KernelRecord) -> Expected:
        """Returns what theory expects of a kernel's output."""
        theory, choice = self.input_moments.theory(kernel), self.choice(kernel)
        is_inside = self._carrying_source(kernel) is not None
        is_averaged = kernel.edges and kernel.edges[0].has(Effect.CHANNEL_LINEAR)
        return Expected(
            std=self.stds.get(kernel.position, 1.0),
            moment=theory.moment,
            is_sure=not self.constraints.names(kernel.variable)
            and (not is_averaged if is_inside else theory.is_exact),
            needs_data=not self.has_data and self.input_moments.needs_data(kernel),
            scales_bias=choice.centered_mean is not None,
            is_made=is_inside,
        )

    def choice(self, kernel: KernelRecord) -> Choice:
        """Returns the choice for a kernel; those before it come first."""
        choice = self._choice(kernel)
        left = self.measured.left.get(kernel.position)
        if left is not None:
            wanted, self.stds[kernel.position] = self.stds[kernel.position], left
            names = self.constraints.names(kernel.variable)
            told = f"{choice.reason}; {names} leaves a std of {left:.3g}"
            return replace(
                choice, reason=f"{told}, not {wanted:.3g}", confidence=MEASURED
            )
        if choice.initializer is None or kernel.normalizer is None:
            return choice
        if not is_scale_free(kernel, self.inspection):
            return choice
        told = choice.reason
        if not choice.is_kept:
            told += f"; std {NORMALIZED_STD:g}, which learns faster"
        if moving(kernel.normalizer) is None:
            return replace(choice, reason=told)
        variance = tidy(self.stds[kernel.position] ** 2)
        told += f", and the moving variance starts at {variance:.3g}"
        return replace(choice, reason=told, moving_variance=variance)

    def _choice(self, kernel: KernelRecord) -> Choice:
        if not kernel.trainable:
            self.stds[kernel.position] = self._kept_std(kernel)
            return FROZEN
        if kernel.role == "bias":
            return KEPT_BIAS
        if kernel.role == "recurrent":
            self.stds[kernel.position] = self._state_std(kernel)
            return self._recurrent(kernel)
        if kernel.role == "embedding":
            choice = self.embeddings.choice(kernel)
            self.stds[kernel.position] = choice.forward_gain or 1.0
            return choice
        output = self.outputs.get(kernel.position)
        source = self._carrying_source(kernel)
        if source is not None or self.carriers[kernel.position] is not Carrier.RANDOM:
            choice = self._in_stretch(kernel, source)
            return as_output(choice, output, self.stds[kernel.position])
        if _is_transposed_too(kernel):
            return self._tied(kernel)
        choice = self._random(kernel)
        if output is None:
            return self._or_own(choice, kernel)
        return as_output(choice, output, self.stds[kernel.position])

    def _kept_std(self, kernel: KernelRecord) -> float:
        if kernel.role == "recurrent":
            return self._state_std(kernel)
        if kernel.position in self.measured.given:
            return self.measured.given[kernel.position]
        return frozen_std(kernel, self.input_moments.at(kernel))

    def _state_std(self, kernel: KernelRecord) -> float:
        """The rms of a cell's state, by what its input kernel gives."""
        given = (
            self.stds.get(other.position, 1.0)
            for other in self.inspection.kernels
            if other.layer is kernel.layer and other.role == "recurrent input"
        )
        return math.sqrt(state_moment(kernel, next(given, 1.0)))

    def _carrying_source(self, kernel: KernelRecord) -> KernelRecord | None:
        """The kernel before it in its stretch, or None at the stretch's start."""
        source = kernel.edges[0].source if kernel.edges else None
        if len(kernel.edges) > 1 or not isinstance(source, int):
            return None
        is_carrying = self.carriers[source] is not Carrier.RANDOM
        return self.inspection.kernels[source] if is_carrying else None

    def _in_stretch(self, kernel: KernelRecord, source: KernelRecord | None) -> Choice:
        place = Place(
            kernel=kernel,
            own=self.carriers[kernel.position],
            source=source,
            before=self.carriers[source.position] if source else Carrier.RANDOM,
            length=self.lengths[kernel.position],
            moment=self.input_moments.at(kernel).moment,
            std=self.stds.get(source.position, 1.0) if source else 1.0,
            target=self._target_std(kernel),
            share=self._share_left(kernel) if source else 1.0,
        )
        slope = math.sqrt(self._slope_before(kernel))
        choice, std = place.construct(self._input_scale(kernel), slope)
        self.stds[kernel.position] = std
        return choice

    def _share_left(self, kernel: KernelRecord) -> float:
        """What a run has told that averages leave of what a kernel would read."""
        read = self.measured.read.get(kernel.position)
        return 1.0 if read is None else read / self.input_moments.theory(kernel).moment

    def _random(self, kernel: KernelRecord) -> Choice:
        input_moment = self.input_moments.at(kernel)
        share = self.residuals.share(kernel)
        variance = share.variance if share else self._target_std(kernel) ** 2
        if is_router(kernel):
            variance = ROUTER_VARIANCE
        scale = tidy(variance / input_moment.moment)
        self.stds[kernel.position] = math.sqrt(variance)
        reason = random_reason(kernel, input_moment)
        if kernel.position in self.bounds.told:
            reason += f", {self.bounds.told[kernel.position]}"
        reason += variance_told(kernel, scale)
        std = math.sqrt(scale / max(1.0, kernel.fans.fan_in))
        is_normalized = self.constraints.normalizer(kernel.variable) is not None
        return Choice(
            initializer=Orthogonal()
            if is_normalized
            else variance_scaling(kernel, scale),
            reason=f"{share.reason}; {reason}" if share else reason,
            reference=share.reference
            if share
            else random_reference(kernel, input_moment),
            confidence=_confidence(input_moment),
            alternatives=(*self._beside_frozen(kernel), "orthogonal", "glorot_uniform"),
            forward_gain=math.sqrt(variance) / self._input_scale(kernel),
            backward_gain=std
            * math.sqrt(kernel.fans.fan_out * self._slope_before(kernel)),
        )

    def _or_own(self, choice: Choice, kernel: KernelRecord) -> Choice:
        """The choice, or the layer's own initializer if that does as well."""
        is_free = not self.constraints.names(kernel.variable)
        if not is_free or is_router(kernel) or self.residuals.share(kernel):
            return choice
        meant, read = self.stds[kernel.position], self.input_moments.at(kernel)
        choice, std = self.keeping.instead_of(choice, kernel, meant, read)
        self.stds[kernel.position] = std
        return choice

    def _recurrent(self, kernel: KernelRecord) -> Choice:
        choice = recurrent_choice(kernel)
        if not kernel.axes.window:
            return choice
        return replace(
            choice,
            initializer=variance_scaling(kernel, 1.0),
            reason=f"recurrent over a window, {kernel.axes.gates} gates side by side: "
            "variance 1/fan_in keeps the state's scale",
            alternatives=("orthogonal", "glorot_uniform"),
        )

    def _tied(self, kernel: KernelRecord) -> Choice:
        """A matrix that is used transposed too, as by a tied decoder."""
        input_moment = self.input_moments.at(kernel)
        inputs, outputs = kernel.shape
        gain = tidy(math.sqrt(max(1.0, outputs / inputs) / input_moment.moment))
        return Choice(
            initializer=Orthogonal(gain),
            reason="used transposed too: orthogonal, so that one undoes the other",
            reference=_SAXE,
            confidence=_confidence(input_moment),
            alternatives=("glorot_normal",),
            forward_gain=1 / self._input_scale(kernel),
            backward_gain=gain
            * math.sqrt(min(inputs, outputs) / inputs * self._slope_before(kernel)),
        )

    def _target_std(self, kernel: KernelRecord) -> float:
        output = self.outputs.get(kernel.position)
        if output is not None:
            return self._bounded(kernel, output.std) if output.is_logits else output.std
        if kernel.role == "recurrent input":
            std = input_std(kernel)
            return self._bounded(kernel, std) if is_gated(kernel) else std
        if is_scale_free(kernel, self.inspection):
            return NORMALIZED_STD
        if kernel.role in ("query", "key", "qkv"):
            return kernel.attention_std
        std = activation_std(kernel)
        return self._bounded(kernel, std) if self.bounds.reads_rows(kernel) else std

    def _bounded(self, kernel: KernelRecord, std: float) -> float:
        moment = self.input_moments.at(kernel).moment
        return self.bounds.bounded(kernel, std, moment)

    def _beside_frozen(self, kernel: KernelRecord) -> tuple[str, ...]:
        """The source's rule for the first new layer after pretrained ones."""
        sources = [edge.source for edge in kernel.edges]
        kept = [s for s in sources if isinstance(s, int) and not self._trains(s)]
        return ("MatchPretrained",) if kept else ()

    def _trains(self, position: int) -> bool:
        return self.inspection.kernels[position].trainable

    def _input_scale(self, kernel: KernelRecord) -> float:
        """The std that a kernel's gain is relative to: the input's for the first."""
        source = kernel.edges[0].source if len(kernel.edges) == 1 else None
        if isinstance(source, int):
            return self.stds.get(source, 1.0)
        if kernel.upstream is None:
            return self.input_moments.std_of_input(kernel)
        return self.stds.get(kernel.upstream, 1.0)

    def _slope_before(self, kernel: KernelRecord) -> float:
        """The factor on a gradient's variance between this kernel and the one before.

        E[φ′²] of the activations, and what normalizations divide by.
        """
        slope, source = 1.0, kernel.edges[0].source if kernel.edges else None
        std = self.stds.get(source, 1.0) if isinstance(source, int) else 1.0
        for transform in kernel.edges[0].transforms if kernel.edges else ():
            if transform.effect is Effect.NORMALIZATION:
                slope, std = slope * transform.mean_square / std**2, 1.0
            elif transform.effect is Effect.ACTIVATION:
                statistics = statistics_or_none(transform.activation)
                slope *= statistics.derivative_second_moment if statistics else 1.0
        return slope


def _confidence(input_moment: InputMoment) -> float:
    if input_moment.is_measured:
        return MEASURED
    return VARIANCE if input_moment.is_exact else ESTIMATE


def _is_transposed_too(kernel: KernelRecord) -> bool:
    """Whether a plain matrix is used twice, as an encoder's and a decoder's."""
    is_matrix = len(kernel.shape) == 2 and kernel.fans.fan_in == kernel.shape[0]
    return kernel.is_tied and is_matrix and kernel.role == "hidden"
