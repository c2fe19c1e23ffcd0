"""Models of other libraries, none of them written for this project.

Every row is a model that people train, in a small random configuration: a width of 32
to 64, a few blocks, images of at most 64 pixels. `make` builds it without a download,
`inputs` makes what it takes: token ids drawn evenly, everything else from N(0, 1).
The libraries are imported when a model is made, so that the table can be read without
them.

    from testbed import TESTBED
    model = TESTBED["llama"].make()
    model(TESTBED["llama"].inputs())
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

BACKENDS = ("tensorflow", "jax", "torch")
BATCH = 16
VOCABULARY = 100
LENGTH = 12
SIDE = 64
IMAGE = (SIDE, SIDE, 3)
CLASSES = 10


@dataclass(frozen=True)
class Foreign:
    """A model that another library builds.

    Attributes:
        name: its name in the table.
        make: builds it from random weights.
        inputs: makes a batch for it: an array, or a list or dict of arrays.
        kind: "text/body", "text/causal language model", "image/classifier", ….
        library: the module that it needs.
        vocabulary: for a language model that returns logits, over how many tokens.
        backends: those that it runs on.
    """

    name: str
    make: Callable[[], Any]
    inputs: Callable[[], Any]
    kind: str
    library: str = "keras_hub"
    vocabulary: int | None = None
    backends: tuple[str, ...] = BACKENDS

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.library) is not None

    @property
    def is_possible(self) -> bool:
        """Whether its library is there and runs on the backend."""
        return self.is_installed and keras.backend.backend() in self.backends


TESTBED: dict[str, Foreign] = {}


def add(name, make, inputs, kind, **options):
    if name in TESTBED:
        raise ValueError(f"Names must differ. Received: {name!r} twice.")
    TESTBED[name] = Foreign(name, make, inputs, kind, **options)


# ---- inputs ---------------------------------------------------------------------


def normal(*shape):
    return np.random.default_rng(0).normal(size=(BATCH, *shape)).astype("float32")


def ids(length=LENGTH, most=VOCABULARY, seed=0):
    tokens = np.random.default_rng(seed).integers(0, most, (BATCH, length))
    return tokens.astype("int32")


def images():
    return normal(*IMAGE)


def tokens():
    return {"token_ids": ids(), "padding_mask": np.ones((BATCH, LENGTH), "int32")}


def segments():
    return {**tokens(), "segment_ids": ids(most=2)}


def two_texts():
    texts = {"encoder": ids(seed=1), "decoder": ids(seed=2)}
    mask = np.ones((BATCH, LENGTH), "int32")
    named = {f"{side}_token_ids": text for side, text in texts.items()}
    return {**named, **{f"{side}_padding_mask": mask for side in texts}}


def masked(inputs):
    """Inputs of a masked language model, which is asked for three places of each."""
    places = np.tile(np.array([1, 4, 7], "int32"), (BATCH, 1))
    return lambda: {**inputs(), "mask_positions": places}


# ---- keras-hub: language --------------------------------------------------------


def hub(name, /, **kwargs):
    """What keras-hub calls so."""
    return getattr(importlib.import_module("keras_hub.models"), name)(**kwargs)


def hub_source(module, name, /, **kwargs):
    """What a module of keras-hub's source calls so, where it has no public name."""
    source = importlib.import_module(f"keras_hub.src.models.{module}")
    return getattr(source, name)(**kwargs)


def body(name, **arguments):
    return lambda: hub(f"{name}Backbone", **arguments)


def task(name, what, arguments, **options):
    """A task's model on a backbone, without what reads text or images from files."""
    make = body(name, **arguments)
    return lambda: hub(f"{name}{what}", backbone=make(), preprocessor=None, **options)


