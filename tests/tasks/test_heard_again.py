from __future__ import annotations

from collections.abc import Iterator

import pytest

from conjure.core import paths
from conjure.models.proof_ear import Judged
from conjure.tasks import heard_again
from conjure.tasks.heard_again import TRIES, Kept, Report, best, proof_ear
from tests.models import small_ear

RIGHT, WRONG, WORSE = Judged(-2.0, ()), Judged(3.0, (("cat", "missing"),)), Judged(9.0, (("cat", "twice"),))


def judged(*found: Judged | None) -> tuple[Kept[int], list[int]]:
    """What is kept of sayings 0, 1, 2 that are judged so, and which of them were said."""
    said = [0]

    def again(attempt: int) -> int:
        said.append(attempt)
        return attempt

    return best(0, again, lambda sound: found[sound]), said


def test_the_best_of_what_was_said() -> None:
    assert judged(RIGHT) == (Kept(0, 0, RIGHT), [0])
    assert judged(None) == (Kept(0, 0, None), [0])
    assert judged(WRONG, RIGHT) == (Kept(1, 1, RIGHT), [0, 1])
    assert judged(WRONG, WORSE, RIGHT) == (Kept(2, 2, RIGHT), [0, 1, 2])
    assert judged(WRONG, WORSE, WORSE) == (Kept(0, TRIES, WRONG), [0, 1, 2])
    assert judged(WRONG, None, WORSE) == (Kept(0, TRIES, WRONG), [0, 1, 2])
    assert best(7, lambda attempt: 8, lambda sound: WRONG, tries=0) == Kept(7, 0, WRONG)


def test_the_report() -> None:
    report = Report()
    assert report.add("All right.", Kept(0, 0, RIGHT)) == {} and report.add("Who knows.", Kept(0, 0, None)) == {}
    assert report.add("Better.", Kept(1, 1, RIGHT)) == {"said_again": 1}
    assert report.add("The cat.", Kept(0, 2, WRONG)) == {"said_again": 2, "doubtful": ["cat (missing)"]}
    assert report.facts == {"checked": 3, "said_again": 2, "doubtful": 1}
    (warning,) = report.warnings()
    assert warning.endswith("'The cat.', said 3 times: cat (missing)")
    for _ in range(6):
        report.add("The cat sat on the mat, and then it sat on the other mat for a while.", Kept(0, 0, WORSE))
    *named, more = report.warnings()
    assert len(named) == 5 and more == "and 2 more sentences do not" and "...': cat (twice)" in named[1]


@pytest.fixture
def forgotten() -> Iterator[None]:
    heard_again.proof_ear.cache_clear()
    yield
    heard_again.proof_ear.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_where_there_is_no_ear(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "starters_dir", lambda: tmp_path)
    assert proof_ear() is None
    heard_again.proof_ear.cache_clear()
    small_ear.folder(tmp_path / "ear")
    assert proof_ear() is not None
