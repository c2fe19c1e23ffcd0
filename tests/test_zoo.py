"""Every kernel of every model of the zoo has a place, a role and an initializer."""

import math

import applications
import keras
import numpy as np
import pytest
from zoo import ZOO, built, without_draws

from keras_initlab import recommend
from keras_initlab.inspection import Merge, inspect
from keras_initlab.inspection._records import ROLES

# Trainable, of several axes, and yet no kernels: they scale a unit each.
SCALES = {"convnext": {"block1/scale", "block2/scale"}}

# Written from the models' code. Columns: kernel, role, activation, normalization,
# depth, number of the residual branch it closes, what it reads ("…": what was summed
# before).
STRUCTURE = {
    "GatedResidualNetwork": """
        up    | hidden          | elu     | - | 1 | - | input
        skip  | shortcut        | linear  | - | 1 | - | input
        down  | hidden          | linear  | - | 2 | - | up
        value | residual branch | linear  | - | 3 | 0 | down
        gate  | gate            | sigmoid | - | 3 | - | down
        head  | output          | linear  | - | 4 | - | skip + …
    """,
    "SubclassedResNet": """
        stem            | hidden          | relu | BatchNormalization | 1 | - | input
        blocks.0.first  | hidden          | relu | BatchNormalization | 2 | - | stem
        blocks.0.second | residual branch | relu | BatchNormalization | 3 | 0
            | blocks.0.first
        blocks.1.first  | hidden          | relu | BatchNormalization | 4 | -
            | blocks.0.second + stem
        blocks.1.second | residual branch | relu | BatchNormalization | 5 | 1
            | blocks.1.first
        blocks.1.project | shortcut       | relu | -                  | 4 | -
            | blocks.0.second + stem
        blocks.2.first  | hidden          | relu | BatchNormalization | 6 | -
            | blocks.1.project + blocks.1.second
        blocks.2.second | residual branch | relu | BatchNormalization | 7 | 2
            | blocks.2.first
        head            | output          | linear | - | 8 | - | blocks.2.second + …
    """,
    "unet": """
        down0a | hidden | relu    | - | 1  | - | input
        down0b | hidden | relu    | - | 2  | - | down0a
        down1a | hidden | relu    | - | 3  | - | down0b
        down1b | hidden | relu    | - | 4  | - | down1a
        bottom | hidden | relu    | - | 5  | - | down1b
        up1    | hidden | linear  | - | 6  | - | bottom
        up1a   | hidden | relu    | - | 7  | - | down1b + up1
        up0    | hidden | linear  | - | 8  | - | up1a
        up0a   | hidden | relu    | - | 9  | - | down0b + up0
        mask   | output | softmax | - | 10 | - | up0a
    """,
    "wavenet": """
        stem      | hidden          | linear  | - | 1 | - | input
        value1    | hidden          | tanh    | - | 2 | - | stem
        gate1     | gate            | sigmoid | - | 2 | - | stem
        skip1     | hidden          | relu    | - | 3 | - | gate1 + value1
        residual1 | residual branch | linear  | - | 3 | 0 | gate1 + value1
        value2    | hidden          | tanh    | - | 4 | - | residual1 + stem
        gate2     | gate            | sigmoid | - | 4 | - | residual1 + stem
        skip2     | hidden          | relu    | - | 5 | - | gate2 + value2
        residual2 | residual branch | linear  | - | 5 | 1 | gate2 + value2
        value4    | hidden          | tanh    | - | 6 | - | residual2 + …
        gate4     | gate            | sigmoid | - | 6 | - | residual2 + …
        skip4     | hidden          | relu    | - | 7 | - | gate4 + value4
        post      | hidden          | relu    | - | 8 | - | skip1 + skip2 + skip4
        out       | output          | linear  | - | 9 | - | post
    """,
    "mobile_inverted_residual": """
        stem       | hidden          | relu    | BatchNormalization | 1 | - | input
        expand0    | hidden          | relu    | BatchNormalization | 2 | - | stem
        depthwise0 | hidden          | relu6   | BatchNormalization | 3 | - | expand0
        squeeze0   | hidden          | silu    | -                  | 4 | - | depthwise0
        excite0    | gate            | sigmoid | -                  | 5 | - | squeeze0
        project0   | residual branch | linear  | BatchNormalization | 6 | 0
            | depthwise0 + excite0
        expand1    | hidden          | relu    | BatchNormalization | 7 | -
            | project0 + stem
        depthwise1 | hidden          | relu6   | BatchNormalization | 8 | - | expand1
        squeeze1   | hidden          | silu    | -                  | 9 | - | depthwise1
        excite1    | gate            | sigmoid | -                  | 10 | - | squeeze1
        project1   | residual branch | linear  | BatchNormalization | 11 | 1
            | depthwise1 + excite1
        out        | output          | linear  | -                  | 12 | -
            | project1 + …
    """,
    "TiedAutoencoder": """
        outer | hidden | tanh | - | 1 | - | input
        inner | hidden | tanh | - | 2 | - | outer
    """,
    "VAE": """
        encoder.in1          | hidden | relu    | - | 1 | - | input
        encoder.hidden       | hidden | relu    | - | 2 | - | encoder.in1
        encoder.mean         | hidden | linear  | - | 3 | - | encoder.hidden
        encoder.log_variance | hidden | linear  | - | 3 | - | encoder.hidden
        decoder.spread       | hidden | relu    | - | 4 | -
            | encoder.log_variance + encoder.mean
        decoder.up           | hidden | relu    | - | 5 | - | decoder.spread
        decoder.image        | output | sigmoid | - | 6 | - | decoder.up
    """,
    "GAN": """
        generator.0     | hidden | relu       | BatchNormalization | 1 | - | input
        generator.4     | hidden | relu       | - | 2 | - | generator.0
        generator.5     | output | tanh       | - | 3 | - | generator.4
        discriminator.0 | hidden | leaky_relu | - | 1 | - | input
        discriminator.2 | hidden | leaky_relu | - | 2 | - | discriminator.0
        discriminator.5 | output | linear     | - | 3 | - | discriminator.2
    """,
    "cnn_lstm": """
        frames.layer.0 | hidden          | relu    | - | 1 | - | input
        frames.layer.1 | hidden          | relu    | - | 2 | - | frames.layer.0
        memory.cell:kernel           | recurrent input | tanh | - | 3 | -
            | frames.layer.1
        memory.cell:recurrent_kernel | recurrent       | tanh | - | 3 | -
            | frames.layer.1
        out            | output          | softmax | - | 4 | -
            | memory.cell:recurrent_kernel
    """,
    "encoder_decoder_rnn": """
        source_words | embedding | linear | - | 1 | - | input
        target_words | embedding | linear | - | 1 | - | input
        encoder.cell:kernel           | recurrent input | tanh | - | 2 | -
            | source_words
        encoder.cell:recurrent_kernel | recurrent       | tanh | - | 2 | -
            | source_words
        decoder.cell:kernel           | recurrent input | tanh | - | 3 | -
            | target_words
        decoder.cell:recurrent_kernel | recurrent       | tanh | - | 3 | -
            | encoder.cell:recurrent_kernel + target_words
        out | output | softmax | - | 4 | - | decoder.cell:recurrent_kernel
    """,
    "transformer_encoder": """
        embedding.words  | embedding | linear | - | 1 | - | input
        embedding.places | embedding | linear | - | 1 | - | -
        block1.attention.query | query | linear | - | 2 | -
            | embedding.places + embedding.words
        block1.attention.key   | key   | linear | - | 2 | -
            | embedding.places + embedding.words
        block1.attention.value | value | linear | - | 2 | -
            | embedding.places + embedding.words
        block1.attention.attention_output | attention output | linear | - | 2 | 0
            | block1.attention.value
        block1.network.0 | hidden          | gelu   | - | 3 | -
            | block1.attention.attention_output + …
        block1.network.1 | residual branch | linear | - | 4 | 1 | block1.network.0
        block2.attention.query | query | linear | - | 5 | - | block1.network.1 + …
        block2.attention.key   | key   | linear | - | 5 | - | block1.network.1 + …
        block2.attention.value | value | linear | - | 5 | - | block1.network.1 + …
        block2.attention.attention_output | attention output | linear | - | 5 | 2
            | block2.attention.value
        block2.network.0 | hidden          | gelu   | - | 6 | -
            | block2.attention.attention_output + …
        block2.network.1 | residual branch | linear | - | 7 | 3 | block2.network.0
        out | output | softmax | - | 8 | - | block2.network.1 + …
    """,
    "SubclassedGPT": """
        words  | embedding | linear | - | 1 | - | input
        places | embedding | linear | - | 1 | - | -
        blocks.0.attention.query | query | linear | - | 2 | - | places + words
        blocks.0.attention.key   | key   | linear | - | 2 | - | places + words
        blocks.0.attention.value | value | linear | - | 2 | - | places + words
        blocks.0.attention.attention_output | attention output | linear | - | 2 | 0
            | blocks.0.attention.value
        blocks.0.up   | hidden          | linear | - | 3 | -
            | blocks.0.attention.attention_output + …
        blocks.0.gate | gate            | silu   | - | 3 | -
            | blocks.0.attention.attention_output + …
        blocks.0.down | residual branch | linear | - | 4 | 1
            | blocks.0.gate + blocks.0.up
        blocks.1.attention.query | query | linear | - | 5 | - | blocks.0.down + …
        blocks.1.attention.key   | key   | linear | - | 5 | - | blocks.0.down + …
        blocks.1.attention.value | value | linear | - | 5 | - | blocks.0.down + …
        blocks.1.attention.attention_output | attention output | linear | - | 5 | 2
            | blocks.1.attention.value
        blocks.1.up   | hidden          | linear | - | 6 | -
            | blocks.1.attention.attention_output + …
        blocks.1.gate | gate            | silu   | - | 6 | -
            | blocks.1.attention.attention_output + …
        blocks.1.down | residual branch | linear | - | 7 | 3
            | blocks.1.gate + blocks.1.up
    """,
    "vision_transformer": """
        patches.project | hidden    | linear | - | 1 | - | input
        patches:token   | embedding | linear | - | 1 | - | -
        patches:places  | embedding | linear | - | 1 | - | -
        block0.attention.query | query | linear | - | 2 | - | patches:places + …
        block0.attention.key   | key   | linear | - | 2 | - | patches:places + …
        block0.attention.value | value | linear | - | 2 | - | patches:places + …
        block0.attention.attention_output | attention output | linear | - | 2 | 0
            | block0.attention.value
        block0.network.0 | hidden          | gelu   | - | 3 | -
            | block0.attention.attention_output + …
        block0.network.1 | residual branch | linear | - | 4 | 1 | block0.network.0
        block1.attention.query | query | linear | - | 5 | - | block0.network.1 + …
        block1.attention.key   | key   | linear | - | 5 | - | block0.network.1 + …
        block1.attention.value | value | linear | - | 5 | - | block0.network.1 + …
        block1.attention.attention_output | attention output | linear | - | 5 | 2
            | block1.attention.value
        block1.network.0 | hidden          | gelu   | - | 6 | -
            | block1.attention.attention_output + …
        block1.network.1 | residual branch | linear | - | 7 | 3 | block1.network.0
        out | output | linear | - | 8 | - | block1.network.1 + …
    """,
    "MLPMixer": """
        patches             | hidden | linear | LayerNormalization | 1 | - | input
        blocks.0.tokens.0   | hidden          | gelu   | - | 2 | - | patches
        blocks.0.tokens.1   | residual branch | linear | - | 3 | 0 | blocks.0.tokens.0
        blocks.0.channels.0 | hidden          | gelu   | - | 4 | -
            | blocks.0.tokens.1 + patches
        blocks.0.channels.1 | residual branch | linear | - | 5 | 1
            | blocks.0.channels.0
        blocks.1.tokens.0   | hidden          | gelu   | - | 6 | -
            | blocks.0.channels.1 + …
        blocks.1.tokens.1   | residual branch | linear | - | 7 | 2 | blocks.1.tokens.0
        blocks.1.channels.0 | hidden          | gelu   | - | 8 | -
            | blocks.1.tokens.1 + …
        blocks.1.channels.1 | residual branch | linear | - | 9 | 3
            | blocks.1.channels.0
        head | output | linear | - | 10 | - | blocks.1.channels.1 + …
    """,
    "RawExperts": """
        router | gate   | softmax | - | 1 | - | input
        :up    | hidden | relu    | - | 1 | - | input
        :down  | hidden | linear  | - | 2 | - | :up
        head   | output | linear  | - | 3 | - | :down + router
    """,
}


