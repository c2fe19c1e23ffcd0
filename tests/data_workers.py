"""Data that other processes load; nothing here may import Keras at their start."""

import numpy as np

EXAMPLES, BATCH, WIDTH = 24, 6, 5


class Examples:
    """A map-style dataset for PyTorch's `DataLoader`."""

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=WIDTH).astype("float32")
        return x, x[:2]


def loader(context, **options):
    import pytest

    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(
        Examples(),
        BATCH,
        shuffle=True,
        num_workers=2,
        multiprocessing_context=context,
        generator=torch.Generator().manual_seed(3),
        **options,
    )


def batches(**options):
    """A `PyDataset`; made here, so that only who calls it needs Keras."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return EXAMPLES // BATCH

        def __getitem__(self, index):
            part = [Examples()[index * BATCH + i] for i in range(BATCH)]
            return tuple(map(np.stack, zip(*part, strict=True)))

    return Batches(**options)


def total(history):
    """What a worker makes of a history that it was handed."""
    return float(np.sum(history["global_norm"]))
