"""SpeechT5 in its three forms: config.json -> SpeechT5Config, and where each tensor lies."""

from __future__ import annotations

from conjure.core.errors import ConjureError
from conjure.models.public.family import Family
from conjure.models.public.names import Map, inside, rows, under
from conjure.models.public.settings import Settings
from conjure.models.public.towers import convolutions
from conjure.models.public.weight_norm import Folded
from conjure.models.speech_tower import SpeechTowerConfig
from conjure.models.speecht5 import SpeechT5, SpeechT5Config
from conjure.models.speecht5_encoder import SpeechT5EncoderConfig
from conjure.models.transformer import TransformerConfig

FORMS = {"ForSpeechToText": (False, True), "ForTextToSpeech": (True, False), "ForSpeechToSpeech": (False, False)}
"""How the class names end: does it read text, does it write text?"""
UNUSED = (
    "*.masked_spec_embed", "*.encode_positions.pe", "*.pos_sinusoidal_embed.weights", "*.embed_positions.weights",
    "*.num_batches_tracked",
)  # fmt: skip
"""For training only, or computed."""


def speecht5(s: Settings) -> SpeechT5Config:
    name = str((s.get("architectures") or [""])[0])
    form = next((does for ending, does in FORMS.items() if name.endswith(ending)), None)
    if form is None:
        raise ConjureError(f"config.json: cannot run {name or 'a SpeechT5 that names no architecture'}",
                           hint=f"known are *{', *'.join(FORMS)}")  # fmt: skip
    reads, writes = form
    dim, activation = s.integer("hidden_size", default=768), s.activation("hidden_act", default="gelu")
    eps, most = s.number("layer_norm_eps", default=1e-5), s.integer("max_text_positions", default=450)
    vocab, pad = s.integer("vocab_size", default=81), s.integer("pad_token_id", default=1, least=0)
    heads = s.integer("encoder_attention_heads", default=12)
    encoder = SpeechT5EncoderConfig(
        dim=dim, layers=s.integer("encoder_layers", default=12), heads=heads,
        hidden=s.integer("encoder_ffn_dim", default=3072),
        farthest=s.integer("encoder_max_relative_position", default=160), activation=activation, norm_eps=eps,
        vocab=vocab if reads else 0, most=most, wave=None if reads else _wave(s, dim, heads),
    )  # fmt: skip
    text = {"vocab": vocab, "positions": "sinusoid_spaced", "positions_from": "ids", "position_offset": pad + 1,
            "max_length": most, "pad": pad,
            "embedding_scale": dim**0.5 if s.flag("scale_embedding", default=False) else 1.0}  # fmt: skip
    decoder = TransformerConfig(
        dim=dim, layers=s.integer("decoder_layers", default=6), heads=s.integer("decoder_attention_heads", default=12),
        hidden=s.integer("decoder_ffn_dim", default=3072), cross=True, activation=activation, gated=False,
        norm="layer", norm_eps=eps, placement="post", qkv_bias=True, out_bias=True, mlp_bias=True,
        **(text if writes else {"vocab": 0}),  # type: ignore[arg-type]
    )  # fmt: skip
    return SpeechT5Config(
        encoder=encoder, decoder=decoder, bands=s.integer("num_mel_bins", default=80),
        together=s.integer("reduction_factor", default=2),
        in_layers=s.integer("speech_decoder_prenet_layers", default=2),
        in_units=s.integer("speech_decoder_prenet_units", default=256),
        kept=s.number("speech_decoder_prenet_dropout", default=0.5),
        out_layers=s.integer("speech_decoder_postnet_layers", default=5),
        out_units=s.integer("speech_decoder_postnet_units", default=256),
        out_kernel=s.integer("speech_decoder_postnet_kernel", default=5),
        speaker=s.integer("speaker_embedding_dim", default=512), steps=s.integer("max_speech_positions", default=4000),
        start=s.integer("decoder_start_token_id", default=2, least=0), end=s.integer("eos_token_id", default=2),
    )  # fmt: skip


