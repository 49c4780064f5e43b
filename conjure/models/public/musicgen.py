"""MusicGen as the hub has it: three configs in one, and where the tensors of its three parts lie."""

from __future__ import annotations

from dataclasses import replace

from conjure.core.errors import ConjureError
from conjure.models.code_writer import CodeWriterConfig
from conjure.models.encoder_decoder import EncoderDecoderConfig
from conjure.models.musicgen import MusicGen, MusicGenConfig
from conjure.models.public import pairs, sound_codecs
from conjure.models.public.family import Family
from conjure.models.public.names import Map, rows, under
from conjure.models.public.settings import Settings
from conjure.models.public.weight_norm import Folded
from conjure.models.transformer import TransformerConfig

T5 = {"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6,
      "num_heads": 8}  # fmt: skip
WRITER = {"vocab_size": 2048, "num_hidden_layers": 24, "ffn_dim": 4096, "num_attention_heads": 16, "hidden_size": 1024,
          "num_codebooks": 4, "activation_function": "gelu"}  # fmt: skip


def musicgen(s: Settings) -> MusicGenConfig:
    text, sound, said = (s.part("text_encoder", T5), s.part("audio_encoder", sound_codecs.ENCODEC),
                         s.part("decoder", WRITER))  # fmt: skip
    for part, wanted in ((text, "t5"), (sound, "encodec")):
        if (kind := part.get("model_type", default=wanted)) != wanted:
            raise ConjureError(f"config.json: cannot run a MusicGen with a {kind!r}, expected {wanted!r}")
    if said.flag("scale_embedding", default=False):
        raise ConjureError("config.json: scale_embedding: expected false, as all published models have it")
    stack = TransformerConfig(
        vocab=0, dim=said.integer("hidden_size"), layers=said.integer("num_hidden_layers"),
        heads=said.integer("num_attention_heads"), hidden=said.integer("ffn_dim"), gated=False, norm="layer",
        norm_eps=1e-5, activation=said.activation("activation_function"), cross=True,
    )  # fmt: skip
    writer = CodeWriterConfig(
        transformer=stack, books=said.integer("num_codebooks"), codes=said.integer("vocab_size"), sinusoid=True
    )
    return MusicGenConfig(text=pairs.t5(text).encoder, writer=writer, codec=sound_codecs.encodec(sound),
                          channels=said.integer("audio_channels", default=1, most=2))  # fmt: skip


LAYER: Map = {
    "norm_attention": "self_attn_layer_norm", "attention.out": "self_attn.out_proj",
    "attention.qkv": rows("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "norm_cross": "encoder_attn_layer_norm", "cross.q": "encoder_attn.q_proj",
    "cross.kv": rows("encoder_attn.k_proj", "encoder_attn.v_proj"), "cross.out": "encoder_attn.out_proj",
    "norm_feedforward": "final_layer_norm", "feedforward.up": "fc1", "feedforward.down": "fc2",
}  # fmt: skip


def musicgen_names(c: MusicGenConfig) -> Map:
    top = "decoder.model.decoder."
    whole = EncoderDecoderConfig(encoder=c.text, decoder=replace(c.text, causal=True, cross=True))
    text: Map = {
        name.removeprefix("encoder."): rule
        for name, rule in pairs.FAMILIES["t5"].names(whole).items() if name.startswith("encoder.")
    }  # fmt: skip
    return {
        **under("text_encoder.", text, "text."), "bridge": "enc_to_dec_proj",
        "writer.embeds.{i}": top + "embed_tokens.{i}", "writer.heads.{i}": "decoder.lm_heads.{i}",
        "writer.stack.norm": top + "layer_norm", **under(top + "layers.{i}.", LAYER, "writer.stack.blocks.{i}."),
        **under("audio_encoder.", sound_codecs.encodec_names(c.codec), "codec."),
    }  # fmt: skip


FAMILIES = {
    "musicgen": Family(
        musicgen, musicgen_names, network=MusicGen, kind="music", opened=Folded,
        ignore=("decoder.model.decoder.embed_positions.weights", "text_encoder.encoder.embed_tokens.weight",
                *(f"audio_encoder.{each}" for each in sound_codecs.FAMILIES["encodec"].ignore)),
    ),
}  # fmt: skip
