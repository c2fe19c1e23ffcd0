"""Which roles the weights of `testbed.py` have, by the papers of the architectures.

For each model a list of `(pattern, role)`: the first pattern that a weight's path
matches, as `fnmatch` does, says its role. Every trainable weight of two axes or more
matches one. `None` is for what is only added: a bias with an axis of heads, a table of
relative positions that is added to attention's scores; it must not be drawn. Vectors
are named where they could be taken for kernels. A tuple lists what a reader may call
it, the first first.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

# The projection after attention closes a branch, too.
ATTENDED = ("attention output", "residual branch")
# Kernels of several uses in one, whose outputs are split.
QUERY_KEY_VALUE = ("qkv", "hidden", "query", "key", "value")
GATE_AND_HIDDEN = ("hidden", "gate")
SCALE_SHIFT_GATE = ("gate", "hidden")
# A vector that is learned in the place of a token.
TOKEN = ("embedding", None)
# A tower's last kernel, after which only angles count.
PROJECTION = ("output", "hidden")

TABLES = [
    ("*token_embedding/embeddings", "embedding"),
    ("*position_embedding/embeddings", "embedding"),
    ("*segment_embedding/embeddings", "embedding"),
    ("*token_embedding/reverse_embeddings", "output"),
]
ATTENTION = [
    ("*attention*/query*/kernel", "query"),
    ("*attention*/key*/kernel", "key"),
    ("*attention*/value*/kernel", "value"),
    ("*attention*/attention_output/kernel", ATTENDED),
    ("*attention*/output_dense/kernel", ATTENDED),
    ("*attention*/query*/bias", None),
    ("*attention*/key*/bias", None),
    ("*attention*/value*/bias", None),
]
FEEDFORWARD = [
    ("*feedforward_intermediate_dense/kernel", "hidden"),
    ("*feedforward_output_dense/kernel", "residual branch"),
]
GATED = [("*feedforward_gate_dense/kernel", "gate"), *FEEDFORWARD]
TRANSFORMER = [*TABLES, *ATTENTION, *FEEDFORWARD]
GATED_TRANSFORMER = [*TABLES, *ATTENTION, *GATED]
ROUTER = [
    ("*/sparse_feedforward_gate_dense/kernel", "gate"),
    ("*/shared_expert_gate_dense/kernel", "gate"),
    ("*/router_dense/kernel", "gate"),
]
EXPERTS = [
    ("*/expert_feedforward_gate_dense", "gate"),
    ("*/expert_feedforward_intermediate_dense", "hidden"),
    ("*/expert_feedforward_output_dense", "residual branch"),
]
FUSED_EXPERTS = [
    ("*/expert_feedforward_gate_dense", GATE_AND_HIDDEN),
    ("*/experts/gate_up_proj", GATE_AND_HIDDEN),
    ("*/experts/down_proj", "residual branch"),
    ("*/experts/*_bias", None),
]
IMAGE_ATTENTION = [
    ("*/query/kernel", "query"),
    ("*/key/kernel", "key"),
    ("*/value/kernel", "value"),
    ("*/attention_output/kernel", ATTENDED),
    ("*/query/bias", None),
    ("*/key/bias", None),
    ("*/value/bias", None),
]

ROLES_OF = {
    "llama": GATED_TRANSFORMER,
    "gemma 2": [
        *TABLES,
        *ATTENTION,
        ("*/ffw_gating/kernel", "gate"),
        ("*/ffw_gating_2/kernel", "hidden"),
        ("*/ffw_linear/kernel", "residual branch"),
    ],
    "mixtral": [*ROUTER, *EXPERTS, *TABLES, *ATTENTION],
    "qwen moe": [*ROUTER, FUSED_EXPERTS[0], EXPERTS[2], *GATED_TRANSFORMER],
    "gpt oss": [("*/sinks", None), *ROUTER, *FUSED_EXPERTS, *TABLES, *ATTENTION],
    "phi 3": GATED_TRANSFORMER,
    "gpt 2": TRANSFORMER,
    "bloom": [
        *TABLES,
        *ATTENTION,
        ("*/mlp_intermediate_dense/kernel", "hidden"),
        ("*/mlp_output_dense/kernel", "residual branch"),
    ],
    # Attention and perceptron side by side on one norm, and added to one sum.
    "falcon": [
        *TABLES,
        *ATTENTION,
        ("*/dense_h_to_4h/kernel", "hidden"),
        ("*/dense_4h_to_h/kernel", "residual branch"),
    ],
    "bert classifier": [
        *TRANSFORMER,
        ("pooled_dense/kernel", "hidden"),
        ("logits/kernel", "output"),
    ],
    # The tied table is looked up and turned into logits.
    "albert masked": [
        ("embedding_projection/kernel", "hidden"),
        ("mlm_head/intermediate_dense/kernel", "hidden"),
        *TRANSFORMER,
        ("pooled_dense/kernel", PROJECTION),  # nothing reads it here
    ],
    "deberta masked": [
        ("rel_embedding/rel_embedding", "embedding"),
        ("mlm_head/intermediate_dense/kernel", "hidden"),
        *TRANSFORMER,
    ],
    "bart": TRANSFORMER,
    # What the activation is applied to is called the input here, not the gate.
    "t5 gated": [
        ("*self_attention/embeddings", None),
        ("*attention/query_projector/kernel", "query"),
        ("*attention/key_projector/kernel", "key"),
        ("*attention/value_projector/kernel", "value"),
        ("*attention/output_projector/kernel", ATTENDED),
        ("*/input_projector/kernel", "gate"),
        ("*/gate_projector/kernel", "hidden"),
        ("*/output_projector/kernel", "residual branch"),
        *TABLES,
    ],
    "fnet classifier": [
        *TABLES,
        ("embedding_projection/kernel", "hidden"),
        ("*/intermediate_dense/kernel", "hidden"),
        ("*/output_dense/kernel", "residual branch"),
        ("pooled_dense/kernel", "hidden"),
        ("logits/kernel", "output"),
    ],
    "vit": [
        ("*/class_token", TOKEN),
        *TABLES,
        ("*/patch_embedding/kernel", "hidden"),
        *IMAGE_ATTENTION,
        ("*/mlp/dense_1/kernel", "hidden"),
        ("*/mlp/dense_2/kernel", "residual branch"),
        ("predictions/kernel", "output"),
    ],
    "swin": [
        ("patch_embedding/conv_projection/kernel", "hidden"),
        ("*/relative_position_bias_table", None),
        ("*/attn/attention_qkv/kernel", QUERY_KEY_VALUE),
        ("*/attn/attention_projection/kernel", ATTENDED),
        ("*/mlp/fc1/kernel", "hidden"),
        ("*/mlp/fc2/kernel", "residual branch"),
        ("*/downsample/reduction/kernel", "hidden"),
    ],
    "dino v2": [
        ("embeddings/*_token*", TOKEN),
        ("embeddings/interpolated_position_embeddings", "embedding"),
        ("embeddings/patch_embeddings/projection/kernel", "hidden"),
        *IMAGE_ATTENTION,
        ("*/mlp/weights_in/kernel", GATE_AND_HIDDEN),
        ("*/mlp/weights_out/kernel", "residual branch"),
    ],
    "resnet": [
        ("conv1_conv/kernel", "hidden"),
        ("*_0_conv/kernel", "shortcut"),
        ("*_1_conv/kernel", "hidden"),
        ("*_2_conv/kernel", "residual branch"),
        ("predictions/kernel", "output"),
    ],
    # A block has a shortcut if it keeps the number of units and pixels.
    "mobilenet v3": [
        ("*conv_reduce/kernel", "hidden"),
        ("*conv_expand/kernel", "gate"),
        ("*block_1_1_conv3/kernel", "residual branch"),
        ("*block_2_[12]_conv3/kernel", "residual branch"),
        ("*block_3_1_conv3/kernel", "residual branch"),
        ("block_*/*conv*/kernel", "hidden"),
        ("input_conv/kernel", "hidden"),
        ("classifier_conv/kernel", "hidden"),
        ("predictions/kernel", "output"),
    ],
    "kimm convnext": [
        ("*_conv2d/kernel", "hidden"),
        ("*_dwconv2d/kernel", "hidden"),
        ("*_mlp_fc1/kernel", "hidden"),
        ("*_mlp_fc2/kernel", "residual branch"),
        ("classifier/kernel", "output"),
    ],
    "vgg": [
        ("block*/kernel", "hidden"),
        ("head/fc*/kernel", "hidden"),
        ("head/predictions/kernel", "output"),
    ],
    "whisper": [("*_conv_layer_*/kernel", "hidden"), *TRANSFORMER],
    "clip": [
        ("*/class_embedding", TOKEN),
        ("*/patch_embedding/kernel", "hidden"),
        *TABLES,
        *ATTENTION,
        ("*/dense_1/kernel", "hidden"),
        ("*/dense_2/kernel", "residual branch"),
        ("*_projection/kernel", PROJECTION),
    ],
    "mmdit": [
        *TABLES,
        ("patch_embedding/patch_embedding/kernel", "hidden"),
        ("timestep_embedding/*/kernel", "hidden"),
        ("vector_embedding/*/kernel", "hidden"),
        ("context_embedding/kernel", "hidden"),
        ("*ada_layer_norm/dense/kernel", SCALE_SHIFT_GATE),
        ("*/attention_qkv/kernel", QUERY_KEY_VALUE),
        ("*/attention_proj/kernel", ATTENDED),
        ("*/mlp/dense1/kernel", "hidden"),
        ("*/mlp/dense2/kernel", "residual branch"),
        ("output_dense/kernel", "output"),
    ],
    "dlrm": [
        ("table_*/embeddings", "embedding"),
        ("bottom_*/kernel", "hidden"),
        ("top_*/kernel", "hidden"),
        ("click/kernel", "output"),
    ],
    # x₀ · (W x + b) + x: the branch is multiplied by the model's input.
    "deep and cross": [
        ("table_*/embeddings", "embedding"),
        ("cross_0/*/kernel", "residual branch"),
        ("cross_1/*/kernel", ("residual branch", "hidden")),  # up and down
        ("deep_*/kernel", "hidden"),
        ("click/kernel", "output"),
    ],
    "tcn": [
        ("*/matching_conv1D/kernel", "shortcut"),
        ("*/conv1D_0/kernel", "hidden"),
        ("*/conv1D_1/kernel", "residual branch"),
        ("forecast/kernel", "output"),
    ],
}


def role_of(model, path):
    """The role of a weight, or a tuple of roles; `KeyError` if no pattern matches."""
    for pattern, role in ROLES_OF[model]:
        if fnmatchcase(path, pattern):
            return role
    raise KeyError(f"No pattern matches. Received: {path!r} of {model!r}.")


def is_expected(model, path, role):
    """Whether a role, None for a weight that is not drawn, is one of the expected."""
    expected = role_of(model, path)
    return role in expected if isinstance(expected, tuple) else role == expected