WORDS = {"vocabulary_size": VOCABULARY, "num_layers": 2}
PLAIN = {**WORDS, "num_heads": 4, "hidden_dim": 64, "intermediate_dim": 128}
PLACED = {**PLAIN, "max_sequence_length": LENGTH}
GROUPED = {
    **WORDS,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 64,
    "intermediate_dim": 128,
}
EXPERTS = {"num_experts": 4, "top_k": 2}
GEMMA = {**GROUPED, "head_dim": 16}
CAPPED = {
    "attention_logit_soft_cap": 50.0,
    "final_logit_soft_cap": 30.0,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 8,
}
GEMMA3 = {
    **GEMMA,
    "image_size": None,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 8,
}
SPARSE_QWEN = {
    **GROUPED,
    **EXPERTS,
    "moe_intermediate_dim": 64,
    "norm_top_k_prob": True,
}
SMOLLM3 = {
    **WORDS,
    "hidden_dim": 64,
    "intermediate_dim": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["attention", "attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
}
FALCON = {
    **WORDS,
    "num_attention_heads": 4,
    "hidden_dim": 64,
    "intermediate_dim": 128,
}

CAUSAL = {
    "llama": ("Llama", GROUPED),
    "llama 3": ("Llama3", {**GROUPED, "tie_word_embeddings": True}),
    "gemma": ("Gemma", {**GEMMA, "num_key_value_heads": 1}),
    "gemma 2": ("Gemma", {**GEMMA, **CAPPED}),
    "gemma 3": ("Gemma3", GEMMA3),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 8}),
    "mixtral": ("Mixtral", {**GROUPED, **EXPERTS, "sliding_window": 8}),
    "phi 3": ("Phi3", GROUPED),
    "qwen": ("Qwen", GROUPED),
    "qwen 3": ("Qwen3", {**GROUPED, "head_dim": 16}),
    "qwen moe": ("QwenMoe", {**SPARSE_QWEN, "shared_expert_intermediate_dim": 64}),
    "qwen 3 moe": ("Qwen3Moe", {**SPARSE_QWEN, "head_dim": 16}),
    "gpt 2": ("GPT2", PLACED),
    "gpt neox": ("GPTNeoX", PLACED),
    "opt": ("OPT", PLACED),
    "bloom": ("Bloom", PLAIN),
    "falcon": ("Falcon", FALCON),
    "gpt oss": ("GptOss", {**GROUPED, **EXPERTS, "sliding_window": 8}),
    "smollm 3": ("SmolLM3", SMOLLM3),
}
for name, (family, arguments) in CAUSAL.items():
    add(
        name,
        task(family, "CausalLM", arguments),
        tokens,
        "text/causal language model",
        vocabulary=VOCABULARY,
    )

ALBERT = {**PLACED, "embedding_dim": 32}
FNET = {key: value for key, value in PLACED.items() if key != "num_heads"}
MASKED = {
    "bert masked": ("Bert", PLACED, segments),
    "albert masked": ("Albert", ALBERT, segments),
    "distilbert masked": ("DistilBert", PLACED, tokens),
    "deberta masked": ("DebertaV3", PLACED, tokens),
}
for name, (family, arguments, inputs) in MASKED.items():
    add(
        name,
        task(family, "MaskedLM", arguments),
        masked(inputs),
        "text/masked language model",
        vocabulary=VOCABULARY,
    )


def whole_segments():
    """For models that know no padding."""
    return {"token_ids": ids(), "segment_ids": ids(most=2)}


CLASSIFIED = {
    "bert classifier": ("Bert", PLACED, segments),
    "roberta classifier": ("Roberta", PLACED, tokens),
    "deberta classifier": ("DebertaV3", PLACED, tokens),
    "fnet classifier": ("FNet", FNET, whole_segments),
}
for name, (family, arguments, inputs) in CLASSIFIED.items():
    make = task(family, "TextClassifier", arguments, num_classes=CLASSES)
    add(name, make, inputs, "text/classifier")

ELECTRA = {key: size for key, size in ALBERT.items() if key != "vocabulary_size"}
RWKV = {
    **WORDS,
    "hidden_size": 64,
    "head_size": 16,
    "intermediate_dim": 128,
    "gate_lora": 32,
    "mv_lora": 16,
    "aaa_lora": 16,
    "decay_lora": 16,
}
add("electra", body("Electra", vocab_size=VOCABULARY, **ELECTRA), segments, "text/body")
add("xlnet", body("XLNet", **PLAIN), segments, "text/body")
add("esm", body("ESM", **PLAIN), lambda: {"token_ids": ids()}, "text/body")
add("t5", body("T5", **PLAIN), two_texts, "text/encoder and decoder")
add(
    "t5 gated",
    body("T5", **PLAIN, activation="gelu", use_gated_activation=True),
    two_texts,
    "text/encoder and decoder",
)
add(
    "bart",
    task("Bart", "Seq2SeqLM", PLACED),
    two_texts,
    "text/sequence to sequence",
    vocabulary=VOCABULARY,
)
add(
    "rwkv 7",
    body("RWKV7", **RWKV),
    lambda: {"token_ids": ids(16), "padding_mask": np.ones((BATCH, 16), "int32")},
    "text/causal language model",
    vocabulary=VOCABULARY,
)


