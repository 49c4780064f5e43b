"""What a public model can be asked to do, by its files alone; its weights stay closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conjure.core import shelf
from conjure.core.errors import ConjureError

DECODER = ("continue", "complete", "chat", "answer", "translate", "summarise", "classify", "embed")
PAIRS = {
    "t5": ("chat", "translate", "summarise", "answer", "embed"),
    "mt5": ("chat", "translate", "summarise", "answer", "embed"),
    "umt5": ("chat", "translate", "summarise", "answer", "embed"),
    "bart": ("summarise", "chat", "embed"),
}
"""Encoder-decoders; all others translate."""
HEADS = {
    "ForMaskedLM": ("fill", "embed"),
    "ForPreTraining": ("fill", "embed"),
    "LMHeadModel": ("fill", "embed"),
    "ForSequenceClassification": ("classify", "embed"),
    "ForTokenClassification": ("classify", "embed"),
    "ForQuestionAnswering": ("answer", "embed"),
}
"""How the class names of encoders end."""
VOICES = ("vits", "speecht5", "hifigan", "speecht5_hifigan")
"""Families that speak or hear and are no language models."""
SPEECHT5 = {
    "ForSpeechToText": ("transcribe",),
    "ForTextToSpeech": ("speak",),
    "ForSpeechToSpeech": ("convert",),
}
SOUND_CODECS = ("encodec", "dac", "musicgen")
"""Families that send sound through codes and back, or write these codes."""
PAINTER = ("draw", "vary", "inpaint", "outpaint")
OWN = {
    "text_to_text": ("continue", "complete", "classify", "embed"),
    "chat": ("chat", "continue", "answer", "translate", "summarise", "classify", "embed"),
    "code_to_code": ("complete", "continue", "classify", "embed"),
}
"""What we trained, by the task it was trained for; the first is its own."""


def is_public(path: Path) -> bool:
    """Whether a model lies in the hub's layout, in diffusers' or in a single file, and not in our own."""
    if shelf.gguf_file(path) is not None or shelf.is_picture_model(path):
        return True
    config = _config(path)
    return "model_type" in config or ("format" not in config and "_class_name" not in config and "task" not in config)


def is_language_model(path: Path) -> bool:
    """Whether `models.language.LanguageModel` reads it."""
    if shelf.is_picture_model(path):
        return False
    config = {} if shelf.gguf_file(path) is not None else _config(path)
    if config.get("model_type") in (*VOICES, *SOUND_CODECS):
        return False
    return is_public(path) or (config.get("kind") == "transformer" and config.get("task") in OWN)


def abilities(path: Path) -> tuple[str, ...]:
    """The tasks that a public model, or one of language, can do, the usual one first; none for any other model.

    Raises `ConjureError` for a family that is not known.
    """
    if shelf.is_picture_model(path):
        return pictures(path)
    if shelf.gguf_file(path) is not None:
        return DECODER
    config = _config(path)
    if not is_public(path):
        return OWN.get(str(config.get("task")), ()) if config.get("kind") == "transformer" else ()
    from conjure.models.public.load import family_of  # imports torch

    kind, family = family_of(config)
    listed = config.get("architectures")
    name = str(listed[0]) if isinstance(listed, list) and listed else ""
    if family.kind == "pair":
        return PAIRS.get(kind, ("translate", "embed"))
    if family.kind == "encoder":
        return next((does for ending, does in HEADS.items() if name.endswith(ending)), ("embed",))
    if family.kind == "decoder":
        return ("classify",) if name.endswith("ForSequenceClassification") else DECODER
    if family.kind == "speech_to_text":
        return ("transcribe",)
    if family.kind == "sound_codec":
        return ("reconstruct",)
    if family.kind == "music":
        return ("compose",)
    if family.kind == "speech":
        return ("transcribe",) if name.endswith("ForCTC") else ()
    if family.kind == "voice":
        return ("speak",)
    if family.kind == "speecht5":
        return next((does for ending, does in SPEECHT5.items() if name.endswith(ending)), ())
    return ("embed",) if family.kind in ("contrastive", "text") else ()


def pictures(path: Path) -> tuple[str, ...]:
    """The same of a public picture model: those that read more channels than there are in noise change pictures."""
    from conjure.models.public import diffusers, single_file  # imports torch

    if path.is_file():
        kind, channels = single_file.channels(path)
    else:
        kind, part = diffusers.kind_of(diffusers.read_index(path)), path / "unet"
        channels = int(diffusers.read_json(part / "config.json").get("in_channels") or 4) if part.is_dir() else 4
    if kind not in ("sd", "sdxl"):
        return ("draw",) if kind == "dit" else PAINTER
    return {4: (*PAINTER, "control"), 8: ("edit",), 9: ("inpaint", "outpaint")}.get(channels, ())


def writes_letters(path: Path) -> bool:
    """Whether a public model of speech was trained by CTC: a letter for each frame (wav2vec 2.0 and its kin)."""
    listed = _config(path).get("architectures")
    return bool(isinstance(listed, list) and listed and str(listed[0]).endswith("ForCTC"))


def family_name(path: Path) -> str:
    """`model_type` of a public model's config.json."""
    return str(_config(path).get("model_type") or "")


def cannot(name: str, path: Path, task: str) -> ConjureError:
    """The refusal that says what the model can do instead."""
    can = abilities(path)
    what = ", ".join(dict.fromkeys(can)) or "nothing that is known here"
    return ConjureError(f"{name} cannot {task}: it can {what}", hint=f"--task {can[0]}" if can else "choose another")


def _config(path: Path) -> dict[str, Any]:
    return shelf.read_config(path)
