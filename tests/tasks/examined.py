"""Tiny language models with tokenizers, rows of every suite, and the harness's own task files pointed at them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

from conjure.metrics.harness import Subject

ROWS, EXAMPLES = 5, 7
TOKENS = 12
CONTEXT = 160
NAMES = (
    "mmlu_anatomy", "mmlu_high_school_us_history", "arc_easy", "arc_challenge", "hellaswag", "piqa", "boolq",
    "openbookqa", "copa", "lambada_openai", "gsm8k", "truthfulqa_mc1", "truthfulqa_mc2", "wikitext", "wsc273",
)  # fmt: skip
FILES = {
    "mmlu_anatomy": "mmlu/default/mmlu_anatomy",
    "mmlu_high_school_us_history": "mmlu/default/mmlu_high_school_us_history",
    "arc_easy": "arc/arc_easy", "arc_challenge": "arc/arc_challenge", "hellaswag": "hellaswag/hellaswag",
    "piqa": "piqa/piqa", "boolq": "super_glue/boolq/default", "openbookqa": "openbookqa/openbookqa",
    "copa": "super_glue/copa/default", "lambada_openai": "lambada/lambada_openai", "gsm8k": "gsm8k/gsm8k",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1", "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2",
    "wikitext": "wikitext/wikitext", "wsc273": "wsc273/default",
}  # fmt: skip
"""Suite -> its file below lm_eval/tasks."""

_WORDS = "the cat sat on a mat, saw 12 big dogs run to Paris as it was late; he's tall -- she said: no! café".split()
SCRIPT = ("so\n#### 1,234.", "well 7\n#### 7\n\nQuestion: and 9?", "I know none", "it is $2. Or 7.", "#### -0.5 or 2")
"""What `scripted` writes."""


def phrase(draw: random.Random, least: int = 2, most: int = 6) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(draw.randint(least, most)))


def row(name: str, draw: random.Random) -> dict[str, Any]:
    """One row with the fields that the data set has on the hub."""
    four, right = [phrase(draw) for _ in range(4)], draw.randrange(4)
    if name.startswith("mmlu"):
        return {"question": f" {phrase(draw)}? ", "choices": four, "answer": right}
    if name.startswith(("arc", "openbookqa")):
        text = {"choices": {"text": four, "label": list("ABCD")}, "answerKey": "ABCD"[right]}
        return {"question_stem" if name == "openbookqa" else "question": phrase(draw), **text}
    if name.startswith("truthfulqa"):
        labels = [1, 1, 0, 0]
        both = {key: {"choices": four, "labels": labels} for key in ("mc1_targets", "mc2_targets")}
        return {"question": phrase(draw), **both}
    if name == "hellaswag":
        endings = [f" {each} [title] {phrase(draw)} [step]  {each}" for each in four]
        return {
            "activity_label": phrase(draw, 1, 2), "ctx_a": phrase(draw), "ctx_b": phrase(draw), "endings": endings,
            "label": str(right),
        }  # fmt: skip
    if name == "piqa":
        return {"goal": phrase(draw), "sol1": four[0], "sol2": four[1], "label": right % 2}
    if name == "boolq":
        return {"passage": phrase(draw, 9, 20), "question": phrase(draw), "label": right % 2}
    if name == "copa":
        return {
            "premise": f"{phrase(draw)}.", "choice1": four[0].capitalize(), "choice2": four[1].capitalize(),
            "question": ("cause", "effect")[right // 2], "label": right % 2,
        }  # fmt: skip
    if name == "gsm8k":
        answer = draw.choice(("1,234", "7", "2"))
        return {"question": f"{phrase(draw)}?", "answer": f"{phrase(draw)}\n#### {answer}"}
    if name == "wsc273":
        before, pronoun = phrase(draw, 3, 5), ("he", "their")[right % 2]
        text = f"{before}.  {pronoun} {phrase(draw)}"
        return {
            "text": text, "pronoun": pronoun, "pronoun_loc": text.replace("  ", " ").index(f" {pronoun} ") + 1,
            "options": [f"The {four[0]}", four[1]], "label": right % 2,
        }  # fmt: skip
    if name == "wikitext":
        body = f"{phrase(draw, 40, 260)} @,@ 000 ( {phrase(draw)} ) , {phrase(draw)} 's"
        return {"page": f" = {phrase(draw)} = \n {body}"}
    return {"text": phrase(draw, 5, 9)}


SPLITS = {"mmlu": ("test", "dev"), "hellaswag": ("validation", "train"), "piqa": ("validation", "train"),
          "boolq": ("validation", "train"), "copa": ("validation", "train"), "truthfulqa": ("validation", "validation"),
          "lambada": ("test", "test"), "wsc273": ("test", "test")}  # fmt: skip


def write_items(folder: Path) -> None:
    """FOLDER/NAME/SPLIT.jsonl for every suite."""
    for name in NAMES:
        draw = random.Random(name)
        place = folder / name
        place.mkdir(parents=True)
        splits = next((both for key, both in SPLITS.items() if name.startswith(key)), ("test", "train"))
        for split in dict.fromkeys(splits):
            count = ROWS if split in ("test", "validation") and splits[0] != splits[1] else EXAMPLES
            lines = [json.dumps(row(name, draw)) for _ in range(count)]
            (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tasks(folder: Path, data: Path, definitions: Path) -> None:
    """A task file for each suite that takes everything but the data from the harness's own."""
    folder.mkdir()
    for name, file in FILES.items():
        splits = {path.stem: str(path) for path in sorted((data / name).iterdir())}
        for missing in ("train", "validation", "test"):  # the harness names splits that it does not look at here
            splits.setdefault(missing, next(iter(splits.values())))
        more = {"generation_kwargs": {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False,
                "temperature": 0.0, "max_gen_toks": TOKENS}} if name == "gsm8k" else {}  # fmt: skip
        task = {
            "include": str(definitions / f"{file}.yaml"), "task": name, "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": splits}, **more,
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML


