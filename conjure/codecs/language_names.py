"""Languages by name or by code, whichever code a model uses for them: `es`, `es_XX`, `spa_Latn`."""

from __future__ import annotations

from collections.abc import Collection

from conjure.core.errors import ConjureError, suggest

# Two letters (ISO 639-1, or three where there are none), the three-letter codes that models use, the English name, and
# other names behind a slash. The first of several codes or scripts is what people mostly mean.
_LINES = """
af afr Afrikaans; am amh Amharic; ar arb,ara Arabic; as asm Assamese; ast ast Asturian; ay ayr Aymara; az
azj,azb,aze Azerbaijani/Azeri; ba bak Bashkir; be bel Belarusian; bg bul Bulgarian; bm bam Bambara; bn ben
Bengali/Bangla; bo bod Tibetan; br bre Breton; bs bos Bosnian; ca cat Catalan/Valencian; ceb ceb Cebuano; cs ces
Czech; cy cym Welsh; da dan Danish; de deu German; dz dzo Dzongkha; ee ewe Ewe; el ell Greek; en eng English; eo epo
Esperanto; es spa Spanish/Castilian; et est Estonian; eu eus Basque; fa pes,prs,fas Persian/Farsi/Dari; ff fuv,ful
Fulah/Fula; fi fin Finnish; fj fij Fijian; fo fao Faroese; fr fra French; fur fur Friulian; fy fry Frisian; ga gle
Irish; gd gla Gaelic/Scottish Gaelic; gl glg Galician; gn grn Guarani; gu guj Gujarati; ha hau Hausa; he heb Hebrew;
hi hin Hindi; hr hrv Croatian; ht hat Haitian/Haitian Creole; hu hun Hungarian; hy hye Armenian; id ind Indonesian;
ig ibo Igbo; ilo ilo Iloko/Ilocano; is isl Icelandic; it ita Italian; ja jpn Japanese; jv jav Javanese; ka kat
Georgian; kab kab Kabyle; ki kik Kikuyu; kk kaz Kazakh; km khm Khmer; kn kan Kannada; ko kor Korean; ks kas
Kashmiri; ku kmr,ckb,kur Kurdish/Kurmanji; ckb ckb Sorani; ky kir Kyrgyz; lb ltz Luxembourgish; lg lug
Ganda/Luganda; li lim Limburgish; ln lin Lingala; lo lao Lao; lt lit Lithuanian; lv lvs,lav Latvian; mai mai
Maithili; mg plt,mlg Malagasy; mi mri Maori; mk mkd Macedonian; ml mal Malayalam; mn khk,mon Mongolian; mr mar
Marathi; ms zsm,msa Malay; mt mlt Maltese; my mya Burmese; ne npi,nep Nepali; nl nld Dutch/Flemish; nn nno Nynorsk;
no nob,nno,nor Norwegian/Bokmål; ns nso Northern Sotho/Sepedi; ny nya Nyanja/Chichewa; oc oci Occitan; om gaz,orm
Oromo; or ory,ori Odia/Oriya; pa pan Punjabi/Panjabi; pap pap Papiamento; pl pol Polish; ps pbt,pus Pashto; pt por
Portuguese/Brazilian/Brazilian Portuguese; qu quy,que Quechua; rn run Rundi; ro ron Romanian/Moldavian; ru rus
Russian; rw kin Kinyarwanda; sa san Sanskrit; sc srd Sardinian; scn scn Sicilian; sd snd Sindhi; sg sag Sango; si
sin Sinhala/Sinhalese; sk slk Slovak; sl slv Slovenian/Slovene; sm smo Samoan; sn sna Shona; so som Somali; sq
als,sqi Albanian; sr srp Serbian; ss ssw Swati; st sot Southern Sotho/Sotho; su sun Sundanese; sv swe Swedish; sw
swh,swa Swahili; ta tam Tamil; te tel Telugu; tg tgk Tajik; th tha Thai; ti tir Tigrinya; tk tuk Turkmen; tl tgl,fil
Tagalog/Filipino/Pilipino; tn tsn Tswana; tr tur Turkish; ts tso Tsonga; tt tat Tatar; tw twi,aka Twi/Akan; ug uig
Uyghur; uk ukr Ukrainian; ur urd Urdu; uz uzn,uzb Uzbek; vec vec Venetian; vi vie Vietnamese; war war Waray; wo wol
Wolof; xh xho Xhosa; yi ydd,yid Yiddish; yo yor Yoruba; yue yue Cantonese; zh zho Chinese/Mandarin/Simplified
Chinese; zu zul Zulu
"""
_FIRST_SCRIPTS = ("Latn", "Cyrl", "Hans", "Arab", "Deva")
"""Which comes first where a model has a language in several scripts and none was named."""


def _read() -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    found = []
    for line in " ".join(_LINES.split()).split(";"):
        short, long, names = line.strip().split(" ", 2)
        found.append((short, tuple(long.split(",")), tuple(names.split("/"))))
    return tuple(found)


LANGUAGES = _read()
"""(short code, long codes, names) of each language."""


def code_of(said: str, codes: Collection[str]) -> str:
    """Which of a model's `codes` is the language that somebody called `said`: by any code or English name.

    Raises `ConjureError` with the nearest where there is none.
    """
    wanted = said.strip()
    folded = wanted.casefold().replace("-", "_")
    known = {code.casefold().replace("-", "_"): code for code in codes}
    if folded in known:
        return known[folded]
    if folded.startswith("traditional chinese") and "zho_hant" in known:
        return known["zho_hant"]
    for short, long, names in LANGUAGES:
        if folded in (short, *long, *(name.casefold() for name in names)) or folded.split("_")[0] in (short, *long):
            for each in (short, *long):
                there = [code for low, code in known.items() if low.split("_")[0] == each]
                if there:
                    return min(there, key=_script_rank)
    names = {code: name_of(code) for code in codes}
    meant = suggest(wanted, [*names.values(), *codes])
    raise ConjureError(f"this model does not know the language '{wanted}'", hint=meant)


def name_of(code: str) -> str:
    """The English name of a language by any of its codes or names; what was given where none is known."""
    folded = code.strip().casefold().replace("-", "_")
    first = folded.split("_")[0]
    for short, long, names in LANGUAGES:
        if first in (short, *long) or folded in (name.casefold() for name in names):
            return names[0]
    return code.strip()


def is_language(said: str) -> bool:
    """Whether it is a name or code of a language in this table."""
    folded = said.strip().casefold().replace("-", "_")
    return any(
        folded.split("_")[0] in (short, *long) or folded in (name.casefold() for name in names)
        for short, long, names in LANGUAGES
    )


def _script_rank(code: str) -> int:
    script = code.partition("_")[2]
    return _FIRST_SCRIPTS.index(script) if script in _FIRST_SCRIPTS else len(_FIRST_SCRIPTS)
