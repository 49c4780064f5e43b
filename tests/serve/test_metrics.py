from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conjure.serve.settings import Settings
from tests.serve.running import running


def fetched(url: str, body: object = None, **headers: str) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def values(url: str, **headers: str) -> dict[tuple[str, ...], float]:
    """(name, label values ...) -> value."""
    found = {}
    for family in text_string_to_metric_families(fetched(f"{url}/metrics", **headers).decode()):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def refused(url: str, **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetched(url, **headers)
    caught.value.close()
    return caught.value.code


def test_what_is_done_is_counted(tmp_path: Path) -> None:
    with running(Settings(history=tmp_path)) as url:
        fetched(f"{url}/v1/make", {"inputs": ["a cat"], "to": "image", "count": 2, "options": {"steps": 1}})
        talk = {"model": "starter/chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
        usage = json.loads(fetched(f"{url}/v1/chat/completions", talk))["usage"]
        for path in ("/v1/nothing", "/v1/models/no/such", "/etc/passwd"):
            assert refused(url + path) == 404
        assert refused(f"{url}/v1/models", Host="evil.example") == 403
        found = values(url)
    assert found["conjure_requests_total", "/v1/make", "POST", "200"] == 1
    assert found["conjure_request_seconds_count", "/v1/make"] == 1
    assert found["conjure_results_total", "image"] == 2
    assert found["conjure_tokens_total", "starter/chat", "read"] == usage["prompt_tokens"]
    assert found["conjure_tokens_total", "starter/chat", "written"] == usage["completion_tokens"]
    assert found["conjure_requests_total", "other", "GET", "404"] == 2, "no path of a client becomes a label"
    assert found["conjure_requests_total", "other", "GET", "403"] == 1
    assert found["conjure_work", "waiting"] == 0 and found["conjure_jobs", "queued"] == 0
    assert found["conjure_model_bytes", "starter/chat"] > 1e6 and not any("evil" in "".join(key) for key in found)


def test_others_see_none_of_it_without_the_key() -> None:
    with running(Settings(host="0.0.0.0", key="secret")) as url:
        assert refused(f"{url}/metrics") == 401
        assert values(url, Authorization="Bearer secret")
    with running(Settings(host="0.0.0.0")) as url:  # which the command never does
        assert refused(f"{url}/metrics", Host="0.0.0.0") == 404
