"""The figures of knowing voices again, and the thresholds: equal error rates and diarisation error rates, over real
readers and over synthetic speakers apart.

All of `librispeech_speakers` is for measuring: training hears none of it. Thresholds are set on three of its six
readers and measured on the other three, both ways round; those that are shipped are set on all six.

Legend: N clips, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from conjure.codecs.voice_activity import VoiceActivity, spans
from conjure.core.events import Event, Progress
from conjure.core.seeds import derive, rng
from conjure.data.dialogues import Dialogue, dialogue
from conjure.data.pseudo_speakers import PseudoSpeakers, SpeakerData, as_floats
from conjure.data.speech_clips import readers
from conjure.data.spoilt_sound import RATE, Floats
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.diarisation_error import diarisation_error
from conjure.metrics.equal_error import equal_error, pairs, resampled_equal_error
from conjure.models.diarisation import Diarising, Windows, clustered, joined, looked_at, turns
from conjure.models.who import Calibration, Who, embedded, features, voice

SPEAKERS, SENTENCES = 30, 4
"""Synthetic speakers whom training did not hear, and sentences of each."""
CROP = 3.0
DIALOGUES, SECONDS = 8, 45.0
"""Of each half of the readers, and of the synthetic speakers; a dialogue has two or three people."""
RESAMPLES = 300
GRID = tuple(round(0.1 + 0.025 * k, 3) for k in range(29))
Clip = tuple[str, Floats]
"""The speaker, float32 `[N]`."""
Tell = Callable[[Event], None]


def real() -> list[Clip]:
    """All sentences of the six readers."""
    return [(speaker, samples_N) for speaker, _, samples_N in readers()]


@lru_cache(maxsize=2)
def synthetic(limit: int | None = None) -> list[Clip]:
    """What speakers say that are made of voices kept from training, in sentences kept from it."""
    data = SpeakerData(speakers=SPEAKERS, sentences=SENTENCES, seconds=(CROP, CROP))
    source, count = PseudoSpeakers(data, part="test"), min(limit or SPEAKERS, SPEAKERS)
    return [(str(s), as_floats(source.said(s, k))) for s in range(count) for k in range(SENTENCES)]


def halves(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """The clips of the first half of the speakers, in the order of their names, and of the others."""
    names = sorted({speaker for speaker, _ in clips})
    first = set(names[: len(names) // 2])
    return [each for each in clips if each[0] in first], [each for each in clips if each[0] not in first]


def alike(network: Who, clips: Sequence[Clip]) -> tuple[np.ndarray, list[str], list[int]]:
    """(cosines `[N, N]`, speakers, clips) of whole clips."""
    vectors_NE = np.stack([voice(network, samples_N) for _, samples_N in clips])
    return vectors_NE @ vectors_NE.T, [speaker for speaker, _ in clips], list(range(len(clips)))


def alike_pieces(network: Who, clips: Sequence[Clip], seconds: float) -> tuple[np.ndarray, list[str], list[int]]:
    """The same of all pieces of so many seconds, end to end; a clip that is shorter is one piece."""
    parts, names, whole = pieces(clips, seconds)
    vectors_NE = np.concatenate([embedded(network, parts[k : k + 16]) for k in range(0, len(parts), 16)])
    return vectors_NE @ vectors_NE.T, names, whole


def alike_in_colour(clips: Sequence[Clip], seconds: float) -> tuple[np.ndarray, list[str], list[int]]:
    """The same without a network: mean log-mel spectra of the louder 70 % of the frames, at one level, less the mean of
    all pieces."""
    parts, names, whole = pieces(clips, seconds)
    mels = [features(torch.from_numpy(np.ascontiguousarray(part))).numpy() for part in parts]
    loud = [mel_TM[mel_TM.mean(1) > np.quantile(mel_TM.mean(1), 0.3)] for mel_TM in mels]
    mean_NM = np.stack([mel_TM.mean(0) if len(mel_TM) else np.zeros(mels[0].shape[1]) for mel_TM in loud])
    mean_NM = mean_NM - mean_NM.mean(1, keepdims=True)
    mean_NM = mean_NM - mean_NM.mean(0)
    mean_NM = mean_NM / np.linalg.norm(mean_NM, axis=1, keepdims=True).clip(1e-9)
    return mean_NM @ mean_NM.T, names, whole


def pieces(clips: Sequence[Clip], seconds: float) -> tuple[list[Floats], list[str], list[int]]:
    """(pieces, their speakers, their clips); 0 seconds: whole clips."""
    parts, names, whole = list[Floats](), list[str](), list[int]()
    for number, (speaker, samples_N) in enumerate(clips):
        size = round(seconds * RATE) or len(samples_N)
        for start in range(0, max(1, len(samples_N) - size + 1), size):
            parts.append(samples_N[start : start + size])
            names.append(speaker)
            whole.append(number)
    return parts, names, whole


# -- conversations


def conversations(clips: Sequence[Clip], name: str) -> list[Dialogue]:
    """Of two and three people by turns, drawn from the clips."""
    people = {speaker: [samples_N for each, samples_N in clips if each == speaker] for speaker, _ in clips}
    made = []
    for number in range(DIALOGUES):
        draw = rng(derive(0, "dialogue", name, number))
        chosen = draw.permutation(sorted(people))[: 2 + number % 2].tolist()
        made.append(dialogue({each: people[each] for each in chosen}, SECONDS, draw))
    return made


def heard(network: Who, made: Sequence[Dialogue], settings: Diarising) -> list[Windows]:
    """The windows of each conversation, which no threshold changes."""
    return [looked_at(each.samples, RATE, spans(each.samples, RATE, VoiceActivity()),
                      lambda parts: embedded(network, parts), settings) for each in made]  # fmt: skip


def errors(
    made: Sequence[Dialogue], windows: Sequence[Windows], settings: Diarising, *, told: bool = False
) -> tuple[list[float], list[bool]]:
    """(diarisation error rate, whether so many people were found as there are) of each conversation; `told`: the number
    is known."""
    rates, right = [], []
    for each, seen in zip(made, windows, strict=True):
        people = len({name for _, _, name in each.said})
        found = joined(turns(seen, clustered([seen], settings, people if told else 0), RATE, settings))
        rates.append(diarisation_error(each.said, [(t.start, t.end, str(t.speaker)) for t in found]).rate)
        right.append(len({turn.speaker for turn in found}) == people)
    return rates, right


def best(made: Sequence[Dialogue], windows: Sequence[Windows]) -> float:
    """The threshold of the smallest mean error; of several, the one in their middle."""
    means = np.array([np.mean(errors(made, windows, Diarising(alike=value))[0]) for value in GRID])
    return GRID[int(np.median(np.flatnonzero(means <= means.min() + 1e-9)))]


# -- thresholds


def calibrated(network: Who) -> Calibration:
    """Thresholds by the readers, with the errors that they make among readers on whom they were not set."""
    clips = real()
    scores_P, same_P = pairs(*alike(network, clips))
    middle, slope = logistic(scores_P, same_P)
    taken, refused = crossed(network, clips)
    made = [each for number, half in enumerate(halves(clips)) for each in conversations(half, f"real {number}")]
    return Calibration(same=round(middle, 4), slope=round(slope, 3), taken=round(taken, 4), refused=round(refused, 4),
                       alike=best(made, heard(network, made, Diarising())))  # fmt: skip


def crossed(network: Who, clips: Sequence[Clip]) -> tuple[float, float]:
    """(share of pairs of two speakers that are taken for one, of pairs of one that are refused), each half of the
    speakers by the threshold of the other half."""
    first, second = (pairs(*alike(network, half)) for half in halves(clips))
    wrong = []
    for own, other in ((first, second), (second, first)):
        middle, _ = logistic(*other)
        wrong.append((own[0][~own[1]] >= middle, own[0][own[1]] < middle))
    return tuple(float(np.concatenate(each).mean()) for each in zip(*wrong, strict=True))  # type: ignore[return-value]


def logistic(scores_P: np.ndarray, same_P: np.ndarray) -> tuple[float, float]:
    """(score at which both are as probable, slope of the log-odds), both kinds of pairs with the same weight in all; by
    Newton's method, with a weak pull of the slope to 0, as the kinds may be apart."""
    weights_P = np.where(same_P, 0.5 / same_P.sum(), 0.5 / (~same_P).sum())
    centre = float((weights_P * scores_P).sum())
    inputs_P2 = np.stack([np.ones(len(scores_P)), scores_P - centre], 1)
    found, pull = np.zeros(2), np.diag([0.0, 1e-7])
    for _ in range(50):
        chance_P = 1 / (1 + np.exp(-np.clip(inputs_P2 @ found, -30, 30)))
        slope = inputs_P2.T @ (weights_P * (chance_P - same_P)) + pull @ found
        bend = (inputs_P2 * (weights_P * chance_P * (1 - chance_P))[:, None]).T @ inputs_P2 + pull
        found = found - np.linalg.solve(bend + 1e-12 * np.eye(2), slope)
    return centre - float(found[0] / found[1]), float(found[1])