def _wave(s: Settings, dim: int, heads: int) -> SpeechTowerConfig:
    return SpeechTowerConfig(
        stack=TransformerConfig(vocab=0, dim=dim, layers=1, heads=heads, causal=False),
        convolution_bias=s.flag("conv_bias", default=False), activation=s.activation("feat_extract_activation"),
        convolution_norm="first" if s.get("feat_extract_norm", default="group") == "group" else "all",
        position_kernel=s.integer("num_conv_pos_embeddings", default=128),
        position_groups=s.integer("num_conv_pos_embedding_groups", default=16), **convolutions(s),
    )  # fmt: skip


def _names(c: SpeechT5Config) -> Map:
    front, encoder = "speecht5.encoder.prenet.", "speecht5.encoder.wrapped_encoder."
    own, feed = "attention.", "feed_forward."
    layer: Map = {
        "qkv": rows(own + "q_proj", own + "k_proj", own + "v_proj"), "out": own + "out_proj",
        "norm_attention": "layer_norm", "norm_feedforward": "final_layer_norm",
        "feedforward.up": feed + "intermediate_dense", "feedforward.down": feed + "output_dense",
    }  # fmt: skip
    convolved = front + "feature_encoder.conv_layers.{i}."
    reading: Map = {
        "norm": encoder + "layer_norm", "near": encoder + "embed_positions.pe_k",
        "front.embed": front + "embed_tokens", "front.places.alpha": front + "encode_positions.alpha",
        "front.layers.{i}.convolution": convolved + "conv", "front.layers.{i}.norm": convolved + "layer_norm",
        "front.norm": front + "feature_projection.layer_norm", "front.project": front + "feature_projection.projection",
        "front.place": front + "pos_conv_embed.conv", **under(encoder + "layers.{i}.", layer),
    }  # fmt: skip
    into, out = "speecht5.decoder.prenet.", "speech_decoder_postnet."
    return {
        **inside("encoder.", reading), "decoder.embed": into + "embed_tokens",
        "decoder.head": "text_decoder_postnet.lm_head",
        **inside("decoder.", under("speecht5.decoder.wrapped_decoder.layers.{i}.", _decoder_layer())),
        "frames_in.layers.{i}": into + "layers.{i}", "frames_in.last": into + "final_layer",
        "frames_in.places.alpha": into + "encode_positions.alpha", "frames_in.speaker": into + "speaker_embeds_layer",
        "frames_out.frames": out + "feat_out", "frames_out.over": out + "prob_out",
        "frames_out.layers.{i}.convolution": out + "layers.{i}.conv",
        "frames_out.layers.{i}.weight": out + "layers.{i}.batch_norm.weight",
        "frames_out.layers.{i}.bias": out + "layers.{i}.batch_norm.bias",
        "frames_out.layers.{i}.mean": out + "layers.{i}.batch_norm.running_mean",
        "frames_out.layers.{i}.variance": out + "layers.{i}.batch_norm.running_var",
    }  # fmt: skip


def _decoder_layer() -> Map:
    own, cross, feed = "self_attn.", "encoder_attn.", "feed_forward."
    return {
        "attention.qkv": rows(own + "q_proj", own + "k_proj", own + "v_proj"), "attention.out": own + "out_proj",
        "norm_attention": "self_attn_layer_norm", "cross.q": cross + "q_proj", "cross.out": cross + "out_proj",
        "cross.kv": rows(cross + "k_proj", cross + "v_proj"), "norm_cross": "encoder_attn_layer_norm",
        "feedforward.up": feed + "intermediate_dense", "feedforward.down": feed + "output_dense",
        "norm_feedforward": "final_layer_norm",
    }  # fmt: skip


FAMILIES: dict[str, Family] = {
    "speecht5": Family(speecht5, _names, network=SpeechT5, ignore=UNUSED, kind="speecht5", opened=Folded),
}
