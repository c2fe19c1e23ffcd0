"""What a backend refuses by itself, on this processor: asked before a test asks us."""

import keras
import numpy as np
import pytest


def require(compute, *shapes, **options):
    """Skips the test if the backend refuses to compute on zeros of these shapes.

    TensorFlow has some convolutions on a CPU only with oneDNN, which it switches on by
    the kind of processor, and some not at all.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    refusals = tf.errors.InvalidArgumentError, tf.errors.UnimplementedError
    try:
        compute(*(np.zeros(shape, "float32") for shape in shapes), **options)
    except refusals as error:
        if "implementation" not in str(error) and "support" not in str(error):
            raise
        pytest.skip(f"TensorFlow refuses here: {str(error).splitlines()[0]}")
