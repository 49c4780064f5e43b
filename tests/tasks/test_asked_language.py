from __future__ import annotations

import pytest

from conjure.tasks.asked_language import likely


@pytest.mark.parametrize(
    "text",
    ["¿Dónde está Tom?", "Podemos ganar.", "El perro de mi amigo come mucho.", "No sé.", "VAMOS A LA CASA",
     "Renuncio."],
)  # fmt: skip
def test_spanish(text: str) -> None:
    assert likely(text) == "es"


@pytest.mark.parametrize(
    "text",
    ["Where is Tom?", "We can win.", "My friend's dog eats a lot.", "I don’t know.", "LET US GO TO THE CASA", "Stop!",
     "Maria and Pablo live in San Francisco with a piano.", "12:30", ""],
)  # fmt: skip
def test_english_and_what_tells_nothing(text: str) -> None:
    assert likely(text) == "en"
