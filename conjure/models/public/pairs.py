"""Encoder-decoder families: config.json -> EncoderDecoderConfig, and where each tensor lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conjure.core.errors import ConjureError
from conjure.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from conjure.models.pair_classifier import PairClassifier, PairClassifierConfig
from conjure.models.public.encoders import labels_of
from conjure.models.public.family import Family
from conjure.models.public.names import Map, flat, inside, rows, under
from conjure.models.public.settings import Settings
from conjure.models.transformer import TransformerConfig
from conjure.nn.relative import Relative

# -- T5 ----------------------------------------------------------------------------------------------------------------


def t5(s: Settings) -> EncoderDecoderConfig:
    """T5, v1.1, Flan-T5, mT5 and UMT5."""
    dim, layers = s.integer("d_model"), s.integer("num_layers")
    feed = s.get("feed_forward_proj", default="relu")
    gated = feed.startswith("gated-")
    if gated:
        feed = feed.removeprefix("gated-")
        feed = "gelu_new" if feed == "gelu" else feed
    per_layer = s.get("model_type") == "umt5"
    relative = Relative(
        buckets=s.integer("relative_attention_num_buckets", default=32),
        farthest=s.integer("relative_attention_max_distance", default=128), both_ways=True, per_layer=per_layer,
    )  # fmt: skip
    encoder = TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=layers, heads=s.integer("num_heads"), head_dim=s.integer("d_kv"),
        hidden=s.integer("d_ff"), causal=False, gated=gated,
        activation=Settings({"feed_forward_proj": feed}).activation("feed_forward_proj"), norm="rms",
        norm_eps=s.number("layer_norm_epsilon", default=1e-6), relative=relative, attention_scale=1.0,
    )  # fmt: skip
    scaled = s.get("model_type") != "mt5" and s.flag(
        "scale_decoder_outputs", default=s.flag("tie_word_embeddings", default=True)
    )
    decoder = replace(
        encoder, causal=True, cross=True, layers=s.integer("num_decoder_layers", default=layers),
        relative=replace(relative, both_ways=False), logit_scale=dim**-0.5 if scaled else 1.0,
        tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip
    return EncoderDecoderConfig(encoder=encoder, decoder=decoder)


def _t5_names(c: EncoderDecoderConfig) -> Map:
    names: Map = {"encoder.embed": "shared", "decoder.embed": "shared", "decoder.head": "lm_head"}
    for stack, config, last in (("encoder", c.encoder, 1), ("decoder", c.decoder, 2)):
        own, bias = "layer.0.SelfAttention.", "layer.0.SelfAttention.relative_attention_bias"
        feed = f"layer.{last}.DenseReluDense."
        layer: Map = {
            "norm_attention": "layer.0.layer_norm", "attention.qkv": rows(own + "q", own + "k", own + "v"),
            "attention.out": own + "o", "norm_cross": "layer.1.layer_norm", "cross.q": "layer.1.EncDecAttention.q",
            "cross.kv": rows("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
            "cross.out": "layer.1.EncDecAttention.o", "norm_feedforward": f"layer.{last}.layer_norm",
            "feedforward.up": rows(feed + "wi_0", feed + "wi_1") if config.gated else feed + "wi",
            "feedforward.down": feed + "wo", "attention.relative.table": bias,
        }  # fmt: skip
        names |= inside(f"{stack}.", under(f"{stack}.block.{{i}}.", layer))
        names |= {f"{stack}.norm": f"{stack}.final_layer_norm", f"{stack}.relative.table": f"{stack}.block.0.{bias}"}
    return names


# -- BART --------------------------------------------------------------------------------------------------------------


def _bart_stack(s: Settings, stack: str, **more: Any) -> TransformerConfig:
    dim = s.integer("d_model")
    scaled = s.flag("scale_embedding", default=False)
    vocab = s.integer("vocab_size")
    return TransformerConfig(
        vocab=s.integer("decoder_vocab_size", default=vocab) if stack == "decoder" else vocab, dim=dim,
        layers=s.integer(f"{stack}_layers"), heads=s.integer(f"{stack}_attention_heads"),
        hidden=s.integer(f"{stack}_ffn_dim"), causal=stack == "decoder", cross=stack == "decoder", gated=False,
        activation=s.activation("activation_function"), norm="layer", norm_eps=1e-5, qkv_bias=True, out_bias=True,
        mlp_bias=True, embedding_scale=dim**0.5 if scaled else 1.0, pad=s.integer("pad_token_id", default=1, least=0),
        head_bias=stack == "decoder", **more,
    )  # fmt: skip


def _bart_pair(s: Settings, **more: Any) -> EncoderDecoderConfig:
    shared = s.flag("share_encoder_decoder_embeddings", default=True)
    decoder = _bart_stack(s, "decoder", **more)
    if not shared and decoder.vocab == s.integer("vocab_size") and s.has("decoder_vocab_size"):
        decoder = replace(decoder, tie=s.flag("tie_word_embeddings", default=True))
    return EncoderDecoderConfig(encoder=_bart_stack(s, "encoder", **more), decoder=decoder, shared=shared)


def bart(s: Settings) -> EncoderDecoderConfig:
    most = s.integer("max_position_embeddings")
    return _bart_pair(s, placement="post", embedding_norm=True, positions="learned", position_offset=2, max_length=most)


def mbart(s: Settings) -> EncoderDecoderConfig:
    most = s.integer("max_position_embeddings")
    return _bart_pair(s, placement="pre", embedding_norm=True, positions="learned", position_offset=2, max_length=most)


def marian(s: Settings) -> EncoderDecoderConfig:
    most = s.integer("max_position_embeddings")
    return _bart_pair(s, placement="post", positions="sinusoid", max_length=most)


def m2m100(s: Settings) -> EncoderDecoderConfig:
    """M2M100 and NLLB."""
    most, pad = s.integer("max_position_embeddings"), s.integer("pad_token_id", default=1, least=0)
    c = _bart_pair(s, placement="pre", positions="sinusoid_spaced", positions_from="ids", position_offset=pad + 1,
                   max_length=most)  # fmt: skip
    return replace(c, decoder=replace(c.decoder, head_bias=False))


def bart_layer(attention: str = "self_attn.") -> Map:
    """One layer of either stack, as all of BART's kin name it."""
    cross = "encoder_attn."
    return {
        "norm_attention": "self_attn_layer_norm", "attention.out": attention + "out_proj",
        "attention.qkv": rows(attention + "q_proj", attention + "k_proj", attention + "v_proj", zeros=True),
        "norm_cross": "encoder_attn_layer_norm", "cross.q": cross + "q_proj", "cross.out": cross + "out_proj",
        "cross.kv": rows(cross + "k_proj", cross + "v_proj", zeros=True), "norm_feedforward": "final_layer_norm",
        "feedforward.up": "fc1", "feedforward.down": "fc2",
    }  # fmt: skip


