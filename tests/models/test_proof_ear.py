from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conjure.codecs.plain_letters import SYMBOLS, encode
from conjure.models import proof_ear
from conjure.models.ear import features
from conjure.models.listener import Heard
from conjure.models.proof_ear import LONGEST, ProofEar, heard, load_ear
from tests.models import small_ear

RATE = 16_000
SOUND = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> ProofEar:
    return ProofEar.load(small_ear.folder(tmp_path_factory.mktemp("models") / "ear"))


def test_sounds_are_heard_alike_alone_and_together(ear: ProofEar) -> None:
    short = heard(ear.ear, [SOUND[:6000]])[0].logits_TV
    both = [each.logits_TV for each in heard(ear.ear, [SOUND, SOUND[:6000]])]
    torch.testing.assert_close(both[1], short, atol=1e-4, rtol=0)
    mel_TM = features(torch.from_numpy(SOUND))
    wanted = ear.ear.logits(mel_TM[None], torch.tensor([len(mel_TM)]))[0][0]
    torch.testing.assert_close(both[0], wanted, atol=1e-4, rtol=0)


def test_words_that_are_there(ear: ProofEar, monkeypatch: pytest.MonkeyPatch) -> None:
    def hears(text: str) -> None:
        ids = encode(text)
        heard_TV = torch.full((3 * len(ids), len(SYMBOLS)), 0.0)
        for place, symbol in enumerate(ids):
            heard_TV[3 * place : 3 * place + 2, symbol] = heard_TV[3 * place + 2, 0] = 12.0
        monkeypatch.setattr(proof_ear, "heard", lambda *_: [Heard(heard_TV)])

    words = ["The", "cat's", "hat", "--"]
    hears("the cat's hat")
    right = ear.judge(SOUND, RATE, words)
    assert right is not None and right.faults == () and right.doubt < 0
    hears("the hat")
    gone = ear.judge(SOUND, RATE, words)
    assert gone is not None and gone.faults == (("cat's", "missing"),) and gone.doubt > 0
    hears("the cat's cat's hat")
    again = ear.judge(SOUND, 48_000, words)
    assert again is not None and again.faults == (("cat's", "twice"),)


def test_fast_speech_is_heard_slower(ear: ProofEar) -> None:
    plain, slower = (heard(ear.ear, [SOUND], times)[0].logits_TV for times in (1.0, 1.5))
    assert len(slower) == pytest.approx(1.5 * len(plain), abs=1)
    assert ear.judge(SOUND, RATE, ["cat"] * 8) is None and ear.judge(SOUND, RATE, ["cat"] * 8, 2.0) is not None


def test_what_is_not_judged(ear: ProofEar) -> None:
    assert ear.judge(SOUND, RATE, ["123", "--"]) is None
    assert ear.judge(SOUND[:100], RATE, ["cat"]) is None
    assert ear.judge(np.zeros(round((LONGEST + 1) * RATE), np.float32), RATE, ["cat"]) is None
    assert ear.judge(SOUND, RATE, ["antidisestablishmentarianism"] * 9) is None, "more letters than frames"


def test_the_folder_of_an_ear(tmp_path: Path) -> None:
    network = load_ear(small_ear.folder(tmp_path / "ear", 3))
    assert not network.training and not any(each.requires_grad for each in network.parameters())
    assert torch.equal(network.letters.weight, small_ear.ear(3).letters.weight)