# -- figures


def published(network: Who, calibration: Calibration, tell: Tell | None = None) -> dict[str, dict[str, Any]]:
    """name -> {"value", "low", "high", "n", "protocol"}."""
    tell = tell or (lambda event: None)
    clips, made = real(), dict[str, dict[str, Any]]()
    how = "95 %: bootstrap over speakers and their clips"
    whose = "real: 6 readers of LibriSpeech, none heard in training"
    voices = "synthetic: 30 speakers made of voices and sentences kept from training"
    sets = (
        ("real_whole", lambda: alike(network, clips), f"whole clips of 2.5 to 18 s, {whose}"),
        ("real_3s", lambda: alike_pieces(network, clips, CROP), f"pieces of 3 s, {whose}"),
        ("real_1.5s", lambda: alike_pieces(network, clips, CROP / 2), f"pieces of 1.5 s, {whose}"),
        ("colour_whole", lambda: alike_in_colour(clips, 0), f"mean spectra of whole clips, no network, {whose}"),
        ("colour_3s", lambda: alike_in_colour(clips, CROP), f"mean spectra of pieces of 3 s, no network, {whose}"),
        ("synthetic_3s", lambda: alike_pieces(network, synthetic(), CROP), f"pieces of 3 s, {voices}"),
    )
    for place, (name, measure, said) in enumerate(sets):
        tell(Progress(place, len(sets) + 2, "figure", name))
        scores_NN, names, whole = measure()
        value, low, high = resampled_equal_error(scores_NN, names, whole, seed=0, resamples=RESAMPLES)
        count = len(pairs(scores_NN, names, whole)[0])
        made[f"equal_error_{name}"] = {"value": value, "low": low, "high": high, "n": count,
                                       "protocol": f"equal error rate over pairs of {said}; {how}"}  # fmt: skip
    tell(Progress(len(sets), len(sets) + 2, "figure", "real dialogues"))
    made |= _conversation_figures("real", *_real_errors(network, clips),
                                  f"readers of LibriSpeech, the threshold set on others; {whose}")  # fmt: skip
    tell(Progress(len(sets) + 1, len(sets) + 2, "figure", "synthetic dialogues"))
    talks, settings = conversations(synthetic(), "synthetic"), Diarising(alike=calibration.alike)
    seen = heard(network, talks, settings)
    return made | _conversation_figures("synthetic", *errors(talks, seen, settings),
                                        errors(talks, seen, settings, told=True)[0], voices)  # fmt: skip