def tokenizer(kind: str) -> Tokenizer:
    """Byte-level BPE; "llama" puts `<s>` before each text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>"] if kind == "gpt2" else ["<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    draw = random.Random(0)
    made.train_from_iterator([phrase(draw, 20, 40) for _ in range(50)], trainer)
    if kind == "llama":
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return made


def write_model(folder: Path, kind: str) -> None:
    """A random model of 2 layers in the hub's layout, whose predictions are far from uniform."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    own = tokenizer(kind)
    marks = ("<|endoftext|>", "<|endoftext|>") if kind == "gpt2" else ("<s>", "</s>")
    ids = {"bos_token_id": own.token_to_id(marks[0]), "eos_token_id": own.token_to_id(marks[1])}
    size = own.get_vocab_size()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "gpt2":
            config = GPT2Config(vocab_size=size, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, **ids)
            network = GPT2LMHeadModel(config)
        else:
            network = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=size, max_position_embeddings=CONTEXT, hidden_size=32, intermediate_size=48,
                    num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, **ids,
                )
            )  # fmt: skip
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3 if "emb" in name or "wte" in name else 0.2)
    network.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=own, bos_token=marks[0], eos_token=marks[1]).save_pretrained(folder)


def read_subject(folder: Path) -> Subject:
    """A model of transformers, with its tokenizer, as conjure examines it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network, own = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def logits(ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return network(ids_BT, attention_mask=mask_BT).logits

    def write(prompts: Sequence[Sequence[int]], tokens: int, stop: Sequence[str]) -> list[list[int]]:
        found = []
        for prompt in prompts:
            made: list[int] = []
            while len(made) < tokens and not any(each in own.decode(made) for each in stop):
                with torch.inference_mode():
                    token = int(network(torch.tensor([[*prompt, *made]])).logits[0, -1].argmax())
                if token == own.eos_token_id:
                    break
                made.append(token)
            found.append(made)
        return found

    return Subject(
        logits=logits,
        encode=lambda text, special: own.encode(text, add_special_tokens=special),
        decode=lambda ids: own.decode(ids, skip_special_tokens=True),
        write=write,
        vocabulary=len(own),
        prefix=own.bos_token_id,
        prefix_text=own.bos_token,
        end_text=own.eos_token,
        context=CONTEXT,
    )


def scripted(subject: Subject) -> Subject:
    """A model that writes one of a few texts, so that some answers are right."""

    def write(prompts: Sequence[Sequence[int]], tokens: int, stop: Sequence[str]) -> list[list[int]]:
        return [subject.encode(SCRIPT[sum(prompt) % len(SCRIPT)], False) for prompt in prompts]

    return dataclasses.replace(subject, write=write)
