"""Public tokenizers in every form of files, loaded by us and by transformers or the sentencepiece package."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece as peer
import transformers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from conjure.codecs.languages import M2M100, MBART, MBART50
from conjure.codecs.tokenizer import Tokenizer
from conjure.codecs.tokenizer_files import CLIP_WORDS
from conjure.core.errors import ConjureError

ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def folder(place: Path, config: dict[str, Any], **files: object) -> Path:
    """A model folder; in names of files `__` is a dot."""
    place.mkdir(exist_ok=True)
    for name, content in {"tokenizer_config__json": config, **files}.items():
        data = content if isinstance(content, (bytes, str)) else json.dumps(content)
        (place / name.replace("__", ".")).write_bytes(data if isinstance(data, bytes) else data.encode())
    return place


def bpe(lines: list[str], special: list[str], clip: bool = False) -> dict[str, object]:
    """vocab.json and merges.txt."""
    backend = Backend(models.BPE(end_of_word_suffix="</w>") if clip else models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if clip:
        backend.normalizer = normalizers.Lowercase()
        cut = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([cut, backend.pre_tokenizer])
    suffix = {"end_of_word_suffix": "</w>"} if clip else {}
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False, **suffix,
    )  # fmt: skip
    backend.train_from_iterator(lines, trainer)
    model = json.loads(backend.to_str())["model"]
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    return {"vocab__json": model["vocab"], "merges__txt": f"#version: 0.2\n{merges}"}


def spm(lines: list[str], **options: Any) -> bytes:
    out = io.BytesIO()
    peer.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=800, hard_vocab_limit=False, minloglevel=2,
        num_threads=1, character_coverage=0.98, **options,
    )  # fmt: skip
    return out.getvalue()


def pieces_of(data: bytes) -> peer.SentencePieceProcessor:
    return peer.SentencePieceProcessor(model_proto=data)


@pytest.fixture(scope="module")
def unigram(mixed_lines: list[str]) -> bytes:
    return spm(mixed_lines[2400:])


@pytest.fixture(scope="module")
def unigram_of_t5(mixed_lines: list[str]) -> bytes:
    return spm(mixed_lines[2400:], **T5)


def same(lines: list[str], ours: Callable[[str], list[int]], theirs: Callable[[str], list[int]]) -> None:
    assert [line for line in lines if ours(line) != theirs(line)] == []


def full(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: tokenizer.encode(text, special=True)


def moved(ids: list[int]) -> list[int]:
    """SentencePiece's ids in fairseq's order."""
    return [index + 1 if index else 3 for index in ids]


def extra(first: int, *names: str) -> dict[str, Any]:
    flags = {"special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    return {str(first + i): {"content": name, **flags} for i, name in enumerate(names)}


OPT = {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
WHISPER = extra(900, "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")
BYTE_LEVEL: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "gpt2": ("GPT2", ["<|endoftext|>"], {}),
    "opt": ("GPT2", ANGLES[:4], OPT),
    "roberta": ("Roberta", ANGLES, {}),
    "bart": ("Bart", ANGLES, {"add_prefix_space": True}),
    "qwen2": ("Qwen2", ["<|endoftext|>"], {"added_tokens_decoder": extra(900, "<|im_start|>", "<|im_end|>")}),
    "clip": ("CLIP", ["<|startoftext|>", "<|endoftext|>"], {}),
    "whisper": ("Whisper", ["<|endoftext|>"], {"added_tokens_decoder": WHISPER}),
}


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_byte_level_bpe(name: str, mixed_lines: list[str], tmp_path: Path) -> None:
    kind, special, config = BYTE_LEVEL[name]
    files = bpe(mixed_lines[2400:], special, clip=kind == "CLIP")
    place = folder(tmp_path, {"tokenizer_class": f"{kind}Tokenizer", **config}, **files)
    ours, theirs = Tokenizer.load(place), transformers.AutoTokenizer.from_pretrained(place)
    same(mixed_lines, full(ours), lambda text: theirs(text)["input_ids"])
    roles = "bos eos unk mask cls sep".split()
    assert [getattr(ours, role) for role in roles] == [getattr(theirs, f"{role}_token_id") for role in roles]
    assert ours.size == len(theirs)
    for first, second in zip(mixed_lines[50:100], mixed_lines[150:200]):
        assert ours.encode_pair(first, second)[0] == theirs(first, second)["input_ids"]
    for line in mixed_lines[50:300]:
        ids = ours.encode(line, special=True)
        wanted = theirs.decode(ids, skip_special_tokens=True)
        assert ours.decode(ids) == wanted or (kind == "CLIP" and ours.decode(ids).strip() == wanted.strip())


WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
WORD_PIECE: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "bert": ("Bert", WORDS, {}),
    "bert, cased": ("Bert", WORDS, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    "distilbert": ("DistilBert", WORDS, {"strip_accents": False}),
    "mpnet": ("MPNet", ["<pad>", "[UNK]", "<s>", "</s>", "<mask>"], {}),
}


@pytest.mark.parametrize("name", WORD_PIECE)
def test_word_piece(name: str, mixed_lines: list[str], tmp_path: Path) -> None:
    kind, special, config = WORD_PIECE[name]
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
    backend.train_from_iterator(mixed_lines[2400:], trainer)
    words = sorted(backend.get_vocab(), key=lambda word: backend.token_to_id(word) or 0)
    config = {"tokenizer_class": f"{kind}Tokenizer", **config}
    place = folder(tmp_path, config, vocab__txt="\n".join(words) + "\n")
    ours, theirs = Tokenizer.load(place), transformers.AutoTokenizer.from_pretrained(place)
    same(mixed_lines, full(ours), lambda text: theirs(text)["input_ids"])
    roles = ["pad", "unk", "mask", "cls", "sep"]
    assert [getattr(ours, role) for role in roles] == [getattr(theirs, f"{role}_token_id") for role in roles]
    for first, second in zip(mixed_lines[50:100], mixed_lines[150:200]):
        found = theirs(first, second)
        assert ours.encode_pair(first, second)[0] == found["input_ids"]
        assert "token_type_ids" not in found or ours.encode_pair(first, second)[1] == found["token_type_ids"]


# -- sentencepiece ----------------------------------------------------------------------------------------


def test_llama_and_what_is_saved_of_it(mixed_lines: list[str], tmp_path: Path) -> None:
    keep = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    data = spm(mixed_lines[2400:], model_type="bpe", byte_fallback=True, **keep)
    theirs = pieces_of(data)
    ours = Tokenizer.load(folder(tmp_path, {"tokenizer_class": "LlamaTokenizer"}, tokenizer__model=data))
    same(mixed_lines, full(ours), lambda text: [1, *theirs.Encode(text)])
    assert (ours.bos, ours.eos, ours.unk, ours.pad) == (1, 2, 0, None)
    saved = folder(tmp_path / "saved", {})
    ours.save(saved)
    loaded = transformers.AutoTokenizer.from_pretrained(saved)
    same(mixed_lines, full(ours), lambda text: loaded(text)["input_ids"])
    assert Tokenizer.load(saved).digest() == ours.digest()


def test_t5(unigram_of_t5: bytes, mixed_lines: list[str], tmp_path: Path) -> None:
    theirs = pieces_of(unigram_of_t5)
    count = theirs.GetPieceSize()
    ours = Tokenizer.load(folder(tmp_path, {"tokenizer_class": "T5Tokenizer"}, spiece__model=unigram_of_t5))
    same(mixed_lines, full(ours), lambda text: [*theirs.Encode(text), 1])
    assert ours.id("<extra_id_0>") == count + 99 and ours.id("<extra_id_99>") == count and ours.size == count + 100
    assert (ours.pad, ours.eos, ours.unk, ours.bos) == (0, 1, 2, None)
    assert ours.encode("<extra_id_3> </s>", special_in_text=True) == [count + 96, 1]
    assert not ours.specials - {2} & set(ours.encode("<extra_id_3> </s>"))
    saved = folder(tmp_path / "saved", {})
    ours.save(saved)
    assert (saved / "spiece.model").read_bytes() == unigram_of_t5
    same(mixed_lines[:300], full(Tokenizer.load(saved)), full(ours))


def test_xlm_roberta(unigram: bytes, mixed_lines: list[str], tmp_path: Path) -> None:
    theirs = pieces_of(unigram)
    files = {"sentencepiece.bpe.model": unigram, "config.json": {"model_type": "xlm-roberta"}}
    ours = Tokenizer.load(folder(tmp_path, {}, **files))
    same(mixed_lines, full(ours), lambda text: [0, *moved(theirs.Encode(text)), 2])
    assert ours.mask == theirs.GetPieceSize() + 1 and (ours.bos, ours.pad, ours.eos, ours.unk) == (0, 1, 2, 3)
    a, b = ours.encode("a"), ours.encode("b")
    assert ours.encode_pair("a", "b") == ([0, *a, 2, 2, *b, 2], [0] * (4 + len(a) + len(b)))
    places = ours.offsets("x  ｶﾞ ㈱y")
    assert len(places) == len(ours.encode("x  ｶﾞ ㈱y")) and places[-1][1] == len("x  ｶﾞ ㈱y")


def test_languages(unigram: bytes, mixed_lines: list[str], tmp_path: Path) -> None:
    assert len(MBART) == 25 and len(MBART50) == 52 and len(M2M100) == 100
    theirs = pieces_of(unigram)
    place = folder(tmp_path, {"tokenizer_class": "MBartTokenizer"}, **{"sentencepiece.bpe.model": unigram})
    mbart, reference = Tokenizer.load(place), transformers.AutoTokenizer.from_pretrained(place)
    french = mbart.id("fr_XX")
    assert french == reference.convert_tokens_to_ids("fr_XX") and mbart.mask == reference.mask_token_id
    same(mixed_lines[:300], full(mbart), lambda text: [*moved(theirs.Encode(text)), 2, mbart.id("en_XX") or 0])
    assert mbart.encode("a", special=True, language="fr_XX")[-2:] == [2, french]
    folder(tmp_path, {"tokenizer_class": "MBart50Tokenizer"})
    later = Tokenizer.load(place, language="fr_XX")
    assert later.encode("a", special=True) == [later.id("fr_XX"), *moved(theirs.Encode("a")), 2]
    assert later.id("sl_SI") == theirs.GetPieceSize() + 52
    with pytest.raises(ConjureError, match="no language 'xx'"):
        later.encode("a", special=True, language="xx")


def test_deberta(mixed_lines: list[str], tmp_path: Path) -> None:
    names = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    data = spm(mixed_lines[2400:], pad_id=0, bos_id=1, eos_id=2, unk_id=3, **names)
    theirs = pieces_of(data)
    ours = Tokenizer.load(folder(tmp_path, {"tokenizer_class": "DebertaV2Tokenizer"}, spm__model=data))
    same(mixed_lines, full(ours), lambda text: [1, *theirs.Encode(text), 2])
    assert ours.mask == theirs.GetPieceSize() and (ours.pad, ours.unk, ours.cls, ours.sep) == (0, 3, 1, 2)


def test_siglip(unigram_of_t5: bytes, mixed_lines: list[str], tmp_path: Path) -> None:
    place = folder(tmp_path, {"tokenizer_class": "SiglipTokenizer"}, spiece__model=unigram_of_t5)
    ours, theirs = Tokenizer.load(place), transformers.SiglipTokenizer.from_pretrained(place)
    same(mixed_lines[:1000], full(ours), lambda text: theirs(text)["input_ids"])


# -- two steps, and characters ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian(unigram: bytes, unigram_of_t5: bytes, mixed_lines: list[str], tmp_path: Path) -> None:
    both = map(pieces_of, (unigram, unigram_of_t5))
    pieces = {p.IdToPiece(i) for p in both for i in range(3, p.GetPieceSize())}
    words = ["</s>", "<unk>", *sorted(pieces)[::2], ">>fra<<", "<pad>"]  # half of the pieces are unknown
    vocabulary = {word: i for i, word in enumerate(words)}
    config = {"tokenizer_class": "MarianTokenizer"}
    place = folder(tmp_path, config, source__spm=unigram, target__spm=unigram_of_t5, vocab__json=vocabulary)
    ours, theirs = Tokenizer.load(place), transformers.MarianTokenizer.from_pretrained(place)
    lines = [*mixed_lines[:1000], ">>fra<< the quick fox"]
    same(lines, full(ours), lambda text: theirs(text)["input_ids"])
    same(lines, ours.encode_target, lambda text: theirs(text_target=text)["input_ids"])
    assert ours.encode(lines[-1])[0] == ours.id(">>fra<<") and (ours.eos, ours.unk, ours.pad) == (0, 1, len(words) - 1)
    assert len(ours.offsets("the quick fox")) == len(ours.encode("the quick fox"))
    for line in lines[:200]:
        ids = ours.encode_target(line)
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True)
    saved = folder(tmp_path / "saved", {})
    ours.save(saved)
    assert Tokenizer.load(saved).digest() == ours.digest()


def test_m2m100(unigram: bytes, mixed_lines: list[str], tmp_path: Path) -> None:
    pieces = [pieces_of(unigram).IdToPiece(i) for i in range(3, pieces_of(unigram).GetPieceSize())]
    vocabulary = {word: i for i, word in enumerate([*ANGLES[:4], *pieces])}
    config = {"tokenizer_class": "M2M100Tokenizer"}
    place = folder(tmp_path, config, **{"sentencepiece.bpe.model": unigram, "vocab.json": vocabulary})
    ours, theirs = Tokenizer.load(place), transformers.M2M100Tokenizer.from_pretrained(place, src_lang="fr")
    french = lambda text: ours.encode(text, special=True, language="fr")  # noqa: E731
    same(mixed_lines[:1000], french, lambda text: theirs(text)["input_ids"])
    assert ours.id("__zu__") == theirs.convert_tokens_to_ids("__zu__") and ours.languages["zu"] == "__zu__"


def test_ctc_characters(mixed_lines: list[str], tmp_path: Path) -> None:
    vocabulary = {text: i for i, text in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFéüйк'"])}
    config = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "do_lower_case": True}
    place = folder(tmp_path, config, vocab__json=vocabulary)
    ours, theirs = Tokenizer.load(place), transformers.Wav2Vec2CTCTokenizer.from_pretrained(place)
    same(mixed_lines, ours.encode, lambda text: theirs(text)["input_ids"])
    chance = random.Random(1)
    for _ in range(100):
        ids = [chance.choice([0, 0, 4, *range(5, 12)]) for _ in range(30)]
        assert ours.decode(ids) == theirs.decode(ids)
    e, t = vocabulary["E"], vocabulary["T"]
    assert ours.decode([0, e, e, 0, e, 4, 4, t, 0, 2]) == "ee t"
    folder(place, {}, vocab__json={"eng": vocabulary, "fra": {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}})
    assert Tokenizer.load(place, language="fra").encode("a b") == [3, 2, 1]
    with pytest.raises(ConjureError, match="'' is not among them"):
        Tokenizer.load(place)


# -- tokenizer.json and what stands beside it -------------------------------------------------------------


def test_tokenizer_json_with_its_config(mixed_lines: list[str], tmp_path: Path) -> None:
    parts = folder(tmp_path, {"tokenizer_class": "RobertaTokenizer"}, **bpe(mixed_lines[2400:], ANGLES))
    whole = folder(tmp_path / "whole", {})
    Tokenizer.load(parts).save(whole)
    ours = Tokenizer.load(whole)
    assert (ours.bos, ours.eos, ours.pad, ours.unk, ours.mask) == (0, 2, 1, 3, 4)
    assert ours.encode("a", special=True)[0] == 0
    (whole / "tokenizer_config.json").unlink()
    (whole / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": [2, 4], "pad_token_id": 1}')
    (whole / "special_tokens_map.json").write_text('{"mask_token": {"content": "<mask>"}, "pad_token": "</s>"}')
    ours = Tokenizer.load(whole)
    assert (ours.bos, ours.eos, ours.pad, ours.unk, ours.mask) == (0, 2, 2, None, 4)


def test_added_tokens_that_only_the_config_lists(mixed_lines: list[str], tmp_path: Path) -> None:
    files = bpe(mixed_lines[2400:], ["<|endoftext|>"])
    ours = Tokenizer.load(folder(tmp_path, {"added_tokens_decoder": extra(900, "<|a|>")}, **files))
    assert ours.id("<|a|>") == 900 and 900 in ours.specials and ours.size == 901
    assert 900 not in ours.encode("x<|a|>") and ours.encode("x<|a|>", special_in_text=True)[-1] == 900
    assert ours.decode([900]) == "" and ours.decode([900], skip_special=False) == "<|a|>"


def test_files_that_do_not_fit(mixed_lines: list[str], tmp_path: Path) -> None:
    files = bpe(mixed_lines[:200], ["<|endoftext|>"])
    with pytest.raises(ConjureError, match=r"looked for tokenizer\.json; vocab\.json with merges"):
        Tokenizer.load(tmp_path)
    folder(tmp_path, {}, vocab__json=files["vocab__json"], merges__txt="#version: 0.2\nqq zz\n")
    with pytest.raises(ConjureError, match="1 merges of unknown pieces"):
        Tokenizer.load(tmp_path)
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(ConjureError, match="two pieces on every line"):
        Tokenizer.load(tmp_path)
    folder(tmp_path, {"tokenizer_class": "RobertaTokenizer", "cls_token": ""}, **files)
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(ConjureError, match="expected a mapping, got list"):
        Tokenizer.load(tmp_path)
