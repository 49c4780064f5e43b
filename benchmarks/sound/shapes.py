"""Whispers with random weights in the published sizes: all programs read the same files.

`python -m benchmarks.sound.shapes FOLDER SIZE` writes one, in a process of its own: what the libraries weigh that it
takes would be counted to every process that is started from there.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.sound.work import CHUNK, RATE

TEXT, TIMES = 50_257, 1501
"""Tokens of text of the published models, and of times."""
LANGUAGES = 99
SIZES: dict[str, dict[str, int]] = {
    "toy": {"d_model": 32, "layers": 2, "heads": 2, "ffn": 64},
    "tiny": {"d_model": 384, "layers": 4, "heads": 6, "ffn": 1536},
    "base": {"d_model": 512, "layers": 6, "heads": 8, "ffn": 2048},
    "small": {"d_model": 768, "layers": 12, "heads": 12, "ffn": 3072},
}
COUNTS = {"toy": 600}
"""Tokens of text where there are fewer."""


def marks(size: str) -> list[str]:
    """The special tokens behind the text, in Whisper's order."""
    codes = ["en", *(f"{a}{b}" for a in "qxz" for b in "abcdefghijklmnopqrstuvwxyz")]
    codes += [f"k{b}x" for b in "abcdefghijklmnopqrstuvwxyz"]
    spoken = codes[: 3 if size == "toy" else LANGUAGES]
    names = ["endoftext", "startoftranscript", *spoken, "translate", "transcribe", "startoflm", "startofprev",
             "nospeech", "notimestamps"]  # fmt: skip
    return [f"<|{name}|>" for name in names]


def write(folder: Path, size: str) -> Path:
    """The model as the hub has it; what is there is not written again."""
    at = folder / size
    if not (at / "model.safetensors").is_file():
        _write(at, size)
    return at


def convert(at: Path) -> None:
    """The same for CTranslate2, where that is installed, in a folder below."""
    if find_spec("ctranslate2") and not (at / "ctranslate2" / "model.bin").is_file():
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(at)).convert(str(at / "ctranslate2"), force=True)


def _write(at: Path, size: str) -> None:
    import torch
    import transformers

    at.mkdir(parents=True, exist_ok=True)
    ids, shape = _tokenizer(at, size), SIZES[size]
    end = ids["<|endoftext|>"]
    said: dict[str, Any] = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end,
                            "decoder_start_token_id": ids["<|startoftranscript|>"]}  # fmt: skip
    config = transformers.WhisperConfig(
        vocab_size=max(ids.values()) + 1 + _times(size), d_model=shape["d_model"],
        encoder_layers=shape["layers"], decoder_layers=shape["layers"], encoder_ffn_dim=shape["ffn"],
        encoder_attention_heads=shape["heads"], decoder_attention_heads=shape["heads"], decoder_ffn_dim=shape["ffn"],
        max_source_positions=50 * CHUNK[size], max_target_positions=448, suppress_tokens=None,
        begin_suppress_tokens=None, **said,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for layer in model.model.decoder.layers:  # else all sounds are alike to it
            layer.encoder_attn.out_proj.weight *= 8
        model.model.decoder.embed_positions.weight *= 3
    model.save_pretrained(at)
    languages = {mark: index for mark, index in ids.items() if mark in marks(size)[2:-6]}
    generation = {
        **said, "no_timestamps_token_id": ids["<|notimestamps|>"], "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 50, "max_length": 448, "return_timestamps": False, "is_multilingual": True,
        "lang_to_id": languages, "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        "alignment_heads": [[shape["layers"] - 1, 0]], "suppress_tokens": [end], "begin_suppress_tokens": [],
    }  # fmt: skip
    (at / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    extractor = {"chunk_length": CHUNK[size], "feature_size": 80, "feature_extractor_type": "WhisperFeatureExtractor",
                 "hop_length": 160, "n_fft": 400, "sampling_rate": RATE, "n_samples": CHUNK[size] * RATE,
                 "nb_max_frames": CHUNK[size] * 100, "padding_side": "right", "padding_value": 0.0,
                 "return_attention_mask": False}  # fmt: skip
    (at / "preprocessor_config.json").write_text(json.dumps(extractor), encoding="utf-8")


def _times(size: str) -> int:
    return 50 * CHUNK[size] + 1


def _tokenizer(at: Path, size: str) -> dict[str, int]:
    """Bytes, words that only the model itself writes, the marks and the times; the ids of the marks."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    count = COUNTS.get(size, TEXT) - 1  # the end is counted there
    words = [*alphabet, *(f"Ġw{number}" for number in range(count - len(alphabet)))]
    backend = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in marks(size)])
    backend.add_tokens([AddedToken(f"<|{0.02 * n:.2f}|>", special=False) for n in range(_times(size))])
    backend.save(str(at / "tokenizer.json"))
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    (at / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "WhisperTokenizer", **roles}), encoding="utf-8"
    )
    (at / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (at / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    vocabulary = backend.get_vocab(with_added_tokens=True)
    return {mark: vocabulary[mark] for mark in marks(size)}


if __name__ == "__main__":
    convert(write(Path(sys.argv[1]), sys.argv[2]))
