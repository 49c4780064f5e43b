"""Public models that write letters for each frame of a wave (wav2vec 2.0, HuBERT, XLSR, MMS with its languages), as a
`Listener`.

Legend: N samples, B parts, T frames, V letters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from conjure.codecs.language_names import code_of
from conjure.codecs.tokenizer import Tokenizer
from conjure.codecs.voice_activity import Floats
from conjure.core.errors import ConjureError
from conjure.core.json_files import read_json
from conjure.models.language import LanguageModel, Weights, shrunk
from conjure.models.listener import Heard, Listener
from conjure.models.public.towers import speak
from conjure.models.speech_tower import SpeechTower
from conjure.models.wave_input import WaveInput

ROLE = re.compile(r"<.+>|\[.+\]")
"""How letters that are none are written: <s>, [PAD]."""
SHOWN = 40
"""Languages that an error lists."""


def languages(folder: Path) -> tuple[str, ...]:
    """The codes of the languages whose letters a model knows; none where it has one alphabet alone."""
    said = read_json(folder / "vocab.json")
    return tuple(said) if said and all(isinstance(letters, dict) for letters in said.values()) else ()


def load_listener(folder: Path, weights: Weights | None = None, language: str = "") -> tuple[LanguageModel, Listener]:
    """(the model, what it hears with). `language` is a name or code: with MMS it chooses adapters and letters, by the
    file `adapter.CODE.safetensors`; none is the one that the model's files name.

    Raises `ConjureError` for a language that the model does not know or whose file is not there, and for a model
    without letters.
    """
    if not (folder / "vocab.json").is_file():
        raise ConjureError(f"{folder} has no vocab.json: the letters that the model writes are not known",
                           hint="fetch the model again, with all of its files")  # fmt: skip
    codes = languages(folder)
    model = LanguageModel.load(folder, weights=None if codes else weights)
    network = model.network
    if not isinstance(network, SpeechTower) or not network.config.vocab:
        raise ConjureError(f"{folder.name} gives no letters: expected a model with a CTC head (...ForCTC)",
                           hint="for example: conjure models get facebook/wav2vec2-base-960h")  # fmt: skip
    code = ""
    if codes:
        code = _chosen(folder, codes, language)
        _speaking(network, folder, code)
        if weights not in (None, "auto"):
            model.network = network = shrunk(network, weights)
    return model, listener(network, folder, Tokenizer.load(folder, code), code)


def listener(network: SpeechTower, folder: Path, tokenizer: Tokenizer, language: str = "") -> Listener:
    """The network with the letters of its tokenizer and the front end of its files."""
    c, how = network.config, WaveInput.of(folder, level=True)
    blank = tokenizer.id(tokenizer.parts.blank or "<pad>")
    if blank is None or blank >= c.vocab:
        raise ConjureError(f"{folder / 'vocab.json'}: expected the blank below {c.vocab}, got {blank}",
                           hint="the letters belong to another model")  # fmt: skip
    fewest = 1
    for kernel, stride in zip(reversed(c.kernels), reversed(c.strides), strict=True):
        fewest = (fewest - 1) * stride + kernel
    # Without a word about masks, models that norm a channel over time get none, and the others get one.
    hides = c.convolution_norm == "all" if how.hides is None else how.hides
    together = hides and c.convolution_norm == "all" and not c.shorter
    lower = bool(read_json(folder / "tokenizer_config.json").get("do_lower_case"))
    return Listener(
        partial(_heard, network, how, together), _alphabet(tokenizer, c.vocab), rate=how.rate,
        hop=math.prod(c.strides) * c.shorter_stride**c.shorter, blank=blank, least=fewest, language=language,
        write=_lowered if lower else str.strip,
    )  # fmt: skip


@torch.inference_mode()
def _heard(network: SpeechTower, how: WaveInput, together: bool, sounds: Sequence[Floats]) -> list[Heard]:
    """Log-probabilities float32 `[T, V]` of each sound; all at once where what fills them up can be hidden."""
    if not together:
        return [Heard(network.logits(how.row(sound)).log_softmax(-1)[0]) for sound in sounds]
    lengths = torch.tensor([len(sound) for sound in sounds])
    waves_BN = torch.zeros(len(sounds), int(lengths.max()))
    for row, sound in enumerate(sounds):
        waves_BN[row, : len(sound)] = how.row(sound)[0]
    mask_BN = torch.arange(waves_BN.shape[1]) < lengths[:, None]
    found_BTV = network.logits(waves_BN, mask_BN).log_softmax(-1)
    return [Heard(row_TV[:T]) for row_TV, T in zip(found_BTV, network.config.frames(lengths).tolist(), strict=True)]


def _alphabet(tokenizer: Tokenizer, size: int) -> list[str]:
    """What each id writes: " " for the border of words, nothing for those with a role."""
    texts = [""] * size
    for text, index in tokenizer.backend.get_vocab(with_added_tokens=False).items():
        if index < size and index not in tokenizer.specials and not ROLE.fullmatch(text):
            texts[index] = " " if text == tokenizer.parts.gap else text
    return texts


def _chosen(folder: Path, codes: Sequence[str], language: str) -> str:
    """The code of a language among those that the model knows."""
    named = language or str(read_json(folder / "tokenizer_config.json").get("target_lang") or "")
    listed = ", ".join(codes[:SHOWN]) + (f" and {len(codes) - SHOWN} more" if len(codes) > SHOWN else "")
    if not named:
        raise ConjureError(f"{folder.name} hears {len(codes)} languages and cannot tell them apart",
                           hint=f"say which: --language CODE; it knows {listed}")  # fmt: skip
    try:
        return code_of(named, codes)
    except ConjureError as error:
        raise ConjureError(str(error), hint=f"{error.hint}; it knows {listed}") from None


def _speaking(network: SpeechTower, folder: Path, code: str) -> None:
    """The network with the adapters of a language. Those of the language that the files name are in it already."""
    file = folder / f"adapter.{code}.safetensors"
    if file.is_file():
        speak(network, file)
    elif code != read_json(folder / "tokenizer_config.json").get("target_lang"):
        there = sorted(each.name.split(".")[1] for each in folder.glob("adapter.*.safetensors"))
        repo = "/".join(folder.parent.parent.name.split("--")[1:]) if folder.parent.name == "snapshots" else ""
        fetch = f"conjure models get {repo} --language {code}" if repo else "fetch that file into the folder"
        raise ConjureError(
            f"{folder} has no {file.name}, which the language '{code}' takes",
            hint=f"{fetch}; adapters are there for {', '.join(there[:SHOWN]) or 'no language'}",
        )


def _lowered(text: str) -> str:
    return text.strip().lower()