def _bart_names(c: EncoderDecoderConfig) -> Map:
    names: Map = {"decoder.head": "lm_head", "decoder.head_bias": flat("final_logits_bias")}
    for stack in ("encoder", "decoder"):
        top = f"model.{stack}."
        names |= inside(f"{stack}.", {
            "embed": "model.shared" if c.shared else top + "embed_tokens", "place": top + "embed_positions",
            "norm_embedding": top + "layernorm_embedding", "norm": top + "layer_norm",
            **under(top + "layers.{i}.", bart_layer()),
        })  # fmt: skip
    return names


T5_UNUSED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
             "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")  # fmt: skip
BART_UNUSED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight",
               "model.*.embed_positions.weight*", "lm_head.weight", "encoder.embed_tokens.weight",
               "decoder.embed_tokens.weight", "*.embed_positions.weights")  # fmt: skip


def _refuse_heads(s: Settings, read: Any) -> Any:
    name = (s.get("architectures") or [""])[0]
    if name.endswith(("ForSequenceClassification", "ForQuestionAnswering")):
        raise ConjureError(f"config.json: cannot run the head of {name}",
                           hint="of encoder-decoders, those that write text can be run, and BART's classifiers")
    return read(s)


def labelled(family: Family) -> Family:
    """BART and mBART with a head that gives labels to texts."""
    reads = {"bart": bart, "mbart": mbart}

    def config(s: Settings) -> PairClassifierConfig:
        pair = reads[s.get("model_type")](s)
        end = s.integer("eos_token_id", default=2, least=0)
        return PairClassifierConfig(
            pair=replace(pair, decoder=replace(pair.decoder, tie=True, head_bias=False)), labels=labels_of(s), end=end,
            start=s.integer("decoder_start_token_id", default=end, least=0),
        )  # fmt: skip

    def names(c: PairClassifierConfig) -> Map:
        head: Map = {"dense": "classification_head.dense", "classify": "classification_head.out_proj"}
        return {**inside("pair.", _bart_names(c.pair)), **head}

    return replace(family, config=config, names=names, network=PairClassifier, kind="encoder",
                   ignore=(*family.ignore, "final_logits_bias"))


FAMILIES: dict[str, Family] = {
    kind: Family(lambda s, read=read: _refuse_heads(s, read), names, prefix, EncoderDecoder, ignore=ignore, kind="pair")
    for kind, read, names, prefix, ignore in (
        ("t5", t5, _t5_names, "", T5_UNUSED),
        ("mt5", t5, _t5_names, "", T5_UNUSED),
        ("umt5", t5, _t5_names, "", T5_UNUSED),
        ("bart", bart, _bart_names, "model.", BART_UNUSED),
        ("mbart", mbart, _bart_names, "model.", BART_UNUSED),
        ("marian", marian, _bart_names, "model.", BART_UNUSED),
        ("m2m_100", m2m100, _bart_names, "model.", BART_UNUSED),
        ("nllb", m2m100, _bart_names, "model.", BART_UNUSED),
    )
}
