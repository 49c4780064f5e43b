"""What an independent recogniser understands of speech, so that a voice, a codec or a change of voice can be judged by
its word errors (`metrics/word_errors.py`).

It is pocketsphinx (Huggins-Daines et al. 2006; BSD licence), which carries its own American English model. It makes
mistakes of its own: what counts is the distance to what it makes of the same speech before, or of the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress

RATE = 16_000


def heard(
    sounds: Iterable[np.ndarray], count: int, note: str, tell: Callable[[Event], None] | None = None
) -> Iterator[str]:
    """What the recogniser understands of each of `count` sounds, int16 at `RATE`; a `Progress` with the note after
    each. `ConjureError` where it is not installed."""
    try:
        from pocketsphinx import Decoder  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConjureError("measuring a voice needs pocketsphinx", hint="pip install 'conjure[sound]'") from None
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    for number, samples in enumerate(sounds, start=1):
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        if tell:
            tell(Progress(number, count, "sentence", note))
        yield found.hypstr if found else ""
