"""Tiny random SpeechT5s of the reference implementation, in folders as the hub has them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers as tf

from tests.models.public.references import randomised

TEXTS = ["the sea was blue, and the letter was red.", "Alice wrote it in Paris!", "who is it? she said"]
SMALL: dict[str, Any] = {
    "hidden_size": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_layers": 2,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 20, "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "num_mel_bins": 6, "speech_decoder_prenet_units": 12,
    "speaker_embedding_dim": 10, "speech_decoder_postnet_units": 8, "speech_decoder_postnet_layers": 3,
    "max_speech_positions": 60, "max_text_positions": 60, "encoder_max_relative_position": 5,
}  # fmt: skip
FORMS = {"text": "SpeechT5ForSpeechToText", "voice": "SpeechT5ForTextToSpeech", "change": "SpeechT5ForSpeechToSpeech"}
GAN: dict[str, Any] = {"model_in_dim": 6, "upsample_initial_channel": 16, "upsample_rates": [16, 16],
                       "upsample_kernel_sizes": [32, 32], "resblock_kernel_sizes": [3],
                       "resblock_dilation_sizes": [[1, 3]]}  # fmt: skip


def characters(folder: Path) -> int:
    """spm_char.model and what belongs to it; returns the size of the vocabulary with its last two tokens."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=out, model_type="char", vocab_size=40, bos_id=0, pad_id=1, eos_id=2,
        unk_id=3, hard_vocab_limit=False, character_coverage=1.0, minloglevel=3,
    )  # fmt: skip
    (folder / "spm_char.model").write_bytes(out.getvalue())
    size = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue()).get_piece_size()
    (folder / "added_tokens.json").write_text(json.dumps({"<mask>": size, "<ctc_blank>": size + 1}))
    said = {"tokenizer_class": "SpeechT5Tokenizer", "mask_token": "<mask>", "normalize": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return size + 2


def reference(form: str, vocab: int = 40, seed: int = 0, **more: Any) -> Any:
    model = randomised(getattr(tf, FORMS[form])(tf.SpeechT5Config(**{**SMALL, "vocab_size": vocab, **more})), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def speecht5(folder: Path, form: str, *, seed: int = 0, over: float = 0.0, **more: Any) -> tuple[Path, Any]:
    """(folder, model). `over` is added to the chance, before its sigmoid, that speech ends."""
    folder.mkdir(parents=True, exist_ok=True)
    model: Any = reference(form, characters(folder), seed, **more)
    if form != "text":
        model.speech_decoder_postnet.prob_out.bias += over
    model.save_pretrained(folder)
    front = {"feature_extractor_type": "SpeechT5FeatureExtractor", "sampling_rate": 16_000, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(front))
    return folder, model


def vocoder(folder: Path) -> tuple[Path, Any]:
    """(folder, model), a hop of 256 samples."""
    model: Any = randomised(tf.SpeechT5HifiGan(tf.SpeechT5HifiGanConfig(**GAN)), 3)
    model.mean.copy_(torch.linspace(-1, 1, 6))
    model.scale.copy_(torch.linspace(0.5, 2, 6))
    model.save_pretrained(folder)
    return folder, model
