"""What tasks share that speak in the voice of a person: whose it is, who agreed, and the vocoder.

The words of the consent are an option, so they stand in the record of every file that is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.tasks.inputs import LOCAL

if TYPE_CHECKING:
    from torch import Tensor

    from conjure.models.speecht5_voice import SpeechT5Voice

VOCODER = "microsoft/speecht5_hifigan"
SHORTEST = 8
"""Characters of a consent."""
VOICE: Any = Field(
    default="", description="file with the numbers of a speaker (.npy, .safetensors)", json_schema_extra=LOCAL
)
VOCODED: Any = Field(
    default="", description=f"what makes a wave of the frames of a SpeechT5 (none: {VOCODER})", json_schema_extra=LOCAL
)
CONSENT: Any = Field(
    default="", description="who agreed that this voice is used, and how; kept in the record", max_length=2000
)
"""The options `voice`, `vocoder` and `consent`."""
LIKE: Any = Field(
    default=0.3, ge=0, le=1, description="0: clearest words; 1: frames of the sample alone, nearest to it, least clear"
)
"""The option `like` of what takes a voice from a sample (`sampled_voice.py`)."""


def consented(consent: str) -> None:
    """Refuses to speak in the voice of somebody of whom nobody says that they agreed."""
    if len(consent.strip()) < SHORTEST:
        raise ConjureError(
            "to speak in the voice of a person takes that person's consent",
            hint='say who agreed and how, it is written into the file: --consent "Ann Lee, by letter of 3 May"',
        )


def opened(folder: Path, vocoder: str) -> SpeechT5Voice:
    """A SpeechT5 with its vocoder: the one that is named, that lies in its folder, or the usual one."""
    from conjure.models.speecht5_voice import SpeechT5Voice

    beside = folder / "vocoder"
    path = beside if not vocoder and (beside / "config.json").is_file() else shelf.find(vocoder or VOCODER)
    return SpeechT5Voice.load(folder, path)


def speaker(voice: str, model: SpeechT5Voice) -> Tensor:
    """The vector in the file that was named."""
    from conjure.models.speecht5_voice import speaker_vector

    if not voice:
        raise ConjureError("this model speaks in the voice that numbers stand for: expected a file of them",
                           hint="--voice speaker.npy, an x-vector of 512 numbers")  # fmt: skip
    return speaker_vector(Path(voice), model.network.config.speaker)
