"""conjure as a model of the LM Evaluation Harness, which then brings its own tasks (`pip install lm-eval`).

    python -m conjure.tasks.harness_adapter run --model conjure --model_args pretrained=starter/story --tasks piqa

is `lm_eval` with this model registered. In Python: import this module, then `lm_eval.simple_evaluate(model="conjure",
model_args={"pretrained": "starter/story"}, ...)`, or pass `ConjureLM("starter/story")` itself. Nothing else imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from conjure.core.errors import ConjureError
from conjure.metrics import harness
from conjure.metrics.harness import Subject
from conjure.tasks.subjects import subject

GREEDY = {"until", "do_sample", "temperature", "max_gen_toks", "max_new_tokens", "max_tokens"}
"""What the harness may ask of writing."""


@register_model("conjure")
class ConjureLM(LM):
    """`pretrained` is a model as `conjure eval` takes it. The harness's batch size and device are not needed."""

    def __init__(
        self,
        pretrained: str | Path | Subject,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.subject = pretrained if isinstance(pretrained, Subject) else subject(pretrained)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        scored = harness.loglikelihood(self.subject, [_pair(each) for each in requests])
        return [(each.logprob, each.greedy) for each in scored]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return harness.loglikelihood_rolling(self.subject, [each.args[0] for each in requests])

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        found = [""] * len(requests)
        asked: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for index, each in enumerate(requests):
            asked.setdefault(_wanted(_pair(each)[1]), []).append(index)
        for (stop, tokens), indices in asked.items():
            prompts = [requests[index].args[0] for index in indices]
            texts = harness.generate_until(self.subject, prompts, stop=stop, tokens=tokens)
            for index, text in zip(indices, texts, strict=True):
                found[index] = text
        return found


def _pair(request: Instance) -> tuple[Any, Any]:
    given: Any = request.args
    return given[0], given[1]


def _wanted(options: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """(stop strings, most new tokens) of a request; only greedy decoding is offered."""
    unknown = sorted(set(options) - GREEDY)
    if unknown or options.get("do_sample") or options.get("temperature"):
        raise ConjureError(
            f"only greedy decoding is offered to the harness, asked for {options}",
            hint="set do_sample: false and temperature: 0",
        )
    until = options.get("until") or []
    limits = [options[key] for key in ("max_gen_toks", "max_new_tokens", "max_tokens") if options.get(key) is not None]
    return tuple([until] if isinstance(until, str) else until), int(next(iter(limits), 256))


def main() -> None:
    """The harness's own command line, of which this module is part by now."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