def _real_errors(network: Who, clips: Sequence[Clip]) -> tuple[list[float], list[bool], list[float]]:
    """Each half of the readers by the threshold of the other half: rates, whether the number is right, rates where the
    number is told."""
    talks = [conversations(half, f"real {number}") for number, half in enumerate(halves(clips))]
    seen = [heard(network, each, Diarising()) for each in talks]
    rates, right, told = list[float](), list[bool](), list[float]()
    for own, other in ((0, 1), (1, 0)):
        settings = Diarising(alike=best(talks[other], seen[other]))
        some, so_many = errors(talks[own], seen[own], settings)
        rates, right = rates + some, right + so_many
        told += errors(talks[own], seen[own], settings, told=True)[0]
    return rates, right, told


def _conversation_figures(
    name: str, rates: Sequence[float], right: Sequence[bool], told: Sequence[float], whose: str
) -> dict[str, dict[str, Any]]:
    rows = (("diarisation_error", rates, "diarisation error rate, collar 0.25 s"),
            ("diarisation_error_told", told, "the same where the number of speakers is told"),
            ("speakers_right", [float(each) for each in right], "share with the right number of speakers"))  # fmt: skip
    made = {}
    for figure, values, said in rows:
        value, low, high = bootstrap_mean(values, seed=0)
        made[f"{figure}_{name}"] = {
            "value": value, "low": low, "high": high, "n": len(values),
            "protocol": f"{said}; {SECONDS:g} s of 2 or 3 people in turn, {whose}; bootstrap over dialogues",
        }  # fmt: skip
    return made


def held_out_rate(network: Who, limit: int | None = None) -> float:
    """The equal error rate over synthetic speakers, for validation."""
    return equal_error(*pairs(*alike_pieces(network, synthetic(limit), CROP))).rate
