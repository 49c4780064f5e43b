"""Families that speak: VITS with MMS-TTS, and HiFi-GAN vocoders.

config.json -> the config of the network, and where each tensor lies.
"""

from __future__ import annotations

from typing import Any

from conjure.core.errors import ConjureError
from conjure.models.public.family import Family
from conjure.models.public.names import Map, inside, rows, under
from conjure.models.public.settings import Settings
from conjure.models.public.weight_norm import Folded
from conjure.models.vits import Vits, VitsConfig
from conjure.models.vits_durations import VitsDurationsConfig
from conjure.models.vits_flow import VitsFlowConfig
from conjure.models.vits_text import VitsTextConfig
from conjure.nn.vocoding import HifiGan, HifiGanConfig


def numbers(s: Settings, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of whole numbers above 0."""
    found = s.get(name, default=default)
    if not isinstance(found, list | tuple) or any(type(each) is not int or each < 1 for each in found):
        raise ConjureError(f"config.json: {name}: expected whole numbers above 0, got {found!r}")
    return tuple(found)


def _generator(s: Settings, rates: tuple[int, ...], kernels: tuple[int, ...], **more: Any) -> HifiGanConfig:
    found = s.get("resblock_dilation_sizes", default=[[1, 3, 5]] * 3)
    if not isinstance(found, list | tuple):
        raise ConjureError(f"config.json: resblock_dilation_sizes: expected lists of numbers, got {found!r}")
    each = (numbers(Settings({"resblock_dilation_sizes": row}), "resblock_dilation_sizes", ()) for row in found)
    return HifiGanConfig(
        width=s.integer("upsample_initial_channel", default=512), rates=numbers(s, "upsample_rates", rates),
        kernels=numbers(s, "upsample_kernel_sizes", kernels),
        block_kernels=numbers(s, "resblock_kernel_sizes", (3, 7, 11)), block_dilations=tuple(each),
        slope=s.number("leaky_relu_slope", default=0.1), **more,
    )  # fmt: skip


def hifi_gan(s: Settings) -> HifiGanConfig:
    """The vocoder of SpeechT5."""
    return _generator(
        s, (4, 4, 4, 4), (8, 8, 8, 8), channels=s.integer("model_in_dim", default=80),
        scaled=s.flag("normalize_before", default=True),
    )  # fmt: skip


def vits(s: Settings) -> VitsConfig:
    """VITS as transformers writes it, MMS-TTS."""
    if not str((s.get("architectures") or ["VitsModel"])[0]).endswith("VitsModel"):
        raise ConjureError(f"config.json: cannot run {s.get('architectures')[0]}", hint="known is VitsModel")
    dim, latents = s.integer("hidden_size", default=192), s.integer("flow_size", default=192)
    speaker, eps = s.integer("speaker_embedding_size", default=0, least=0), s.number("layer_norm_eps", default=1e-5)
    text = VitsTextConfig(
        vocab=s.integer("vocab_size", default=38), dim=dim, layers=s.integer("num_hidden_layers", default=6),
        heads=s.integer("num_attention_heads", default=2), window=s.integer("window_size", default=4),
        hidden=s.integer("ffn_dim", default=768), kernel=s.integer("ffn_kernel_size", default=3),
        activation=s.activation("hidden_act", default="relu"), bias=s.flag("use_bias", default=True), norm_eps=eps,
        latents=latents,
    )  # fmt: skip
    if s.integer("depth_separable_channels", default=2) != 2:
        raise ConjureError("config.json: depth_separable_channels: expected 2: a duration and its noise")
    return VitsConfig(
        text=text,
        durations=VitsDurationsConfig(
            dim=dim, random=s.flag("use_stochastic_duration_prediction", default=True),
            kernel=s.integer("duration_predictor_kernel_size", default=3),
            layers=s.integer("depth_separable_num_layers", default=3),
            flows=s.integer("duration_predictor_num_flows", default=4),
            bins=s.integer("duration_predictor_flow_bins", default=10),
            bound=s.number("duration_predictor_tail_bound", default=5.0),
            hidden=s.integer("duration_predictor_filter_channels", default=256), norm_eps=eps, speaker=speaker,
        ),
        flow=VitsFlowConfig(
            latents=latents, dim=dim, couplings=s.integer("prior_encoder_num_flows", default=4),
            layers=s.integer("prior_encoder_num_wavenet_layers", default=4),
            kernel=s.integer("wavenet_kernel_size", default=5),
            dilation=s.integer("wavenet_dilation_rate", default=1), speaker=speaker,
        ),
        decoder=_generator(s, (8, 8, 2, 2), (16, 16, 4, 4), channels=latents, speaker=speaker, last_bias=False),
        rate=s.integer("sampling_rate", default=16_000), speakers=s.integer("num_speakers", default=1),
        speaker=speaker, speed=s.number("speaking_rate", default=1.0), noise=s.number("noise_scale", default=0.667),
        duration_noise=s.number("noise_scale_duration", default=0.8),
    )  # fmt: skip


# -- where the tensors lie ---------------------------------------------------------------------------------------------


def hifi_gan_names(top: str = "") -> Map:
    """Under `top` on disk."""
    return {
        "first": top + "conv_pre", "up.{i}": top + "upsampler.{i}", "last": top + "conv_post", "speaker": top + "cond",
        "blocks.{i}.dilated.{j}": top + "resblocks.{i}.convs1.{j}",
        "blocks.{i}.plain.{j}": top + "resblocks.{i}.convs2.{j}", "mean": top + "mean", "scale": top + "scale",
    }  # fmt: skip


def _separable(ours: str, disk: str) -> Map:
    letter = "j" if "{i}" in ours else "i"
    parts = {"along": "convs_dilated", "across": "convs_pointwise", "norm_along": "norms_1", "norm_across": "norms_2"}
    return {f"{ours}.{mine}.{{{letter}}}": f"{disk}.{theirs}.{{{letter}}}" for mine, theirs in parts.items()}


def _vits_names(c: VitsConfig) -> Map:
    own, top = "attention.", "duration_predictor."
    layer: Map = {
        "attention.qkv": rows(own + "q_proj", own + "k_proj", own + "v_proj"), "attention.out": own + "out_proj",
        "attention.near_k": own + "emb_rel_k", "attention.near_v": own + "emb_rel_v", "norm_attention": "layer_norm",
        "up": "feed_forward.conv_1", "down": "feed_forward.conv_2", "norm_feedforward": "final_layer_norm",
    }  # fmt: skip
    durations: Map = {"speaker": top + "cond"}
    if c.durations.random:
        flow = top + "flows.{i}."
        durations |= {
            "first": top + "conv_pre", "last": top + "conv_proj", **_separable("between", top + "conv_dds"),
            "affine.shift": top + "flows.0.translate", "affine.log_scale": top + "flows.0.log_scale",
            "flows.{i}.first": flow + "conv_pre", "flows.{i}.last": flow + "conv_proj",
            **_separable("flows.{i}.between", flow + "conv_dds"),
        }  # fmt: skip
    else:
        durations |= {"first": top + "conv_1", "second": top + "conv_2", "norm_first": top + "norm_1",
                      "norm_second": top + "norm_2", "last": top + "proj"}  # fmt: skip
    flow = "flow.flows.{i}."
    return {
        "text.embed": "text_encoder.embed_tokens", "text.project": "text_encoder.project",
        **inside("text.", under("text_encoder.encoder.layers.{i}.", layer)), **inside("durations.", durations),
        "flow.couplings.{i}.first": flow + "conv_pre", "flow.couplings.{i}.last": flow + "conv_post",
        "flow.couplings.{i}.between.gated.{j}": flow + "wavenet.in_layers.{j}",
        "flow.couplings.{i}.between.split.{j}": flow + "wavenet.res_skip_layers.{j}",
        "flow.couplings.{i}.between.speaker": flow + "wavenet.cond_layer",
        **inside("decoder.", hifi_gan_names("decoder.")), "speakers": "embed_speaker",
    }  # fmt: skip


VITS_UNUSED = ("posterior_encoder.*", "duration_predictor.post_*", "duration_predictor.flows.1.*")
"""For training only."""

FAMILIES: dict[str, Family] = {
    "vits": Family(vits, _vits_names, network=Vits, ignore=VITS_UNUSED, kind="voice", opened=Folded),
    **dict.fromkeys(
        ("hifigan", "speecht5_hifigan"),
        Family(
            hifi_gan,
            lambda _: hifi_gan_names(),
            network=HifiGan,
            ignore=("mean", "scale"),
            kind="vocoder",
            opened=Folded,
        ),
    ),
}
