"""Speech to teach a listener with: what flite's voices and espeak-ng say, digits and prompts by real people, and sounds
in which nobody speaks; at other speeds, in rooms, in noise, through a telephone.

The texts are those of `ljspeech_text`, part "train", without the sentences of which real sound is kept for tests
(`speech_lj24`) and one in `APART`, by which settings are chosen. The teachers' voices take turns by blocks of 64 texts,
and the pool that examples are drawn from grows block by block, so that training begins before all is rendered.
Renderings lie below the cache.

Legend: N samples, T texts, P phones.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from conjure.codecs.plain_letters import spelled
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.paths import cache_dir
from conjure.core.seeds import derive, rng
from conjure.data.archives import files
from conjure.data.fetch import available, get
from conjure.data.spoilt_sound import RATE, Floats, at_speed, nobody, spoilt
from conjure.data.teacher import BLOCK, VOICES, Renderings, sentences
from conjure.data.telephone_prompts import PROMPTS, telephone_prompts

ESPEAK = "espeak"
GROUP = 12
"""Examples that are drawn together, of about one length."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT = ("yweweler",)
"""Speakers of `fsdd` that no training hears."""
KEPT = tuple(f"LJ001-{n:04d}" for n in range(1, 25))
"""Sentences of `speech_lj24`."""
APART = 125
"""One sentence in so many is for choosing between settings."""
_ACCENTS = ("en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland")
VARIANTS = (
    *("", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt3"),
    *("klatt4", "croak", "Adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda"),
    *("benjamin", "boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "edward2", "gene", "gene2"),
    *("grandma", "grandpa", "gustave", "Henrique", "Hugo", "iven", "iven2", "iven3", "jacky", "john", "kaukovalta"),
    *("Lee", "linda", "marcelo", "Marco", "max", "michael", "michel", "miguel", "Nguyen", "norbert", "pablo", "paul"),
    *("pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph2", "steph3", "travis", "victor", "zac"),
    *("anika", "Mike"),
)
"""Voices of espeak-ng that are not robots."""
_SHORT, _LONG = 48, 190
"""Letters that the longest texts have at first and at last."""
_WARM = 500
"""Groups over which that grows."""
_SPEEDS, _OF_FEW = (0.87, 1.14), (0.8, 1.25)
"""At how many times their speed machines and real people are played, pitch and all: few people sound like more."""
_PROMPTED = (2.0, 12.0)
"""Seconds of prompts behind each other that make an example."""
_NOBODY = 0.03
"""Share of examples in which nobody speaks."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Sound float32 `[N]` at 16 kHz and what is said in it, spelled. Where the teacher told: phones as indices into
    `teacher.PHONES` `[P]`, their ends in samples."""

    samples: Floats
    text: str
    phones: np.ndarray | None = None
    ends: np.ndarray | None = None


@dataclass(frozen=True)
class Unit:
    """A block of texts by one voice."""

    voice: str
    texts: tuple[str, ...]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Letters of each text; 0 of those that are not to be used."""
        return np.array([0 if text in kept_texts() else len(spelled(text)) for text in self.texts])

    def clip(self, index: int) -> Clip:
        """One text, rendered with its whole block where it is not there yet."""
        text = spelled(self.texts[index])
        if self.voice == ESPEAK:
            return Clip(as_floats(_espeak_block(self.texts)[index]), text)
        said = _rendered(self.voice, self.texts)[index]
        return Clip(as_floats(said.samples), text, said.phones, said.ends)


class TeachingSpeech:
    """Example i is a pure function of (seed, i); `GROUP` examples after each other are of about one length.

    At first `blocks` rounds of the five voices are in the pool, one more every `grow` groups. `digits` and `prompts`
    are the shares of groups that are by real people: of `fsdd`, where it is on this machine, and of
    `asterisk_prompts`, which is fetched.
    """

    def __init__(
        self, seed: int = 0, *, blocks: int = 8, grow: int = 60, digits: float = 0.15, prompts: float = 0.0
    ) -> None:
        if min(digits, prompts) < 0 or digits + prompts > 1:
            raise ConjureError(f"expected shares of digits and prompts from 0 to 1 in all, got {digits:g}, {prompts:g}")
        self.seed, self.blocks, self.grow = seed, blocks, grow
        self.units = units()
        self.digits = real_digits("train") if digits else []
        self.prompts = telephone_prompts("train") if prompts and get(PROMPTS) else ()
        self.shares = (digits if self.digits else 0.0, prompts if self.prompts else 0.0)
        self._plan = lru_cache(maxsize=4)(self._draw_group)

    def pool(self, group: int) -> list[Unit]:
        """What a group is drawn from."""
        return self.units[: (len(VOICES) + 1) * (self.blocks + group // self.grow)]

    def example(self, index: int) -> Clip:
        """The sound as it is taught, spoilt as may be."""
        draw = rng(derive(self.seed, "clip", index))
        if draw.random() < _NOBODY:
            return Clip(nobody(draw), "")
        plan = self._plan(index // GROUP)
        if isinstance(plan, list):
            unit, place = plan[index % GROUP]
            clip, speeds, played = unit.clip(place), _SPEEDS, draw.random() < 0.6
        else:
            clip, speeds, played = plan(draw), _OF_FEW, True
        if played:
            factor = draw.uniform(*speeds)
            ends = None if clip.ends is None else clip.ends / factor
            clip = Clip(at_speed(clip.samples, factor), clip.text, clip.phones, ends)
        samples_N, before = spoilt(clip.samples, draw)
        return Clip(samples_N, clip.text, clip.phones, None if clip.ends is None else clip.ends + before)

    def _draw_group(self, group: int) -> list[tuple[Unit, int]] | Callable[[np.random.Generator], Clip]:
        """Units and places of the texts of a group, or what draws its examples of real people."""
        draw = rng(derive(self.seed, "group", group))
        kind = draw.random()
        if kind < self.shares[0]:
            return self._digits
        if kind < sum(self.shares):
            return partial(self._prompts, draw.uniform(*_PROMPTED))
        pool, most = self.pool(group), _SHORT + (_LONG - _SHORT) * min(1.0, group / _WARM)
        found = list[tuple[int, Unit, int]]()
        while len(found) < 12 * GROUP:
            unit = pool[int(draw.integers(len(pool)))]
            place = int(draw.integers(len(unit.texts)))
            if 0 < unit.lengths[place] <= most:
                found.append((int(unit.lengths[place]), unit, place))
        found.sort(key=lambda each: each[0])
        first = int(draw.integers(len(found) - GROUP + 1))
        return [(unit, place) for _, unit, place in found[first : first + GROUP]]

    def _digits(self, draw: np.random.Generator) -> Clip:
        """One to six digits by one real speaker."""
        speakers = sorted({speaker for speaker, _, _ in self.digits})
        own = [each for each in self.digits if each[0] == speakers[int(draw.integers(len(speakers)))]]
        count = int(draw.choice([1, 1, 2, 3, 4, 5, 6]))
        chosen = [own[int(n)] for n in draw.integers(len(own), size=count)]
        parts = list[Floats]()
        for _, _, samples_N in chosen:
            parts += [np.zeros(int(draw.uniform(0.03, 0.3) * RATE), np.float32), samples_N]
        return Clip(np.concatenate([*parts, parts[0]]), " ".join(NAMES[digit] for _, digit, _ in chosen))

    def _prompts(self, seconds: float, draw: np.random.Generator) -> Clip:
        """Prompts behind each other, together no longer than that."""
        parts, texts, room = [np.zeros(1, np.float32)], list[str](), int(seconds * RATE)
        while room > RATE and (fitting := [each for each in self.prompts if len(each[1]) <= room]):
            text, samples_N = fitting[int(draw.integers(len(fitting)))]
            pause_N = np.zeros(int(draw.uniform(0, 0.3) * RATE), np.float32)
            parts += [samples_N, pause_N]
            texts.append(text)
            room -= len(samples_N) + len(pause_N)
        return Clip(np.concatenate(parts), " ".join(texts))


def teaching_texts() -> tuple[str, ...]:
    """All sentences that may be taught."""
    return tuple(text for text in sentences("train") if text not in kept_texts())


def chosen_by() -> tuple[str, ...]:
    """The sentences that settings are chosen by: no training sees them, and no figure is reported on them."""
    return sentences("train")[APART - 1 :: APART]


def as_floats(samples_N: np.ndarray) -> Floats:
    """Of int16."""
    return samples_N.astype(np.float32) * np.float32(2**-15)


def units() -> list[Unit]:
    """All blocks in the order in which they join the pool: a round has one of each voice. Voice k says every fourth
    text from the k-th on, espeak-ng the texts from the last to the first."""
    texts = sentences("train")
    own = {voice: texts[k :: len(VOICES)] for k, voice in enumerate(VOICES)} | {ESPEAK: tuple(reversed(texts))}
    rounds = range(0, len(own[VOICES[0]]), BLOCK)
    found = [Unit(voice, own[voice][start : start + BLOCK]) for start in rounds for voice in own]
    return [unit for unit in found if unit.texts]


@lru_cache(maxsize=1)
def kept_texts() -> frozenset[str]:
    """The sentences that no training sees, as `ljspeech_text` writes them: those whose real sound is for tests, and
    those that settings are chosen by."""
    from conjure.data.archives import file

    lines = file(get("ljspeech_text"), "ljs_audio_text_train_filelist.txt").decode("utf-8").splitlines()
    pairs = [line.split("|", 1) for line in lines if "|" in line]
    return frozenset(text.strip() for name, text in pairs if Path(name).stem in KEPT) | frozenset(chosen_by())


def real_digits(part: str) -> list[tuple[str, int, Floats]]:
    """(speaker, digit, samples at 16 kHz) of `fsdd`: "train" by all but the speakers that are held out, without the
    takes 0 to 4; "test" every take of those speakers. Empty where the set is not on this machine."""
    folder = available("fsdd")
    if folder is None:
        return []
    from conjure.media.audio import decode

    found = []
    for name, data in files(folder, "*.wav"):
        digit, speaker, take = Path(name).stem.split("_")
        if (speaker in HELD_OUT) == (part == "test") and (part == "test" or int(take) > 4):
            found.append((speaker, int(digit), decode(data, name).at(RATE).mono()))
    return found


def real_clips() -> list[Clip]:
    """The 24 sentences of `speech_lj24`, read by a person."""
    from conjure.media.audio import read

    folder = get("speech_lj24")
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Clip(read(folder / row["file"]).at(RATE).mono(), spelled(row["text"])) for row in rows]


# -- espeak-ng


def espeak(text: str, *, voice: str = "en-us", speed: int = 165, pitch: int = 50) -> np.ndarray:
    """int16 `[N]` at 16 kHz by one call of the program; `speed` in words a minute, `pitch` 0 to 99.

    Raises `ConjureError` where espeak-ng is not installed or fails.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise ConjureError("the program espeak-ng is not installed", hint="on Debian: apt install espeak-ng")
    done = subprocess.run(
        [program, "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdin", "--stdout"],
        input=text.encode(), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode or not done.stdout:
        why = done.stderr.decode(errors="replace").strip()[:200]
        raise ConjureError(f"espeak-ng failed ({done.returncode}): {why}")
    with wave.open(io.BytesIO(done.stdout)) as sound:
        own, data = sound.getframerate(), sound.readframes(1 << 30)
    samples_N = np.frombuffer(data, "<i2")
    import soxr

    return soxr.resample(samples_N, own, RATE, quality="HQ")


@cache
def _rendered(voice: str, texts: tuple[str, ...]) -> Renderings:
    return Renderings(texts, voice)


@cache
def _espeak_block(texts: tuple[str, ...]) -> Sequence[np.ndarray]:
    """The texts by espeak-ng, each in another accent, voice, speed and pitch; memory-mapped, made once."""
    name = f"{derive(0, ESPEAK, *texts):016x}"
    path, borders = (cache_dir() / "teacher" / ESPEAK / f"{name}{end}" for end in (".samples.npy", ".offsets.npy"))
    if not borders.exists():  # it is written last
        said = [_varied(text) for text in texts]
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, np.concatenate(said))
        _save(borders, np.cumsum([0, *map(len, said)]))
    samples_N, at = np.load(path, mmap_mode="r", allow_pickle=False), np.load(borders, allow_pickle=False)
    return [samples_N[a:b] for a, b in itertools.pairwise(at)]


def _varied(text: str) -> np.ndarray:
    draw = rng(derive(0, "voice", text))
    accent, variant = str(draw.choice(_ACCENTS)), str(draw.choice(VARIANTS))
    voice = f"{accent}+{variant}" if variant and draw.random() < 0.8 else accent
    return espeak(text, voice=voice, speed=int(draw.integers(135, 195)), pitch=int(draw.integers(20, 80)))


def _save(path: Path, values: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values)
    write_atomic(path, buffer.getvalue())
