from __future__ import annotations

import pytest

from conjure.codecs.code_tokenizer import MARKS, train_code
from conjure.core.errors import ConjureError

CODE = "def f(a_b, c):\n    if a_b:\n        return c\n\n    return None\n\n\nclass D:\n\tx = 1  \n\n" * 5


def test_the_marks_come_first_and_any_text_comes_back() -> None:
    tokenizer = train_code([CODE], 290)
    assert [tokenizer.token(i) for i in range(4)] == list(MARKS) and tokenizer.end == 0 and tokenizer.size == 290
    for text in (CODE, "x = 'é漢\\n'  # \t\n\r\n  \n", "   ", "\n\n\n  a", "a \n b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not set(tokenizer.encode("".join(MARKS))) & {0, 1, 2, 3}


def test_a_line_end_and_its_indentation_are_one_token() -> None:
    tokenizer = train_code([CODE], 290)
    pieces = [tokenizer.token(i) for i in tokenizer.encode("if a:\n        return c")]
    assert "\n        " in pieces and "return" in pieces
    assert "\n\n    " in [tokenizer.token(i) for i in tokenizer.encode("c\n\n    return")]


def test_too_small_or_too_little() -> None:
    with pytest.raises(ConjureError, match="at least 261"):
        train_code([CODE], 260)
    with pytest.raises(ConjureError, match="tokens at most"):
        train_code(["ab"], 1000)
