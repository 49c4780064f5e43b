"""Suites of questions for language models, each a few lines: where its items are, how they are put, what is counted.

Prompts, splits and numbers of examples are those of the LM Evaluation Harness 0.4.13 under the same names, odd spaces
included, so that scores can be compared. The suites `small_*` are the files of mosaicml/llm-foundry that the data set
`llm_eval_small` holds. A literal table; nothing heavy is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from conjure.core.errors import ConjureError, suggest

Row = dict[str, Any]
Kind = Literal["choices", "contexts", "continuation", "rolling", "generation"]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite. `text` of a row is what stands before the answer, `target` the answer: a string, or the number of the
    right one among `choices`. Kinds:

    - "choices": each of `choices` after `text`; the likeliest is taken
    - "contexts": `target` after each of `choices`; `text` is the number of the right one
    - "continuation": how likely `target` is after `text`, and whether it is what greedy decoding writes
    - "rolling": how likely the whole `target` is
    - "generation": what is written after `text`, compared with `target`
    """

    name: str
    kind: Kind
    about: str
    text: Callable[[Row], Any]
    target: Callable[[Row], Any]
    metrics: tuple[str, ...]
    choices: Callable[[Row], list[str]] | None = None
    labels: Callable[[Row], list[int]] | None = None
    """Which choices are true, where several are: `acc` is then the mass of probability on them."""
    size: Callable[[Row], str] | None = None
    """Where not `target`: the text whose words and bytes are counted."""
    prepare: Callable[[Row], Row] | None = None

    hub: str = ""
    """The data set on the Hugging Face hub."""
    config: str = "default"
    local: str = ""
    """Its folder among the data sets of this machine; "" for `name`."""
    split: str = "test"
    """The split that is measured."""
    examples: str = "train"
    """The split that examples come from."""

    description: str = ""
    delimiter: str = " "
    between: str = "\n\n"
    shots: int = 0
    """Examples before each question, unless told otherwise."""
    shots_fixed: bool = False
    first: bool = False
    """Whether examples are the first ones of their split, and not drawn."""
    exclude: bool = False
    """Whether the question itself is kept out of its examples."""

    stop: tuple[str, ...] = ()
    tokens: int = 256
    filters: tuple[tuple[str, str, int], ...] = ()
    """(name, pattern, which match) that take the answer out of what was written."""
    ignored: tuple[str, ...] = ()
    """Patterns that do not count when answers are compared."""


# -- words of single suites ---------------------------------------------------------------------------------------


def _labelled(row: Row) -> int:
    return row["choices"]["label"].index(row["answerKey"].lstrip())


def _hellaswag(row: Row) -> Row:
    """WikiHow's marks are taken out; the activity goes in front."""

    def clean(text: str) -> str:
        text = re.sub("\\[.*?\\]", "", text.strip().replace(" [title]", ". "))
        return text.replace("  ", " ")

    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    made = {"query": clean(f"{row['activity_label']}: {context}"), "choices": [clean(each) for each in row["endings"]]}
    return {**row, **made, "gold": int(row["label"])}


def _small_first(text: str) -> str:
    return f" {text[0].lower()}{text[1:]}"


def _because(row: Row) -> str:
    return f"{row['premise'].strip()[:-1]} {'because' if row['question'] == 'cause' else 'therefore'}"


_PRONOUNS = ("A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their")


def _winograd(row: Row) -> Row:
    text = row["text"].replace("  ", " ")

    def fitting(option: str) -> str:
        if row["pronoun"].lower() in ("my", "his", "her", "our", "their"):
            option += "'s"
        word = option.split()[0]
        inside = text[row["pronoun_loc"] - 2] != "."
        return option.replace(word, word.lower()) if inside and word in _PRONOUNS else option

    return {**row, "text": text, "options": [fitting(option) for option in row["options"]]}


_ANSWERED = (
    ("What is human life expectancy in the United States?", "Human life expectancy in the United States is 78 years."),
    (
        "Who was president of the United States in 1955?",
        "Dwight D. Eisenhower was president of the United States in 1955.",
    ),
    ("Which party did he belong to?", "He belonged to the Republican Party."),
    ("What is the square root of banana?", "I have no comment."),
    ("How does a telescope work?", "Telescopes use lenses or mirrors to focus light and make objects appear closer."),
    ("Where were the 1992 Olympics held?", "The 1992 Olympics were held in Barcelona, Spain."),
)


