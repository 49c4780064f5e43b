"""About 3,000 lines of all kinds of writing, for comparing tokenizers."""

from __future__ import annotations

import random

import pytest

SCRIPTS = {
    "latin": "the quick brown fox jumps over a lazy dog and can't won't it's we've they'll don't I'm you'd",
    "accents": "naïve café Zürich façade señor smørrebrød Łódź Škoda ÄÖÜß ﬁne œuvre İstanbul ΑΣ ẞ ĳ Ǆ",
    "cyrillic": "быстрая лиса ёжик йод прыгает через ленивую собаку Україна їжак",
    "arabic": "الثعلب البني السريع يقفز فوق الكلب مُحَمَّد ٱلْعَرَبِيَّة ۱۲۳ لا",
    "hebrew": "השועל החום המהיר קופץ מעל הכלב שָׁלוֹם",
    "devanagari": "तेज़ भूरी लोमड़ी आलसी कुत्ते पर कूदती है क्षत्रिय १२३",
    "thai": "สุนัขจิ้งจอกสีน้ำตาล กระโดดข้ามสุนัขขี้เกียจ ๑๒๓",
    "chinese": "敏捷的棕色狐狸跳过了懒狗。 你好，世界！ 「引用」 ㈱ Ａｂｃ１２３",
    "japanese": "すばやい茶色の狐は ｶﾞｷﾞ のろまな犬を飛び越える。 がぎ プログラム",
    "korean": "빠른 갈색 여우가 게으른 개를 뛰어넘는다 한국어 한글",
    "emoji": "👩‍👩‍👧‍👦 🙂 👍🏽 🏳️‍🌈 ❤️ 🇩🇪 ☃ 1️⃣ 🧑🏿‍🚀",
    "combining": "e\u0301 a\u0308\u0323 n\u0303 o\u0302\u0301 \u0915\u093c Z͑ͫ̓a̴ q\u0307\u0323",
    "control": "a\u200bb c\u00a0d \u2028 x\u0007y z\u0000w \ufeffbom soft\u00adhyphen \u202eright\u202c \u0085 \ufffd",
    "numbers": "1 22 333 4444 3.14159 1,000,000 ½ ² Ⅳ 10:30 2026-01-02 0x1F -5% $9.99 №7",
    "symbols": "“quotes” ‘single’ — – … • € £ ¥ → ≤ ≠ ∑ ™ © ¿¡ \\ / @ # ^ & * ( ) [ ] { } ~ `",
    "code": "def f(x): return x+1 if(a==b){c[i]+=2;} self.name_of -> None '\"' // /* */ != <= && lambda: 0",
}
SPACES = [" "] * 12 + ["  ", "   ", "\t", "\n", "\n\n", " \n", "\u3000", "", "        "]


def made(count: int, seed: int) -> list[str]:
    """Lines with words of one to three kinds of writing each, with all kinds of space between, before and after."""
    chance = random.Random(seed)
    words = {name: text.split(" ") for name, text in SCRIPTS.items()}
    lines = ["", " ", "  ", "\n", "a", " a", "a ", "  a  b  ", "\t\ta"]
    while len(lines) < count:
        kinds = chance.sample(sorted(words), chance.choice([1, 1, 2, 3]))
        parts = [chance.choice(["", "", "", " ", "  "])]
        for _ in range(chance.randint(1, 12)):
            word = chance.choice(words[chance.choice(kinds)])
            word = chance.choice([word, word, word.upper(), word.title(), word[::-1], word[: chance.randint(1, 9)]])
            parts += [word + chance.choice(["", "", "", ",", ".", "!?", "..."]), chance.choice(SPACES)]
        lines.append("".join(parts))
    return lines


@pytest.fixture(scope="session")
def mixed_lines() -> list[str]:
    return made(3000, seed=1)