# ---- keras-hub: images ----------------------------------------------------------

RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 64, 64],
    "stackwise_num_blocks": [2, 2, 2],
    "stackwise_num_strides": [1, 2, 2],
    "block_type": "basic_block",
    "use_pre_activation": False,
    "image_shape": IMAGE,
}
DEEP_STEM = {
    "input_conv_filters": [16, 32, 64],
    "input_conv_kernel_sizes": [3, 3, 3],
    "block_type": "bottleneck_block_vd",
}
VIT = {
    "image_shape": IMAGE,
    "patch_size": (8, 8),
    "num_layers": 3,
    "hidden_dim": 48,
    "num_heads": 6,
    "mlp_dim": 96,
}
DEIT = {
    "image_shape": IMAGE,
    "patch_size": 8,
    "num_layers": 3,
    "hidden_dim": 48,
    "num_heads": 6,
    "intermediate_dim": 96,
}
DINO = {
    **DEIT,
    "layer_scale_init_value": 1.0,
    "num_register_tokens": 2,
    "use_swiglu_ffn": True,
}
SWIN = {
    "image_shape": (32, 32, 3),
    "embed_dim": 32,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,
}
MIT = {
    "layerwise_depths": [2, 2],
    "image_shape": IMAGE,
    "hidden_dims": [32, 64],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [8, 4],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 3, 3, 5],
    "stackwise_num_repeats": [1, 2, 2, 2],
    "stackwise_input_filters": [24, 24, 32, 48],
    "stackwise_output_filters": [24, 32, 48, 64],
    "stackwise_expansion_ratios": [1, 4, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2, 1],
    "stackwise_block_types": ["fused", "fused", "unfused", "unfused"],
    "stackwise_force_input_filters": [0] * 4,
    "stackwise_nores_option": [False] * 4,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "image_shape": IMAGE,
}
MOBILENET = {
    "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72]],
    "stackwise_num_blocks": [2, 3, 2],
    "stackwise_num_filters": [[16, 16], [24, 24, 24], [48, 48]],
    "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25, 0.25], [0.25, 0.25]],
    "stackwise_activation": [
        ["relu", "relu"],
        ["hard_swish", "hard_swish", "hard_swish"],
        ["hard_swish", "hard_swish"],
        ["hard_swish"],
    ],
    "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2]],
    "output_num_filters": 128,
    "input_activation": "hard_swish",
    "output_activation": "hard_swish",
    "input_num_filters": 16,
    "image_shape": IMAGE,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "squeeze_and_excite": 0.5,
    "last_layer_filter": 96,
}
MOBILENET5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2, 2],
    "stackwise_num_filters": [[24], [48, 48], [64, 64]],
    "stackwise_strides": [[2], [2, 1], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[4.0], [6.0, 6.0], [4.0, 1.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 5], [5, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0], [5, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0], [0, 4]],
    "stackwise_key_dims": [[0], [0, 0], [0, 16]],
    "stackwise_value_dims": [[0], [0, 0], [0, 16]],
    "stackwise_kv_strides": [[0], [0, 0], [0, 1]],
    "stackwise_use_cpe": [[False], [False, False], [False, False]],
    "image_shape": IMAGE,
    "stem_size": 16,
    "use_msfa": False,
}
DENSENET = {
    "stackwise_num_repeats": [2, 4, 4],
    "compression_ratio": 0.5,
    "growth_rate": 16,
    "image_shape": IMAGE,
}
CSPNET = {
    "stem_filters": 32,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stackwise_strides": 2,
    "stackwise_depth": [1, 2, 3],
    "stackwise_num_filters": [16, 24, 48],
    "image_shape": IMAGE,
    "down_growth": True,
    "bottle_ratio": (0.5, 1.0),
    "block_ratio": (1.0, 0.5),
    "expand_ratio": (2.0, 1.0),
    "block_type": "dark_block",
    "stage_type": "csp",
    "stem_padding": "same",
}
VGG = {
    "stackwise_num_repeats": [2, 2, 2],
    "stackwise_num_filters": [16, 32, 64],
    "image_shape": (32, 32, 3),
}
XCEPTION = {
    "stackwise_conv_filters": [[16, 32], [64, 64], [64, 64], [96, 128]],
    "stackwise_pooling": [False, True, False, False],
    "image_shape": IMAGE,
}
HGNET = {
    "embedding_size": 32,
    "stem_channels": [3, 16, 32],
    "hidden_act": "relu",
    "use_learnable_affine_block": False,
    "image_shape": IMAGE,
    "depths": [1, 1],
    "hidden_sizes": [64, 64],
    "stackwise_stage_filters": [[32, 16, 64, 1, 2, 3], [64, 32, 64, 1, 2, 3]],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
}