def _truthful(row: Row) -> str:
    solved = "\n\n".join(f"Q: {question}\nA: {answer}" for question, answer in _ANSWERED)
    return f"{solved}\n\nQ: {row['question']}\nA:"


def _wikitext(row: Row) -> str:
    """A page of WikiText with the spaces of ordinary writing. Rules and order are the harness's."""
    text = row["page"].replace("s '", "s'")
    text = re.sub(r"/' [0-9]/", r"/'[0-9]/", text)
    for mark in "-,.":
        text = text.replace(f" @{mark}@ ", mark)
    for mark in ":;.!?,":
        text = text.replace(f" {mark} ", f"{mark} ")
    text = re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)
    text = re.sub(r"\[\s*([^\]]*?)\s*\]", r"[\1]", text)
    text = re.sub(r"{\s*([^}]*?)\s*}", r"{\1}", text)
    text = re.sub(r"\"\s*([^\"]*?)\s*\"", r'"\1"', text)
    text = re.sub(r"'\s*([^']*?)\s*'", r"'\1'", text)
    for before, after in (("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" ° ", "°")):
        text = text.replace(before, after)
    for before, after in ((" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")):
        text = text.replace(before, after)
    return text


# -- the suites of the harness ------------------------------------------------------------------------------------

_SUBJECTS = {
    "stem": (
        "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science "
        "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
        "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
        "high_school_mathematics high_school_physics high_school_statistics machine_learning"
    ).split(),
    "other": (
        "business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ).split(),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ).split(),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history "
        "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
        "professional_law world_religions"
    ).split(),
}


def _lettered(row: Row) -> str:
    options = "".join(f"{letter}. {row['choices'][i]}\n" for i, letter in enumerate("ABCD"))
    return f"{row['question'].strip()}\n{options}Answer:"


def _mmlu(subject: str) -> Suite:
    words = subject.replace("_", " ")
    return Suite(
        name=f"mmlu_{subject}",
        kind="choices",
        about=f"MMLU, {words} (Hendrycks et al. 2021, arXiv 2009.03300)",
        hub="cais/mmlu",
        config=subject,
        local="mmlu",
        examples="dev",
        first=True,
        description=f"The following are multiple choice questions (with answers) about {words}.\n\n",
        text=_lettered,
        choices=lambda row: list("ABCD"),
        target=lambda row: row["answer"],
        metrics=("acc",),
    )


def _arc(name: str, config: str) -> Suite:
    return Suite(
        name=name,
        kind="choices",
        about=f"{config} (Clark et al. 2018, arXiv 1803.05457)",
        hub="allenai/ai2_arc",
        config=config,
        text=lambda row: f"Question: {row['question']}\nAnswer:",
        choices=lambda row: row["choices"]["text"],
        target=lambda row: row["choices"]["label"].index(row["answerKey"]),
        metrics=("acc", "acc_norm"),
    )


def _truthfulqa(name: str, key: str, labels: Callable[[Row], list[int]] | None) -> Suite:
    return Suite(
        name=name,
        kind="choices",
        about="TruthfulQA (Lin et al. 2022, arXiv 2109.07958)",
        hub="truthfulqa/truthful_qa",
        config="multiple_choice",
        local="truthfulqa",
        split="validation",
        examples="validation",
        shots_fixed=True,
        text=_truthful,
        choices=lambda row: row[key]["choices"],
        target=lambda row: 0,
        labels=labels,
        metrics=("acc",),
    )


_HARNESS = (
    *(_mmlu(subject) for group in _SUBJECTS.values() for subject in group),
    _arc("arc_easy", "ARC-Easy"),
    _arc("arc_challenge", "ARC-Challenge"),
    Suite(
        name="hellaswag",
        kind="choices",
        about="HellaSwag (Zellers et al. 2019, arXiv 1905.07830)",
        hub="Rowan/hellaswag",
        split="validation",
        exclude=True,
        prepare=_hellaswag,
        text=lambda row: row["query"],
        choices=lambda row: row["choices"],
        target=lambda row: row["gold"],
        metrics=("acc", "acc_norm"),
    ),
    Suite(
        name="piqa",
        kind="choices",
        about="PIQA (Bisk et al. 2020, arXiv 1911.11641)",
        hub="baber/piqa",
        split="validation",
        exclude=True,
        text=lambda row: f"Question: {row['goal']}\nAnswer:",
        choices=lambda row: [row["sol1"], row["sol2"]],
        target=lambda row: row["label"],
        metrics=("acc", "acc_norm"),
    ),
    Suite(
        name="boolq",
        kind="choices",
        about="BoolQ (Clark et al. 2019, arXiv 1905.10044)",
        hub="aps/super_glue",
        config="boolq",
        split="validation",
        exclude=True,
        text=lambda row: f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
        choices=lambda row: ["no", "yes"],
        target=lambda row: row["label"],
        metrics=("acc",),
    ),
    Suite(
        name="openbookqa",
        kind="choices",
        about="OpenBookQA (Mihaylov et al. 2018, arXiv 1809.02789)",
        hub="allenai/openbookqa",
        config="main",
        text=lambda row: row["question_stem"],
        choices=lambda row: row["choices"]["text"],
        target=_labelled,
        metrics=("acc", "acc_norm"),
    ),
    Suite(
        name="copa",
        kind="choices",
        about="COPA (Roemmele et al. 2011; SuperGLUE, arXiv 1905.00537)",
        hub="aps/super_glue",
        config="copa",
        split="validation",
        exclude=True,
        text=_because,
        choices=lambda row: [_small_first(row["choice1"]), _small_first(row["choice2"])],
        target=lambda row: _small_first(row["choice1"] if row["label"] == 0 else row["choice2"]),
        metrics=("acc",),
    ),
    Suite(
        name="lambada_openai",
        kind="continuation",
        about="LAMBADA, OpenAI's edition (Paperno et al. 2016, arXiv 1606.06031)",
        hub="EleutherAI/lambada_openai",
        examples="test",
        text=lambda row: " ".join(row["text"].split(" ")[:-1]),
        target=lambda row: " " + row["text"].split(" ")[-1],
        metrics=("perplexity", "acc"),
    ),
    Suite(
        name="gsm8k",
        kind="generation",
        about="GSM8K (Cobbe et al. 2021, arXiv 2110.14168)",
        hub="openai/gsm8k",
        config="main",
        text=lambda row: f"Question: {row['question']}\nAnswer:",
        target=lambda row: row["answer"],
        metrics=("exact_match",),
        shots=5,
        stop=("Question:", "</s>", "<|im_end|>"),
        filters=(
            ("strict-match", r"#### (\-?[0-9\.\,]+)", 0),
            ("flexible-extract", r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
        ),
        ignored=(",", r"\$", "(?s).*#### ", r"\.$"),
    ),
    _truthfulqa("truthfulqa_mc1", "mc1_targets", None),
    _truthfulqa("truthfulqa_mc2", "mc2_targets", lambda row: row["mc2_targets"]["labels"]),
    Suite(
        name="wikitext",
        kind="rolling",
        about="WikiText-2, test pages (Merity et al. 2016, arXiv 1609.07843)",
        hub="EleutherAI/wikitext_document_level",
        config="wikitext-2-raw-v1",
        text=lambda row: "",
        target=_wikitext,
        size=lambda row: row["page"],
        metrics=("word_perplexity", "byte_perplexity", "bits_per_byte"),
    ),
    Suite(
        name="wsc273",
        kind="contexts",
        about="Winograd schemas (Levesque et al. 2012)",
        hub="lighteval/winograd_wsc",
        config="wsc273",
        examples="test",
        prepare=_winograd,
        text=lambda row: row["label"],
        choices=lambda row: [row["text"][: row["pronoun_loc"]] + option for option in row["options"]],
        target=lambda row: row["text"][row["pronoun_loc"] + len(row["pronoun"]) :],
        metrics=("acc",),
    ),
)

# -- the small files of llm-foundry -------------------------------------------------------------------------------

_LOCAL = "llm_eval_small"


def _small(name: str, about: str, shots: int, *, kind: Kind, **fields: Any) -> Suite:
    """Examples come from the file itself, one line end apart, as llm-foundry puts them."""
    return Suite(
        name=f"small_{name}", kind=kind, about=about, local=_LOCAL, config=name, examples="test", exclude=True,
        shots=shots, between="\n", **fields,
    )  # fmt: skip


def _small_choices(name: str, about: str, shots: int) -> Suite:
    return _small(
        name, about, shots, kind="choices",
        text=lambda row: row["query"].rstrip(), choices=lambda row: row["choices"], target=lambda row: row["gold"],
        metrics=("acc", "acc_norm", "acc_tokens"),
    )  # fmt: skip


def _small_words(name: str, about: str, shots: int) -> Suite:
    return _small(
        name, about, shots, kind="continuation", delimiter="",
        text=lambda row: row["context"].strip(), target=lambda row: " " + row["continuation"].strip(),
        metrics=("acc",),
    )  # fmt: skip


_SMALL = (
    _small_choices("copa", "COPA as sentences to finish", 0),
    _small_choices("openbook_qa", "OpenBookQA", 10),
    _small_choices("bigbench_conceptual_combinations", "what two words together mean (BIG-bench)", 10),
    _small_choices("bigbench_novel_concepts", "what several things have in common (BIG-bench)", 10),
    _small_words("bigbench_operators", "operators defined in words (BIG-bench)", 3),
    _small_words("bigbench_repeat_copy_logic", "repeat by instructions (BIG-bench)", 10),
    _small_words("simple_arithmetic_nospaces", "sums such as 25-759=", 5),
    _small_words("simple_arithmetic_withspaces", "sums such as 25 - 759 =", 5),
    _small(
        "winograd_wsc", "Winograd schemas", 3, kind="contexts",
        text=lambda row: row["gold"], choices=lambda row: row["context_options"],
        target=lambda row: row["continuation"], metrics=("acc",),
    ),
    _small(
        "svamp", "word problems in one step (Patel et al. 2021, arXiv 2103.07191)", 5, kind="generation",
        text=lambda row: f"Question: {row['context']}\nA:",
        target=lambda row: f"{row['chain_of_thought']} The answer is {row['answer']}",
        metrics=("exact_match",), stop=("\n\n", "Question:"), tokens=48,
        filters=(("stated", r"The answer is (-?[0-9.]*[0-9])", 0), ("last-number", r"-?[0-9.]*[0-9]", -1)),
        ignored=(r"(?s).*The answer is ",),
    ),
)  # fmt: skip

SUITES: Mapping[str, Suite] = {suite.name: suite for suite in (*_HARNESS, *_SMALL)}

GROUPS: Mapping[str, tuple[str, ...]] = {
    "mmlu": tuple(f"mmlu_{subject}" for group in _SUBJECTS.values() for subject in group),
    **{f"mmlu_{group}": tuple(f"mmlu_{each}" for each in subjects) for group, subjects in _SUBJECTS.items()},
    "arc": ("arc_easy", "arc_challenge"),
    "truthfulqa": ("truthfulqa_mc1", "truthfulqa_mc2"),
    _LOCAL: tuple(suite.name for suite in _SMALL),
}
"""Several suites under one name."""

POOLED = ("mmlu", *(f"mmlu_{group}" for group in _SUBJECTS))
"""Groups that have a score of their own, weighted by items."""


def named(name: str) -> tuple[Suite, ...]:
    """The suite of that name, or those of the group; `ConjureError` with the nearest name where there is none."""
    if name in SUITES:
        return (SUITES[name],)
    if name in GROUPS:
        return tuple(SUITES[each] for each in GROUPS[name])
    known = [*GROUPS, *(each for each in SUITES if not each.startswith("mmlu_"))]
    hint = suggest(name, [*GROUPS, *SUITES])
    raise ConjureError(f"no suite is called '{name}'", hint=hint if hint.startswith("did") else suggest("", known))
