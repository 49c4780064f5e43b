"""Real speech with its text: the prompts of a telephone exchange (data set `asterisk_prompts`), read by one person.

Allison Smith recorded them for Asterisk; Debian has them as G.722 at 16 kHz (50 to 7,000 Hz), with a list of what is
said. Letters, beeps and what only spells an abbreviation are left out. Of the sentences among them one in `TENTH` is
for tests.

Legend: N samples.
"""

from __future__ import annotations

import gzip
import io
import re
from functools import lru_cache

import numpy as np

from conjure.codecs.plain_letters import spelled
from conjure.codecs.spoken_text import expanded
from conjure.core.errors import ConjureError
from conjure.data.archives import deb_files
from conjure.data.fetch import available
from conjure.data.spoilt_sound import RATE, Floats

PROMPTS = "asterisk_prompts"
TENTH = 10
_AROUND, _LEAST, _MOST = 0.8, 5.0, 24.0
"""Seconds of silence that may be around a prompt; letters a second: what has fewer is a list with pauses or no speech,
what has more was cut or says something else."""
_SENTENCE = 4
"""Words of the shortest that is for tests."""


@lru_cache(maxsize=2)
def telephone_prompts(part: str) -> tuple[tuple[str, Floats], ...]:
    """(what is said, spelled; samples at 16 kHz) of "train" or "test", in order of name; none where the set is not on
    this machine. Raises `ConjureError` where PyAV is missing or a recording is broken."""
    folder = available(PROMPTS)
    if folder is None:
        return ()
    texts, sounds = dict[str, str](), dict[str, bytes]()
    for package in sorted(folder.glob("*.deb")):
        for _, data in deb_files(package, "*core-sounds-en.txt.gz"):
            texts |= _listed(gzip.decompress(data).decode("utf-8"))
        sounds |= {_name(name): data for name, data in deb_files(package, "*.g722")}
    found = list[tuple[str, str, Floats]]()
    for name in sorted(texts.keys() & sounds.keys()):
        samples_N = decoded(sounds[name], name)
        letters, seconds = len(texts[name].replace(" ", "")), len(samples_N) / RATE
        if _LEAST * (seconds - _AROUND) <= letters <= _MOST * seconds:
            found.append((name, texts[name], samples_N))
    long = [name for name, text, _ in found if len(text.split()) >= _SENTENCE]
    kept = set(long[TENTH - 1 :: TENTH])
    return tuple((text, samples_N) for name, text, samples_N in found if (name in kept) == (part == "test"))


def decoded(data: bytes, where: str) -> Floats:
    """G.722 (ITU-T, 1988) without a header as samples at 16 kHz."""
    try:
        import av  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConjureError("G.722 is read through PyAV, which is not installed",
                           hint="pip install 'conjure[sound]'") from None  # fmt: skip
    try:
        with av.open(io.BytesIO(data), "r", format="g722") as container:
            parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except (av.FFmpegError, ValueError) as error:
        raise ConjureError(f"{where}: expected G.722, it could not be read: {error}") from None
    if not parts:
        raise ConjureError(f"{where}: expected G.722, found no sound")
    return np.concatenate(parts).astype(np.float32) * np.float32(2**-15)


def _listed(lines: str) -> dict[str, str]:
    """Name -> what is said, of lines "name: text"; `;` begins a comment."""
    pairs = [line.split(":", 1) for line in lines.splitlines() if ":" in line and not line.startswith(";")]
    said = {name.strip(): text.strip() for name, text in pairs}
    plain = {name: text for name, text in said.items() if text and not re.search(r"[\[\](){}<>@]", text)
             and not name.startswith(("letters/", "spy-"))}  # fmt: skip
    return {name: spelled(expanded(text)) for name, text in plain.items()}


def _name(path: str) -> str:
    """`digits/1` of usr/share/asterisk/sounds/VOICE/digits/1.g722."""
    return path.split("/sounds/", 1)[-1].split("/", 1)[-1].removesuffix(".g722")