def small_images():
    return normal(32, 32, 3)


IMAGE_CLASSIFIERS = {
    "resnet": ("ResNet", RESNET),
    "resnet v2": ("ResNet", {**RESNET, "use_pre_activation": True}),
    "resnet vd": ("ResNet", {**RESNET, **DEEP_STEM}),
    "vit": ("ViT", VIT),
    "deit": ("DeiT", DEIT),
    "mit": ("MiT", MIT),
    "efficientnet": ("EfficientNet", EFFICIENTNET),
    "mobilenet v3": ("MobileNet", MOBILENET),
    "mobilenet v5": ("MobileNetV5", MOBILENET5),
    "densenet": ("DenseNet", DENSENET),
    "cspdarknet": ("CSPNet", CSPNET),
    "xception": ("Xception", XCEPTION),
    "hgnet v2": ("HGNetV2", HGNET),
}
for name, (family, arguments) in IMAGE_CLASSIFIERS.items():
    make = task(family, "ImageClassifier", arguments, num_classes=CLASSES)
    add(name, make, images, "image/classifier")
add(
    "vgg",
    task(
        "VGG",
        "ImageClassifier",
        VGG,
        num_classes=CLASSES,
        pooling="flatten",
        pooling_hidden_dim=128,
    ),
    small_images,
    "image/classifier",
)
add("swin", body("SwinTransformer", **SWIN), small_images, "image/body")
add("dino v2", body("DINOV2", **DINO), lambda: {"images": images()}, "image/body")


def segformer():
    encoder = hub("MiTBackbone", **MIT)
    backbone = hub("SegFormerBackbone", image_encoder=encoder, projection_filters=64)
    return hub("SegFormerImageSegmenter", backbone=backbone, num_classes=CLASSES)


def deeplab():
    backbone = hub(
        "DeepLabV3Backbone",
        image_encoder=hub("ResNetBackbone", **RESNET),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[1, 2, 3],
        upsampling_size=4,
        projection_filters=32,
        spatial_pyramid_pooling_filters=64,
        image_shape=IMAGE,
    )
    return hub(
        "DeepLabV3ImageSegmenter",
        backbone=backbone,
        num_classes=CLASSES,
        preprocessor=None,
    )


def retinanet():
    backbone = hub(
        "RetinaNetBackbone",
        image_encoder=hub("ResNetBackbone", **RESNET),
        min_level=3,
        max_level=4,
        use_p5=False,
        image_shape=IMAGE,
    )
    anchors = importlib.import_module("keras_hub.layers").AnchorGenerator(
        bounding_box_format="yxyx",
        min_level=3,
        max_level=4,
        num_scales=3,
        aspect_ratios=[0.5, 1.0, 2.0],
        anchor_size=4,
    )
    encoder = hub_source(
        "retinanet.retinanet_label_encoder",
        "RetinaNetLabelEncoder",
        bounding_box_format="yxyx",
        anchor_generator=anchors,
    )
    return hub(
        "RetinaNetObjectDetector",
        backbone=backbone,
        anchor_generator=anchors,
        label_encoder=encoder,
        num_classes=CLASSES,
        bounding_box_format="yxyx",
        preprocessor=None,
    )


