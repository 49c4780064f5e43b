"""What every server opens: a llama shape with random weights and a tokenizer, in the hub's layout and as GGUF."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.decoders.shapes import SHAPES, write, write_gguf

SPECIAL = ("<pad>", "<s>", "</s>")
MERGE = ("Ġ", "t")  # GGUF holds no empty list of merges


def words(size: int) -> list[str]:
    """The tokens: special ones, the bytes, one merge, and words that only the model itself writes."""
    from tokenizers import pre_tokenizers

    known = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "".join(MERGE)]
    return [*known, *(f"Ġw{number}" for number in range(size - len(known)))]


def prompt(row: int, tokens: int) -> str:
    """A text of so many tokens, another one for each row: every character is one."""
    state, letters = 12345 + row, []
    for _ in range(tokens):
        state = (1103515245 * state + 12345) % 2**31
        letters.append("abcdefghijklmnopqrsuvwxyz"[(state >> 8) % 25])
    return "".join(letters)


def folder(size: str, at: Path) -> Path:
    """The hub's layout; what is there is not written again."""
    at.mkdir(parents=True, exist_ok=True)
    if not (at / "model.safetensors").is_file():
        write(SHAPES[size], at)
    _tokenizer(SHAPES[size].vocab, at)
    return at


def _tokenizer(size: int, at: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words(size))}, [MERGE]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    made.save(str(at / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048,
              "clean_up_tokenization_spaces": False}  # fmt: skip
    config |= {f"{role}_token": word for role, word in zip(("pad", "bos", "eos"), SPECIAL, strict=True)}
    (at / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def gguf_file(size: str, at: Path, kind: str) -> Path:
    """The same weights and the same tokenizer as a GGUF file of this kind."""
    import gguf

    to = at / f"{kind}-words.gguf"
    if to.is_file():
        return to
    plain = write_gguf(SHAPES[size], at, kind)
    reader, out = gguf.GGUFReader(str(plain)), gguf.GGUFWriter(str(to), "llama")
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture", "tokenizer.")):
            out.add_key_value(name, field.contents(), field.types[0])
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(words(SHAPES[size].vocab))
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    out.add_token_types([control] * len(SPECIAL) + [normal] * (SHAPES[size].vocab - len(SPECIAL)))
    out.add_token_merges([" ".join(MERGE)])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(False)
    for tensor in reader.tensors:
        out.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    plain.unlink()
    return to
