"""Tiny random Whispers of the reference implementation that hear two seconds, saved as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.models.public.references import randomised, saved

SECONDS = 2
LANGUAGES = ("en", "de", "fr", "ja", "jw")
TEXTS = ["the sea was blue, and the letter was red.", "Alice wrote it in Paris!", "“who is it?” she said"]


def tokenizer(folder: Path, *, english: bool = False) -> dict[str, int]:
    """Byte-level BPE with the marks behind it, in Whisper's order; returns their ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    spoken = LANGUAGES[:1] if english else LANGUAGES
    marks = ["endoftext", "startoftranscript", *spoken, "translate", "transcribe", "startoflm", "startofprev",
             "nospeech", "notimestamps"]  # fmt: skip
    backend.add_special_tokens([AddedToken(f"<|{each}|>", special=True) for each in marks])
    backend.add_tokens([AddedToken(f"<|{0.02 * n:.2f}|>", special=False) for n in range(50 * SECONDS + 1)])
    backend.save(str(folder / "tokenizer.json"))
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "WhisperTokenizer", **roles}))
    vocabulary = backend.get_vocab(with_added_tokens=True)
    return {each: vocabulary[f"<|{each}|>"] for each in marks}


def whisper(
    folder: Path, *, english: bool = False, seed: int = 0, bands: int = 80, **said: Any
) -> Path:
    """`said` goes into generation_config.json (None takes a key out)."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = tokenizer(folder, english=english)
    vocab = ids["notimestamps"] + 50 * SECONDS + 2
    config = tf.WhisperConfig(
        vocab_size=vocab, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=40, num_mel_bins=bands,
        max_source_positions=50 * SECONDS, max_target_positions=64, pad_token_id=ids["endoftext"],
        bos_token_id=ids["endoftext"], eos_token_id=ids["endoftext"], decoder_start_token_id=ids["startoftranscript"],
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model: Any = randomised(tf.WhisperForConditionalGeneration(config), seed)
    with torch.no_grad():
        model.model.decoder.embed_positions.weight *= 5  # else it says the same token for ever
        model.model.decoder.embed_tokens.weight[ids["endoftext"]] *= 1.7  # ... and to the last place there is
        for layer in model.model.decoder.layers:
            layer.encoder_attn.out_proj.weight *= 4  # ... whatever it hears
    saved(model, folder)
    silent = [index for name, index in ids.items() if name not in ("endoftext", "notimestamps")]
    generation: dict[str, Any] = {
        "pad_token_id": ids["endoftext"], "bos_token_id": ids["endoftext"], "eos_token_id": ids["endoftext"],
        "decoder_start_token_id": ids["startoftranscript"], "no_timestamps_token_id": ids["notimestamps"],
        "prev_sot_token_id": ids["startofprev"], "max_initial_timestamp_index": 25, "max_length": 64,
        "suppress_tokens": [1, 2, 7, *silent], "return_timestamps": False,
        "begin_suppress_tokens": [220, ids["endoftext"]], "alignment_heads": [[1, 0], [2, 3], [1, 2]],
        "is_multilingual": not english,
    }  # fmt: skip
    if not english:
        generation["lang_to_id"] = {f"<|{each}|>": ids[each] for each in LANGUAGES}
        generation["task_to_id"] = {each: ids[each] for each in ("transcribe", "translate")}
    generation = {name: value for name, value in {**generation, **said}.items() if value is not None}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    extractor = {"chunk_length": SECONDS, "feature_size": bands, "feature_extractor_type": "WhisperFeatureExtractor",
                 "hop_length": 160, "n_fft": 400, "sampling_rate": 16_000}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder


def reference(folder: Path) -> Any:
    return tf.WhisperForConditionalGeneration.from_pretrained(folder).eval()
