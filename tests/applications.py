"""The models of `keras.applications`, with fresh weights, as small as they may be."""

import keras

NAMES = [name for name in vars(keras.applications) if name[0].isupper()]
SMALLEST = {
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "Xception": 71,
    # Do not take another size without their weights.
    "NASNetLarge": 331,
    "NASNetMobile": 224,
}


def build(name, size=64, **options):
    """An application on square images of `size`, or of the least size it takes."""
    size = max(size, SMALLEST.get(name, size))
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3), **options)
