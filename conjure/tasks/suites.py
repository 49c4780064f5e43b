"""Language models examined by suites of questions (`data/suites.py`): ask, keep the answers, count."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Warn
from conjure.core.files import folder_lock, write_atomic
from conjure.core.paths import cache_dir
from conjure.core.version import __version__
from conjure.data.few_shot import SEED, Item, items
from conjure.data.suite_rows import rows
from conjure.data.suites import GROUPS, POOLED, Suite, named
from conjure.metrics import harness, scores
from conjure.metrics.harness import Advance, Subject
from conjure.metrics.scores import RESAMPLES, Figure
from conjure.tasks.subjects import subject
from conjure.tasks.suite_record import Answer, Record, asked, identity

BLOCK = 64
"""Requests between two writes to the disk."""
Show = Callable[[Event], None] | None


def examine(
    model: str | Path,
    names: Sequence[str],
    *,
    given: str | Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
    folder: str | Path | None = None,
    on_event: Show = None,
) -> dict[str, Any]:
    """The scores of a model on suites and groups of suites: {"model", "suites": {name: ...}, "groups": {name: ...}}.

    `given` is a file or folder with the items, else they are looked for by name. `shots` examples stand before each
    question instead of the suite's own number; only the first `limit` items are asked. Answers are kept in `folder`,
    and what is there is not asked again; without it they are kept in the cache until their suite is finished.
    """
    for what, value, least in (("shots", shots, 0), ("limit", limit, 1)):
        if value is not None and value < least:
            raise ConjureError(f"{what}: expected a whole number from {least} up, got {value}")
    suites = list({suite.name: suite for name in names for suite in named(name)}.values())
    place = shelf.find(model)
    own, whose = subject(model), identity(place)
    found: dict[str, Any] = {"model": str(model), "identity": whose, "version": __version__, "suites": {}, "groups": {}}
    for suite in suites:
        count = suite.shots if shots is None or suite.shots_fixed or suite.kind == "rolling" else shots
        ready = prepared(suite, count, given=given, limit=limit)
        head = {"model": whose, "context": own.longest, "suite": suite.name, "shots": count, "seed": SEED}
        where = Path(folder) if folder is not None else _scratch(head)
        where.mkdir(parents=True, exist_ok=True)
        with folder_lock(where):
            record = Record(where / f"{suite.name}.jsonl", head)
            figures = measured(own, suite, ready, record, on_event)
        if folder is None:
            shutil.rmtree(where)
        found["suites"][suite.name] = {"shots": count, "n": len(ready), "scores": _plain(figures)}
        found["groups"] = _groups(names, found["suites"])
        if folder is not None:
            write_atomic(where / "results.json", (json.dumps(found, indent=1) + "\n").encode())
    return found


def prepared(
    suite: Suite, shots: int, *, given: str | Path | None = None, limit: int | None = None, seed: int = SEED
) -> list[Item]:
    """The items of a suite. Where all come from one file, so do the examples, never the question itself."""
    tested = rows(suite, suite.split, given)
    pool = tested
    if shots and given is not None and Path(given).is_file():
        suite = dataclasses.replace(suite, exclude=True)
    elif shots and suite.examples != suite.split:
        pool = rows(suite, suite.examples, given)
    tested = tested[:limit]
    if not tested:
        raise ConjureError(f"{suite.name}: there is no item to measure", hint="is the file empty?")
    return list(items(suite, tested, pool, shots, seed=seed))


def measured(
    own: Subject,
    suite: Suite,
    ready: Sequence[Item],
    record: Record,
    on_event: Show = None,
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Figure]:
    """The figures of a suite over its items; those that `record` knows are not asked again."""
    open_ = [item for item in ready if asked(item) not in record.answers]
    if on_event and open_ and len(open_) < len(ready):
        on_event(Warn(f"{suite.name}: {len(ready) - len(open_)} of {len(ready)} items were answered before"))
    total, done = sum(len(item.requests) for item in open_), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_event:
            on_event(Progress(done, total, "request", suite.name))

    for block in _blocks(open_, harness.WRITERS if suite.kind == "generation" else BLOCK):
        answers = iter(ask(own, suite, block, advance))
        taken = [(item, [next(answers) for _ in item.requests]) for item in block]
        record.add((item, its, score(suite, item, its)) for item, its in taken)
    together: dict[str, list[Any]] = {}
    for item in ready:
        for metric, value in score(suite, item, record.answers[asked(item)]).items():
            together.setdefault(metric, []).append(value)
    return {metric: scores.aggregate(metric, values, resamples) for metric, values in together.items()}


def ask(own: Subject, suite: Suite, block: Sequence[Item], advance: Advance | None = None) -> Sequence[Answer]:
    """The answers to all requests of these items, one after the other."""
    requests = [request for item in block for request in item.requests]
    if suite.kind == "rolling":
        return harness.loglikelihood_rolling(own, [text for _, text in requests], advance)
    if suite.kind == "generation":
        prompts = [prompt for prompt, _ in requests]
        return harness.generate_until(own, prompts, stop=suite.stop, tokens=suite.tokens, advance=advance)
    return harness.loglikelihood(own, requests, advance)


def score(suite: Suite, item: Item, answers: Sequence[Any]) -> dict[str, Any]:
    """What an item counts in each metric."""
    if suite.kind == "generation":
        return {
            f"exact_match,{name}": scores.exact_match(
                scores.extracted(answers[0], pattern, which), item.target, suite.ignored
            )
            for name, pattern, which in suite.filters
        }
    if suite.kind == "rolling":
        text = suite.size(item.row) if suite.size else item.target
        words, size = len(re.split(r"\s+", text)), len(text.encode())
        units = {"word_perplexity": words, "byte_perplexity": size, "bits_per_byte": size}
        return {metric: (answers[0], units[metric]) for metric in suite.metrics}
    if suite.kind == "continuation":
        own = {"perplexity": answers[0].logprob, "acc": float(answers[0].greedy)}
    elif suite.labels is not None:
        own = {"acc": scores.true_mass(answers, suite.labels(item.row))}
    else:
        own = scores.chosen(answers, item.choices, item.gold)
    return {metric: own[metric] for metric in suite.metrics}


def _blocks(open_: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """About `size` requests each, the longest first: what is read together is of about one length, and the time that is
    left is rather told too long than too short."""
    block: list[Item] = []
    for item in sorted(open_, key=lambda item: -max(len(before) + len(after) for before, after in item.requests)):
        block.append(item)
        if sum(len(each.requests) for each in block) >= size:
            yield block
            block = []
    if block:
        yield block


def _scratch(head: Mapping[str, Any]) -> Path:
    import hashlib

    key = hashlib.sha256(json.dumps(dict(head), sort_keys=True).encode()).hexdigest()[:24]
    return cache_dir() / "examinations" / key


def _plain(figures: Mapping[str, Figure]) -> dict[str, dict[str, Any]]:
    return {metric: figure._asdict() for metric, figure in figures.items()}


def _groups(names: Sequence[str], done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The pooled accuracy of groups that are asked for whole, with the groups inside them."""
    asked_for = [name for name in names if name in POOLED]
    inside = [each for each in POOLED if each not in asked_for and "mmlu" in asked_for]
    found = {}
    for name in [*asked_for, *inside]:
        if all(each in done for each in GROUPS[name]):
            figure = scores.pooled([Figure(**done[each]["scores"]["acc"]) for each in GROUPS[name]])
            found[name] = {"n": figure.n, "scores": {"acc": figure._asdict()}}
    return found
