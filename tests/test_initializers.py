import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab.initializers import (
    AdaptiveHe,
    MirroredOrthogonal,
    Orthogonal,
)
from keras_initlab.initializers._base import LayoutInitializer


def to_numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64")


def draw(initializer, shape):
    return to_numpy(initializer(shape))


@pytest.mark.parametrize(
    ("policy", "dtype"), [("mixed_float16", "float16"), ("bfloat16", "bfloat16")]
)
def test_layers_of_a_lower_precision(policy, dtype):
    layer = layers.Dense(12, dtype=policy, kernel_initializer=Orthogonal(seed=3))
    output = layer(np.ones((2, 24), "float32"))
    assert keras.backend.standardize_dtype(output.dtype) == dtype
    assert np.isfinite(to_numpy(output)).all()


def test_a_layer_takes_the_name():
    layer = layers.Conv2D(8, 3, kernel_initializer="keras_initlab>AdaptiveHe")
    layer.build((None, 5, 5, 6))
    assert tuple(layer.kernel.shape) == (3, 3, 6, 8)
    assert type(layer.kernel_initializer) is AdaptiveHe


def test_repr_shows_the_arguments():
    assert repr(Orthogonal(gates=4, seed=3)) == (
        "Orthogonal(gain=1.0, gates=4, per_head=False, seed=3)"
    )
    leaky = AdaptiveHe(activation=layers.LeakyReLU(), seed=3)
    assert "activation=LeakyReLU, " in repr(leaky)
    assert "activation='relu', " in repr(AdaptiveHe())


def test_whole_numbers_may_be_floats():
    assert AdaptiveHe(depth=2.0).get_config()["depth"] == 2
    assert Orthogonal(gates=np.int64(4)).get_config()["gates"] == 4


def test_mirroring_can_be_left_out_for_one_unit():
    assert draw(MirroredOrthogonal(mirror_outputs=False), (8, 1)).shape == (8, 1)
    assert draw(MirroredOrthogonal(mirror_inputs=False), (1, 8)).shape == (1, 8)


def test_the_base_class_draws_nothing():
    with pytest.raises(NotImplementedError, match="LayoutInitializer does not draw"):
        LayoutInitializer()((4, 3))
