from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from conjure.serve.settings import Settings
from tests.serve.running import running


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    """The address of a server with the models that come with conjure."""
    with running(Settings()) as url:
        yield url


@pytest.fixture
def client(place: str) -> Iterator[openai.OpenAI]:
    """The official client, which tries nothing twice."""
    with openai.OpenAI(base_url=f"{place}/v1", api_key="any", max_retries=0) as made:
        yield made