@pytest.fixture(autouse=True)
def _zeros(monkeypatch):
    without_draws(monkeypatch)


def parts_of(layer):
    """`{name: layer}` of what a layer holds, as one reaches it in its code."""
    if isinstance(layer, keras.Sequential):
        return {str(i): part for i, part in enumerate(layer.layers)}
    if hasattr(layer, "_nodes_by_depth"):
        return {part.name: part for part in layer.layers}
    parts = {part.name: part for part in layer._layers}
    modules = vars(layer).get("_modules", {})  # where PyTorch keeps them
    for attribute, value in {**vars(layer), **modules}.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        names = [attribute, *(f"{attribute}.{i}" for i in range(len(items)))]
        names = names[1:] if items is value else names[:1]
        if not attribute.startswith("_"):
            parts |= dict(zip(names, items, strict=True))
    return {name: p for name, p in parts.items() if isinstance(p, keras.Layer)}


def names_in(layer, prefix=""):
    found = {}
    for name, part in parts_of(layer).items():
        found |= {id(part): prefix + name, **names_in(part, f"{prefix}{name}.")}
    return found


def table(model):
    kernels = inspect(model).kernels
    names = names_in(model)
    layers = [id(kernel.layer) for kernel in kernels]

    def name(kernel):
        known = names.get(id(kernel.layer), "")
        is_only = layers.count(id(kernel.layer)) == 1 and known
        return known if is_only else f"{known}:{kernel.variable.name}"

    def source(edge, depth=0):
        if not isinstance(edge.source, Merge):
            return ["input" if edge.source is None else name(kernels[edge.source])]
        if depth:
            return ["…"]
        return [one for inner in edge.source.edges for one in source(inner, depth + 1)]

    def reads(kernel):
        found = {one for edge in kernel.edges for one in source(edge)}
        return " + ".join(sorted(found)) or "-"

    return [
        (
            name(kernel),
            kernel.role,
            kernel.activation_name,
            kernel.normalization or "-",
            str(kernel.depth),
            "-" if kernel.branch is None else str(kernel.branch),
            reads(kernel),
        )
        for kernel in kernels
    ]


