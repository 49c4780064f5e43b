from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from conjure.codecs import tokenizer as tokens
from conjure.core.errors import ConjureError
from conjure.metrics.harness import Subject, generate_until, loglikelihood
from conjure.models.compiled import Compiled
from conjure.models.language import LanguageModel
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks.subjects import of_language_model

CONTEXT = 24


def letters(*, begin: bool) -> tokens.Tokenizer:
    """A letter a token, `<|end|>` and `<|stop|>`; with `begin` each text is asked to begin with `<s>`."""
    vocabulary = {mark: i for i, mark in enumerate(["<|end|>", "<s>", "<|stop|>", *"abcdefgh "])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|end|>", "<s>", "<|stop|>")])
    if begin:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokens.Tokenizer(backend)


@pytest.fixture(scope="module")
def network() -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Transformer(TransformerConfig(vocab=12, dim=16, layers=2, heads=2, rope=Rope(dim=8)))
        for weight in made.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.4)
    return made.eval().requires_grad_(False)


def made(network: Transformer | Compiled, *, begin: bool = False) -> Subject:
    return of_language_model(LanguageModel(network, {}, Path("m"), tokenizer=letters(begin=begin), context=CONTEXT))


def test_marks_and_context_are_the_tokenizers(network: Transformer) -> None:
    own = made(network)
    assert (own.prefix, own.prefix_text, own.end_text, own.context) == (0, "<|end|>", "<|end|>", CONTEXT)
    assert own.encode("ab<|stop|>", True) == [3, 4, 2]
    assert made(network, begin=True).encode("ab", True) == [1, 3, 4]
    assert made(network, begin=True).encode("ab", False) == [3, 4]


def test_log_likelihoods_are_the_networks(network: Transformer) -> None:
    asked = [("abc", "de"), ("a", "b"), ("", "fg"), ("abcd abcd", "a")]
    for (context, continuation), found in zip(asked, loglikelihood(made(network), asked), strict=True):
        own = made(network)
        before = own.encode(context, True) or [0]
        ids = [*before, *own.encode(continuation, True)]
        logp_TV = network(torch.tensor([ids]))[0].log_softmax(-1)
        wanted = sum(float(logp_TV[at - 1, ids[at]]) for at in range(len(before), len(ids)))
        assert found.logprob == pytest.approx(wanted, abs=1e-4)


def test_a_model_held_in_compiled_code_is_asked_alike(network: Transformer) -> None:
    compiled, plain = made(Compiled(copy.deepcopy(network), "fp32")), made(network)
    asked = [("abc", "de"), ("a", "b"), ("", "fg"), ("abcd abcd", "a")]
    for found, wanted in zip(loglikelihood(compiled, asked), loglikelihood(plain, asked), strict=True):
        assert found.logprob == pytest.approx(wanted.logprob, abs=1e-4) and found.greedy == wanted.greedy
    prompts = ["abc", "h", "dd ff aa"]
    written = [generate_until(each, prompts, stop=["zz"], tokens=9) for each in (compiled, plain)]
    assert written[0] == written[1]


def test_writing_is_greedy_alone_and_in_company(network: Transformer) -> None:
    own = made(network)
    prompts = ["abc", "h", "dd ff aa", "a"]
    for prompt, text in zip(prompts, generate_until(own, prompts, stop=["zz"], tokens=9), strict=True):
        ids = own.encode(prompt, True)
        for _ in range(9):
            token = int(network(torch.tensor([ids]))[0, -1].argmax())
            if token == 0:
                break
            ids.append(token)
        assert text == own.decode(ids[len(own.encode(prompt, True)) :])


def test_a_stop_that_is_a_special_token_ends_a_text(network: Transformer) -> None:
    own, stopped = made(network), 0
    for prompt in ("a", "b", "c", "d", "e", "f", "g", "h", "ab", "cd", "gh", "ha"):
        ids = own.write([own.encode(prompt, True)], 12, [])[0]
        if 2 in ids:
            stopped += 1
            assert own.write([own.encode(prompt, True)], 12, ["<|stop|>"])[0] == ids[: ids.index(2)]
    assert stopped, "no text held the mark: the test shows nothing"


def test_models_that_do_not_write_on(network: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "can", frozenset({"fill"}))
    with pytest.raises(ConjureError, match="write on from where a text stops") as caught:
        made(network)
    assert "fill" in caught.value.hint
