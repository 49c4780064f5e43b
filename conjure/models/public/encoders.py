"""Encoder families: config.json -> HeadedConfig, and where each tensor lies. The head follows from `architectures`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from conjure.core.errors import ConjureError
from conjure.models.headed import Headed, HeadedConfig
from conjure.models.public.family import Family
from conjure.models.public.names import Map, Rule, exact, inside, per_head, rows, under
from conjure.models.public.settings import Settings
from conjure.models.transformer import TransformerConfig
from conjure.nn.disentangled import Disentangled
from conjure.nn.relative import Relative

Head = Literal["none", "masked", "first", "tokens", "last"]
HEADS: dict[str, Head] = {
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
    "LMHeadModel": "masked",
    "ForSequenceClassification": "first",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "tokens",
    "Model": "none",
}


def head_of(s: Settings) -> Head:
    """What stands on the stack, by the name of the class that wrote the file."""
    name = (s.get("architectures") or ["Model"])[0]
    found: Head | None = next((head for ending, head in HEADS.items() if name.endswith(ending)), None)
    if found is None:
        raise ConjureError(f"config.json: cannot run the head of {name}", hint=f"known are *{', *'.join(HEADS)}")
    return found


def labels_of(s: Settings) -> int:
    """How many labels the head tells apart."""
    listed = s.get("id2label")
    return len(listed) if listed else s.integer("num_labels", default=2)


def headed(s: Settings, stack: TransformerConfig, *, masked: str, first: str) -> HeadedConfig:
    """`masked` and `first` are the activations of the dense layers before these heads."""
    head = head_of(s)
    answers = (s.get("architectures") or [""])[0].endswith("ForQuestionAnswering")
    return HeadedConfig(stack=stack, head=head, labels=labels_of(s), answers=answers,
                        activation=masked if head == "masked" else first)


def _stack(s: Settings) -> TransformerConfig:
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=s.integer("hidden_size"), layers=s.integer("num_hidden_layers"),
        heads=s.integer("num_attention_heads"), hidden=s.integer("intermediate_size"), causal=False,
        activation=s.activation("hidden_act"), gated=False, norm="layer",
        norm_eps=s.number("layer_norm_eps", default=1e-12), placement="post", qkv_bias=True, out_bias=True,
        mlp_bias=True,
        positions="learned", max_length=s.integer("max_position_embeddings", default=512),
        types=s.integer("type_vocab_size", default=2, least=0), embedding_norm=True,
        pad=s.integer("pad_token_id", default=0, least=0),
    )  # fmt: skip


def bert(s: Settings) -> HeadedConfig:
    """BERT, MiniLM, E5."""
    return headed(s, _stack(s), masked=s.activation("hidden_act"), first="tanh")


def roberta(s: Settings) -> HeadedConfig:
    """RoBERTa, XLM-R and their kin: the table of positions begins after the row of padding."""
    stack = _counted(_stack(s), s.integer("pad_token_id", default=1, least=0))
    return headed(s, stack, masked="gelu", first="tanh")


def _counted(c: TransformerConfig, pad: int) -> TransformerConfig:
    """Positions are counted over ids that are not `pad`."""
    return replace(c, positions_from="ids", pad=pad, position_offset=pad + 1, max_length=c.max_length - pad - 1)


def mpnet(s: Settings) -> HeadedConfig:
    stack = _counted(_stack(s), 1)
    bias = Relative(buckets=s.integer("relative_attention_num_buckets", default=32), farthest=128, both_ways=True)
    return headed(s, replace(stack, types=0, relative=bias), masked="gelu", first="tanh")


def distilbert(s: Settings) -> HeadedConfig:
    said = {
        "hidden_size": s.integer("dim"), "num_hidden_layers": s.integer("n_layers"),
        "num_attention_heads": s.integer("n_heads"), "intermediate_size": s.integer("hidden_dim"),
        "hidden_act": s.get("activation", default="gelu"), "layer_norm_eps": 1e-12, "type_vocab_size": 0,
    }  # fmt: skip
    stack = _stack(Settings({**s.values, **said}))
    return headed(s, stack, masked=stack.activation, first="relu")


def deberta(s: Settings) -> HeadedConfig:
    """DeBERTa, version 1 as well as 2 and 3."""
    first_version = s.get("model_type") == "deberta"
    if not s.flag("relative_attention", default=False):
        raise ConjureError("config.json: a DeBERTa without relative_attention cannot be run")
    terms = s.get("pos_att_type", default=[])
    terms = terms.lower().split("|") if isinstance(terms, str) else [each.lower() for each in terms]
    most = s.integer("max_relative_positions", default=-1, least=-1)
    disentangled = Disentangled(
        buckets=max(0, s.integer("position_buckets", default=-1, least=-1)) if not first_version else 0,
        farthest=most if most > 0 else s.integer("max_position_embeddings", default=512),
        content_to_position="c2p" in terms, position_to_content="p2c" in terms, key_bias=not first_version,
        shared=not first_version and s.flag("share_att_key", default=False),
        norm=not first_version and "layer_norm" in str(s.get("norm_rel_ebd", default="none")),
        convolution=s.integer("conv_kernel_size", default=0, least=0),
        convolution_groups=s.integer("conv_groups", default=1),
        convolution_activation=s.get("conv_act", default="tanh"),
    )  # fmt: skip
    stack = _stack(Settings(s.values, {"type_vocab_size": 0, "layer_norm_eps": 1e-7}))
    if not s.flag("position_biased_input", default=True):
        stack = replace(stack, positions="none", max_length=0)
    act = s.get("pooler_hidden_act", default="gelu")
    return headed(s, replace(stack, disentangled=disentangled), masked=s.activation("hidden_act"), first=act)


# -- where the tensors lie ---------------------------------------------------------------------------------------------


def _bert_layer(c: HeadedConfig) -> Map:
    own = "attention.self."
    return {
        "attention.qkv": rows(own + "query", own + "key", own + "value"), "attention.out": "attention.output.dense",
        "norm_attention": "attention.output.LayerNorm", "feedforward.up": "intermediate.dense",
        "feedforward.down": "output.dense", "norm_feedforward": "output.LayerNorm",
    }  # fmt: skip


def _bert_like(c: HeadedConfig, prefix: str, layer: Map | None = None) -> Map:
    inner: Map = {
        "embed": prefix + "embeddings.word_embeddings", "place": prefix + "embeddings.position_embeddings",
        "kind": prefix + "embeddings.token_type_embeddings", "norm_embedding": prefix + "embeddings.LayerNorm",
        **under(prefix + "encoder.layer.{i}.", {**_bert_layer(c), **(layer or {})}),
    }  # fmt: skip
    return inside("stack.", inner)


def _classifier(c: HeadedConfig) -> str:
    return "qa_outputs" if c.answers else "classifier"


def _bert_names(c: HeadedConfig) -> Map:
    head: Map = {"dense": "bert.pooler.dense"}
    if c.head == "masked":
        head = {"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm",
                "bias": exact("cls.predictions.bias", "bias")}
    return {**_bert_like(c, "bert."), **head, "classify": _classifier(c)}


def _roberta_names(c: HeadedConfig) -> Map:
    return {**_bert_like(c, "roberta."), **_roberta_head(c)}


def _roberta_head(c: HeadedConfig) -> Map:
    if c.head == "masked":
        return {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": exact("lm_head.bias", "bias")}
    if c.head == "first":
        return {"dense": "classifier.dense", "classify": "classifier.out_proj"}
    return {"classify": _classifier(c)}


def _mpnet_names(c: HeadedConfig) -> Map:
    own = "attention.attn."
    layer: Map = {"attention.qkv": rows(own + "q", own + "k", own + "v"), "attention.out": own + "o",
                  "norm_attention": "attention.LayerNorm"}
    bias: Map = {"stack.relative.table": "mpnet.encoder.relative_attention_bias"}
    return {**_bert_like(c, "mpnet.", layer), **bias, **_roberta_head(c)}


def _distilbert_names(c: HeadedConfig) -> Map:
    own = "attention."
    layer: Map = {
        "attention.qkv": rows(own + "q_lin", own + "k_lin", own + "v_lin"), "attention.out": own + "out_lin",
        "norm_attention": "sa_layer_norm", "feedforward.up": "ffn.lin1", "feedforward.down": "ffn.lin2",
        "norm_feedforward": "output_layer_norm",
    }  # fmt: skip
    inner = _bert_like(c, "distilbert.")
    inner |= inside("stack.", under("distilbert.transformer.layer.{i}.", layer))
    if c.head == "masked":
        return {**inner, "dense": "vocab_transform", "norm": "vocab_layer_norm",
                "bias": exact("vocab_projector.bias", "bias")}
    return {**inner, "dense": "pre_classifier", "classify": _classifier(c)}


def _deberta_names(c: HeadedConfig) -> Map:
    own = "attention.self."
    layer: Map = {
        "attention.qkv": rows(own + "query_proj", own + "key_proj", own + "value_proj"),
        "attention.position_k": own + "pos_key_proj", "attention.position_q": own + "pos_query_proj",
    }  # fmt: skip
    inner = _bert_like(c, "deberta.", layer)
    inner |= {
        "stack.distances.table": "deberta.encoder.rel_embeddings", "stack.distances.norm": "deberta.encoder.LayerNorm",
        "stack.convolution.convolution": "deberta.encoder.conv.conv",
        "stack.convolution.norm": "deberta.encoder.conv.LayerNorm",
    }  # fmt: skip
    return {**inner, **_deberta_head(c)}


def _deberta_head(c: HeadedConfig) -> Map:
    if c.head == "masked":
        return {"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm",
                "bias": exact("cls.predictions.bias", "bias")}
    return {"dense": "pooler.dense", "classify": _classifier(c)}


def _deberta_v1_names(c: HeadedConfig) -> Map:
    own = "attention.self."
    fused = per_head(own + "in_proj", c.stack.heads)
    biases = rows(own + "q_bias", own + "k_bias", own + "v_bias", zeros=True)
    layer: Map = {
        "attention.qkv": fused,
        "attention.qkv.bias": Rule(biases.disk, biases.read, biases.write,
                                   suffixes={"stack.blocks.{i}.attention.qkv.bias": ""}, zeros=True),
        "attention.position_k": own + "pos_proj", "attention.position_q": own + "pos_q_proj",
    }  # fmt: skip
    return {**_deberta_names(c), **inside("stack.", under("deberta.encoder.layer.{i}.", layer))}


def labelled(family: Family) -> Family:
    """A decoder that gives labels to texts, from the last token of each."""

    def config(s: Settings) -> HeadedConfig:
        stack = replace(family.config(s), tie=True, pad=s.integer("pad_token_id", default=0, least=0))
        return HeadedConfig(stack=stack, head="last", labels=labels_of(s))

    def names(c: HeadedConfig) -> Map:
        return {**inside("stack.", family.names(c.stack)), "classify": "score"}

    return replace(family, config=config, names=names, network=Headed)


UNUSED = ("*pooler.*", "cls.seq_relationship.*", "cls.predictions.decoder.*", "lm_head.decoder.*",
          "vocab_projector.weight", "cls.predictions.*", "lm_head.*", "vocab_transform.*", "vocab_layer_norm.*",
          "vocab_projector.*")  # fmt: skip
"""Second heads, and output matrices that are the embedding."""
DEBERTA_UNUSED = (*UNUSED, "mask_predictions.*", "lm_predictions.*", "*.embeddings.position_embeddings.*")

FAMILIES: dict[str, Family] = {
    "bert": Family(bert, _bert_names, "bert.", Headed, ignore=UNUSED, kind="encoder"),
    "roberta": Family(roberta, _roberta_names, "roberta.", Headed, ignore=UNUSED, kind="encoder"),
    "xlm-roberta": Family(roberta, _roberta_names, "roberta.", Headed, ignore=UNUSED, kind="encoder"),
    "camembert": Family(roberta, _roberta_names, "roberta.", Headed, ignore=UNUSED, kind="encoder"),
    "distilbert": Family(distilbert, _distilbert_names, "distilbert.", Headed, ignore=UNUSED, kind="encoder"),
    "mpnet": Family(mpnet, _mpnet_names, "mpnet.", Headed, ignore=UNUSED, kind="encoder"),
    "deberta": Family(deberta, _deberta_v1_names, "deberta.", Headed, ignore=DEBERTA_UNUSED, kind="encoder"),
    "deberta-v2": Family(deberta, _deberta_names, "deberta.", Headed, ignore=DEBERTA_UNUSED, kind="encoder"),
}  # fmt: skip