def rows(text):
    lines = text.replace("\n            |", " |").splitlines()
    return [tuple(map(str.strip, line.split("|"))) for line in lines if line.strip()]


def matrices(model):
    """The trainable variables that could be kernels, by path."""
    return {
        variable.path
        for variable in model.trainable_variables
        if math.prod(variable.shape[:-1]) > 1 and "bias" not in variable.name
    }


def test_the_zoo_is_large():
    assert len(ZOO) >= 28


@pytest.mark.parametrize("name", ZOO)
def test_every_kernel_has_a_role_and_an_initializer(name):
    model = built(name)
    advice = recommend(model)
    found = {row.kernel.variable.path for row in advice}
    expected = matrices(model) - SCALES.get(name, set())
    assert found >= expected
    assert len(found - expected) == len([p for p in found if p.endswith("token")])
    assert len({row.path for row in advice}) == len(advice)
    for row in advice:
        assert row.role in ROLES
        assert isinstance(row.initializer, keras.initializers.Initializer)
        assert row.kernel.kernel.is_known
        assert "unknown" not in (row.role, row.activation)
        assert row.reason
        assert 0.3 <= row.confidence <= 1


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name):
    # Which of two parallel kernels comes first is nothing to rely on.
    assert sorted(table(built(name))) == sorted(rows(STRUCTURE[name]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", [n for n, entry in ZOO.items() if entry.is_called])
def test_the_models_run(name):
    outputs = built(name)(ZOO[name].example())
    assert all(np.all(np.isfinite(one)) for one in keras.tree.flatten(outputs))


@pytest.mark.slow
def test_there_are_forty_applications():
    assert len(applications.NAMES) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", applications.NAMES)
def test_every_kernel_of_an_application_has_an_initializer(name):
    model = applications.build(name, classes=10)
    advice = recommend(model)
    assert {row.kernel.variable.path for row in advice} >= matrices(model)
    assert {row.role for row in advice} <= set(ROLES)
    assert all(row.initializer is not None for row in advice)
    assert all(row.kernel.kernel.is_known for row in advice)