def d_fine():
    encoder = hub(
        "HGNetV2Backbone",
        stem_channels=[3, 16, 16],
        stackwise_stage_filters=[[16, 16, 32, 1, 1, 3], [32, 16, 64, 1, 1, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        depths=[1, 1],
        hidden_sizes=[32, 64],
        embedding_size=16,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=(None, None, 3),
        out_features=["stage1", "stage2"],
    )
    return hub(
        "DFineBackbone",
        backbone=encoder,
        decoder_in_channels=[32, 32],
        encoder_hidden_dim=32,
        num_denoising=10,
        num_labels=4,
        hidden_dim=32,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=(SIDE, SIDE),
        feat_strides=[4, 8],
        num_feature_levels=2,
        encoder_in_channels=[32, 64],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=64,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=16,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        image_shape=(None, None, 3),
        seed=0,
    )


def sam():
    encoder = hub(
        "ViTDetBackbone",
        hidden_size=32,
        num_layers=3,
        intermediate_dim=64,
        num_heads=4,
        global_attention_layer_indices=[2],
        patch_size=16,
        num_output_channels=32,
        window_size=2,
        image_shape=IMAGE,
    )
    prompts = importlib.import_module("keras_hub.layers").SAMPromptEncoder(
        hidden_size=32,
        image_embedding_size=(4, 4),
        input_image_size=(SIDE, SIDE),
        mask_in_channels=16,
    )
    masks = importlib.import_module("keras_hub.layers").SAMMaskDecoder(
        num_layers=2,
        hidden_size=32,
        intermediate_dim=64,
        num_heads=4,
        embedding_dim=32,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=32,
    )
    backbone = hub(
        "SAMBackbone", image_encoder=encoder, prompt_encoder=prompts, mask_decoder=masks
    )
    return hub("SAMImageSegmenter", backbone=backbone)


def sam_inputs():
    boxes = np.tile(np.array([[[8, 8], [40, 48]]], "float32"), (BATCH, 1, 1, 1))
    return {
        "images": images(),
        "points": np.abs(normal(1, 2)) * 16,
        "labels": np.ones((BATCH, 1), "float32"),
        "boxes": boxes,
        "masks": np.zeros((BATCH, 0, 16, 16, 1), "float32"),
    }


add("segformer", segformer, images, "image/segmenter")
add("deeplab v3", deeplab, images, "image/segmenter")
add("retinanet", retinanet, images, "image/detector")
add("d-fine", d_fine, images, "image/detector")
add("sam", sam, sam_inputs, "image/segmenter")


# ---- keras-hub: sound, several kinds of inputs, diffusion -----------------------

WHISPER = {
    **PLAIN,
    "max_encoder_sequence_length": 24,
    "max_decoder_sequence_length": LENGTH,
}
MOONSHINE = {
    "vocabulary_size": VOCABULARY,
    "filter_dim": 64,
    "encoder_num_layers": 2,
    "decoder_num_layers": 2,
    "hidden_dim": 64,
    "intermediate_dim": 128,
    "encoder_num_heads": 4,
    "decoder_num_heads": 4,
}
PALIGEMMA = {
    **GEMMA,
    "image_size": 32,
    "vit_patch_size": 8,
    "vit_num_layers": 2,
    "vit_num_heads": 4,
    "vit_hidden_dim": 64,
    "vit_intermediate_dim": 128,
}
VAE = {
    "encoder_num_filters": [32, 32, 64],
    "encoder_num_blocks": [1, 1, 1],
    "decoder_num_filters": [64, 32, 32],
    "decoder_num_blocks": [1, 1, 1],
    "sampler_method": "mode",
    "image_shape": (32, 32, 3),
}
FLUX = {
    "input_channels": 32,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 4,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [4, 6, 6],
    "theta": 10_000,
    "use_bias": True,
    "guidance_embed": True,
    "image_shape": (16, 32),
    "text_shape": (16, 32),
    "image_ids_shape": (16, 3),
    "text_ids_shape": (16, 3),
    "y_shape": (32,),
}


def whisper_inputs():
    return {
        "encoder_features": normal(24, 80),
        "decoder_token_ids": ids(),
        "decoder_padding_mask": np.ones((BATCH, LENGTH), "int32"),
    }


def moonshine_inputs():
    return {
        "encoder_input_values": normal(4000, 1),
        "decoder_token_ids": ids(),
        "encoder_padding_mask": np.ones((BATCH, 4000), "bool"),
        "decoder_padding_mask": np.ones((BATCH, LENGTH), "bool"),
    }


def towers(family, module, **options):
    """A model of an encoder of images beside one of texts."""

    def make():
        sizes = {
            "hidden_dim": 64,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_dim": 128,
        }
        eyes = hub_source(
            f"{module}.{module}_vision_encoder",
            f"{family}VisionEncoder",
            patch_size=8,
            image_shape=(32, 32, 3),
            name="vision_encoder",
            **sizes,
        )
        words = hub_source(
            f"{module}.{module}_text_encoder",
            f"{family}TextEncoder",
            vocabulary_size=VOCABULARY,
            embedding_dim=64,
            max_sequence_length=LENGTH,
            name="text_encoder",
            **sizes,
        )
        return hub(
            f"{family}Backbone", vision_encoder=eyes, text_encoder=words, **options
        )

    return make


def image_and_text():
    return {"images": small_images(), "token_ids": ids()}


def paligemma_inputs():
    return {
        "images": small_images(),
        **tokens(),
        "response_mask": np.zeros((BATCH, LENGTH), "int32"),
    }


def mmdit():
    return hub_source(
        "stable_diffusion_3.mmdit",
        "MMDiT",
        patch_size=2,
        hidden_dim=64,
        num_layers=2,
        num_heads=4,
        position_size=16,
        latent_shape=(16, 16, 16),
        context_shape=(LENGTH, 64),
        pooled_projection_shape=(32,),
        qk_norm="rms_norm",
    )


def mmdit_inputs():
    return {
        "latent": normal(16, 16, 16),
        "context": normal(LENGTH, 64),
        "pooled_projection": normal(32),
        "timestep": np.linspace(0, 1000, BATCH, dtype="float32")[:, None],
    }


def flux_inputs():
    places = np.zeros((BATCH, 16, 3), "float32")
    places[:, :, 1], places[:, :, 2] = np.arange(16) // 4, np.arange(16) % 4
    return {
        "image": normal(16, 32),
        "image_ids": places,
        "text": normal(16, 32),
        "text_ids": np.zeros((BATCH, 16, 3), "float32"),
        "y": normal(32),
        "timesteps": np.linspace(0, 1, BATCH, dtype="float32"),
        "guidance": np.full((BATCH,), 3.5, "float32"),
    }


add("whisper", body("Whisper", **WHISPER), whisper_inputs, "sound/encoder and decoder")
add(
    "moonshine",
    body("Moonshine", **MOONSHINE),
    moonshine_inputs,
    "sound/encoder and decoder",
)
add("clip", towers("CLIP", "clip", projection_dim=64), image_and_text, "several/towers")
add("siglip", towers("SigLIP", "siglip"), image_and_text, "several/towers")
add(
    "paligemma",
    task("PaliGemma", "CausalLM", PALIGEMMA),
    paligemma_inputs,
    "several/causal language model",
    vocabulary=VOCABULARY,
)
add(
    "vae",
    lambda: hub_source("vae.vae_backbone", "VAEBackbone", **VAE),
    small_images,
    "diffusion/autoencoder",
)
add("mmdit", mmdit, mmdit_inputs, "diffusion/transformer")
add(
    "flux",
    lambda: hub_source("flux.flux_model", "FluxBackbone", **FLUX),
    flux_inputs,
    "diffusion/transformer",
)


# ---- kimm -----------------------------------------------------------------------


def kimm(module, name, **options):
    """A model of kimm's, which reads images that are standardized already."""

    def make():
        source = importlib.import_module(f"kimm._src.models.{module}")
        return getattr(source, name)(
            input_shape=IMAGE,
            include_preprocessing=False,
            classes=CLASSES,
            weights=None,
            **options,
        )

    return make


FOUR_STAGES = {"depths": (2, 2, 2, 2), "hidden_channels": (32, 48, 64, 96)}
KIMM = {
    "convmixer": ("convmixer", "ConvMixer", {"depth": 4, "hidden_channels": 64}),
    "convnext": ("convnext", "ConvNeXt", FOUR_STAGES),
    "ghostnet": ("ghostnet", "GhostNetW050", {}),
    "inception next": ("inception_next", "InceptionNeXt", FOUR_STAGES),
    "lcnet": ("mobilenet_v3", "LCNet035", {}),
    "mobilevit": ("mobilevit", "MobileViTXXS", {}),
    "mobilevit v2": ("mobilevit", "MobileViTV2W050", {}),
    "repvgg": (
        "repvgg",
        "RepVGG",
        {"num_blocks": (1, 2, 2, 1), "num_channels": (32, 48, 64, 96)},
    ),
    "tinynet": ("efficientnet", "TinyNetE", {}),
    "vit": ("vision_transformer", "VisionTransformerTiny32", {}),
    "efficientnet lite": ("efficientnet", "EfficientNetLiteB0", {}),
    "regnet": ("regnet", "RegNetY002", {}),
}
for name, (module, model, options) in KIMM.items():
    make = kimm(module, model, **options)
    add(f"kimm {name}", make, images, "image/classifier", library="kimm")


# ---- Keras's own applications ---------------------------------------------------


def application(name, **options):
    def make():
        model = getattr(keras.applications, name)
        return model(input_shape=IMAGE, weights=None, classes=CLASSES, **options)

    return make


APPLICATIONS = {
    "application mobilenet v2": ("MobileNetV2", {"alpha": 0.35}),
    "application efficientnet v2": (
        "EfficientNetV2B0",
        {"include_preprocessing": False},
    ),
    "application resnet v2": ("ResNet50V2", {}),
    "application mobilenet": ("MobileNet", {"alpha": 0.25}),
}
for name, (model, options) in APPLICATIONS.items():
    make = application(model, **options)
    add(name, make, images, "image/classifier", library="keras")


# ---- layers that others wrote ---------------------------------------------------


def tcn(**options):
    def make():
        TCN = importlib.import_module("tcn").TCN  # noqa: N806
        inputs = keras.Input((32, 8))
        x = TCN(nb_filters=32, dilations=(1, 2, 4), name="tcn", **options)(inputs)
        return keras.Model(inputs, layers.Dense(1, name="forecast")(x))

    return make


add("tcn", tcn(), lambda: normal(32, 8), "series/regression", library="tcn")
add(
    "tcn, batch norm",
    tcn(use_batch_norm=True, nb_stacks=2),
    lambda: normal(32, 8),
    "series/regression",
    library="tcn",
)


def dlrm():
    """A ranking model: tables, dot products of all pairs, a perceptron."""
    ranking = importlib.import_module("keras_rs.layers")
    numbers, items = keras.Input((13,)), keras.Input((4,), dtype="int32")
    x = numbers
    for i, units in enumerate((64, 32)):
        x = layers.Dense(units, "relu", name=f"bottom_{i}")(x)
    pairs = ranking.DotInteraction()([x, *rows_of(items, 32)])
    y = layers.Concatenate()([x, pairs])
    for i, units in enumerate((64, 32)):
        y = layers.Dense(units, "relu", name=f"top_{i}")(y)
    outputs = layers.Dense(1, "sigmoid", name="click")(y)
    return keras.Model([numbers, items], outputs)


def rows_of(items, width):
    """A row of a table of its own for each item."""
    tables = [layers.Embedding(VOCABULARY, width, name=f"table_{i}") for i in range(4)]
    return [table(items[:, i]) for i, table in enumerate(tables)]


def deep_and_cross():
    """A ranking model: tables, crosses (one of low rank), a perceptron."""
    ranking = importlib.import_module("keras_rs.layers")
    items = keras.Input((4,), dtype="int32")
    x = start = layers.Concatenate()(rows_of(items, 16))
    for i, rank in enumerate((None, 16)):
        x = ranking.FeatureCross(projection_dim=rank, name=f"cross_{i}")(start, x)
    for i, units in enumerate((64, 32)):
        x = layers.Dense(units, "relu", name=f"deep_{i}")(x)
    return keras.Model(items, layers.Dense(1, name="click")(x))


add("dlrm", dlrm, lambda: [normal(13), ids(4)], "table/ranking", library="keras_rs")
add(
    "deep and cross",
    deep_and_cross,
    lambda: ids(4),
    "table/ranking",
    library="keras_rs",
)


def kan():
    KANLinear = importlib.import_module("keras_efficient_kan").KANLinear  # noqa: N806
    inputs = keras.Input((16,))
    x = inputs
    for i, units in enumerate((32, 32, 1)):
        x = KANLinear(units, name=f"kan_{i}")(x)
    return keras.Model(inputs, x)


def hexagonal():
    hexagons = importlib.import_module("keras_hexagdly")
    inputs = keras.Input((16, 16, 3))
    x = hexagons.Conv2d(16, 1, 1, activation="relu")(inputs)
    x = hexagons.MaxPool2d(1, 2)(x)
    x = hexagons.Conv2d(32, 2, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


add("kan", kan, lambda: normal(16), "table/regression", library="keras_efficient_kan")
add(
    "hexagonal",
    hexagonal,
    lambda: normal(16, 16, 3),
    "image/classifier",
    library="keras_hexagdly",
)
