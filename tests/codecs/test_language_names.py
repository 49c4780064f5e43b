from __future__ import annotations

import pytest
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from conjure.codecs.language_names import LANGUAGES, code_of, is_language, name_of
from conjure.codecs.languages import M2M100, MBART50
from conjure.core.errors import ConjureError


@pytest.mark.parametrize(
    ("said", "m2m100", "mbart", "nllb"),
    [
        ("Spanish", "es", "es_XX", "spa_Latn"), ("de", "de", "de_DE", "deu_Latn"), ("zh", "zh", "zh_CN", "zho_Hans"),
        ("eng_Latn", "en", "en_XX", "eng_Latn"), ("Brazilian Portuguese", "pt", "pt_XX", "por_Latn"),
        ("farsi", "fa", "fa_IR", "pes_Arab"), ("UKRAINIAN", "uk", "uk_UA", "ukr_Cyrl"),
        ("ar", "ar", "ar_AR", "arb_Arab"),
    ],
)  # fmt: skip
def test_a_language_is_found_by_any_name_in_any_models_codes(said: str, m2m100: str, mbart: str, nllb: str) -> None:
    assert [code_of(said, M2M100), code_of(said, MBART50), code_of(said, NLLB)] == [m2m100, mbart, nllb]


def test_every_code_of_the_models_is_itself_and_most_have_a_name() -> None:
    for codes in (M2M100, MBART50, NLLB):
        assert [code_of(code, codes) for code in codes] == list(codes)
    assert all(name_of(code) != code for code in [*M2M100, *MBART50] if code not in ("no", "ns"))
    assert len({short for short, _, _ in LANGUAGES}) == len(LANGUAGES)


def test_scripts_and_what_is_unknown() -> None:
    assert code_of("Traditional Chinese", NLLB) == "zho_Hant"
    assert is_language("french") and not is_language("klingon")
    with pytest.raises(ConjureError, match="does not know the language 'Frnch'") as caught:
        code_of("Frnch", MBART50)
    assert "French" in caught.value.hint
