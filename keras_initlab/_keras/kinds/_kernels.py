"""The kernels of a layer or model, with their true fans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from ..._core.errors import UnbuiltModelError, message
from ..private import given_width, sublayers
from ._axes import Fans, KernelAxes
from ._kind import Kind, Part
from ._records import is_of_known_kind, own_kernels, part_of, register, variable_of


class Kernel(NamedTuple):
    """A kernel variable, the layer that owns it and what its axes mean.

    Attributes:
        variable: the Keras variable.
        layer: the layer that created it.
        name: its name in the rule for the layer.
        axes: what the axes mean.
        shape: the kernel's shape; a variable that packs two 4-bit weights into a byte
            has a smaller one.
        is_known: False where only Keras's rule for the shape could be used.
    """

    variable: Any
    layer: Any
    name: str
    axes: KernelAxes
    shape: tuple[int, ...]
    is_known: bool = True

    @property
    def fans(self) -> Fans:
        """Its true fans."""
        return self.axes.fans(self.shape)

    @property
    def part(self) -> Part:
        """What is known of it by its name in the layer."""
        return part_of(self.layer, self.name)

    @property
    def reads(self) -> int | None:
        """The axis, from the end, along which it reads its input unit by unit.

        None where a unit of the input cannot be told from others.
        """
        counted = {*self.axes.outputs, *self.axes.window}
        own = [axis for axis in range(len(self.shape)) if axis not in counted]
        is_told = self.is_known and len(own) == 1 and self.part.role != "embedding"
        return own[0] - len(self.shape) if is_told else None

    @property
    def bias(self) -> Any:
        """The bias variable that is added to what it computes, or None."""
        name = self.part.bias
        bias: Any = vars(self.layer).get(name) if name else None
        return bias if isinstance(bias, keras.Variable) else None


def kernels(layer: keras.Layer) -> list[Kernel]:
    """Returns all kernels of a layer and of the layers inside it, in fixed order."""
    layouts, is_known = own_kernels(layer), is_of_known_kind(layer)
    within = [kernel for inner in sublayers(layer) for kernel in kernels(inner)]
    # A wrapper may list the kernel of the layer within as its own.
    theirs = {id(kernel.variable) for kernel in within}
    found = [
        _kernel(variable, layer, name, axes, is_known)
        for name, axes in layouts.items()
        if (variable := variable_of(layer, name)) is not None
        and id(variable) not in theirs
    ]
    return list({id(kernel.variable): kernel for kernel in found + within}.values())


def check_built(name: str, layer: Any) -> None:
    """Raises if the argument `name` is no Keras layer or model that has been built."""
    if not isinstance(layer, keras.Layer):
        raise TypeError(
            message(f"`{name}` must be a Keras layer or model.", f"{name}={layer!r}")
        )
    if not layer.built:
        raise UnbuiltModelError(
            message(
                f"`{name}` must be built.",
                f"{name}={layer.name!r} ({type(layer).__name__}), not built",
                "Call it on data, or call its `build` with an input shape.",
            )
        )


def register_fans(
    layer_class: type,
    function: Callable[[Any], Mapping[str, KernelAxes]] | None = None,
) -> Any:
    """Tells what the axes of a custom layer's kernels mean.

    From then on `fans`, `recommend` and the initializers of this package treat the
    layer as they treat Keras's own. Subclasses inherit it.

    Args:
        layer_class: a subclass of `keras.Layer`.
        function: maps a layer of that class to `{name of the variable: KernelAxes}`,
            in the order in which the layer creates them. It is also asked while the
            layer is being built, so it must read the layer's settings and not its
            weights. Leave it out to use `register_fans` as a decorator.

    Returns:
        The function, or a decorator for it.

    Raises:
        TypeError: if `layer_class` is no layer class or `function` not callable; when
            it is asked, if it returns anything else than named in Args.

    Example:
        >>> class Mixer(keras.layers.Layer):
        ...     def build(self, input_shape):
        ...         shape = (5, input_shape[-1])  # (outputs, inputs)
        ...         self.mixing = self.add_weight(shape=shape, name="mixing")
        >>> @register_fans(Mixer)
        ... def mixer_fans(layer):
        ...     return {"mixing": KernelAxes(inputs=(1,), outputs=(0,))}
        >>> layer = Mixer(name="mixer")
        >>> layer.build((None, 3))
        >>> keras_initlab.fans(layer)
        {'mixer/mixing': Fans(fan_in=3, fan_out=5)}
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(
            message(
                "`layer_class` must be a subclass of `keras.Layer`.",
                f"layer_class={layer_class!r}",
            )
        )
    if function is None:
        return lambda decorated: register_fans(layer_class, decorated)
    if not callable(function):
        raise TypeError(
            message("`function` must be callable.", f"function={function!r}")
        )
    register(layer_class, Kind(function))
    return function


def _kernel(
    variable: Any, layer: Any, name: str, axes: KernelAxes, is_known: bool
) -> Kernel:
    shape = _shape(layer, name, variable)
    if not axes.fits(len(shape)):
        raise ValueError(
            message(
                "The axes registered for a kernel must lie within its rank.",
                f"{axes} for {variable.path!r} of shape {shape}",
                f"Mend what `register_fans` was given for {type(layer).__name__}.",
            )
        )
    return Kernel(variable, layer, name, axes, shape, is_known)


def _shape(layer: Any, name: str, variable: Any) -> tuple[int, ...]:
    """A kernel's shape, also where two 4-bit weights lie packed in a byte."""
    shape = tuple(variable.shape)
    if getattr(layer, "quantization_mode", None) is None:
        return shape
    for attribute in ("original_kernel_shape", "kernel_shape"):
        if hasattr(layer, attribute):
            return tuple(getattr(layer, attribute))
    if name == "reverse_embeddings":
        return (layer.output_dim, shape[-1])
    return (*shape[:-1], given_width(layer, shape[-1]))
