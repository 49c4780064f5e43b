"""Small exercises with one right answer each, made from templates: sums, lists, spelling, reading, tool calls.

Each maker draws from a generator and returns (prompt, answer, key); the key names the problem apart from its wording,
so that a problem is either trained on or held out, however it is asked. Facts that can only be remembered (capitals,
opposites) have the wording in their key: what is held out there is another way to ask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Draw = np.random.Generator
T = TypeVar("T")

NOUNS = """apple arm bag ball bank barn basket bear bed bee bell bench bird boat book bottle bowl box bread bridge broom
brush bucket butter button cake camel candle cap car carpet cart castle cat chain chair cheese chest chicken
church clock cloud coat coin cow crown cup curtain desk dog doll door dragon dress drum duck eagle egg engine
farm feather fence field finger fire fish flag flower fork fox frog garden garlic gate ghost giant glass goat
gold goose grass guitar hammer hand hat hill honey horse house island jar key king kite kitten ladder lake
lamp leaf lemon letter lion map market mirror monkey moon mountain nail needle nest nose ocean onion orange
oven owl paper parrot pearl pen pepper piano pig pillow pipe plate pond potato prince queen rabbit rain ring
river road robin roof rope rose sail salt school seed shadow sheep ship shirt shoe silver sister sky snake
snow soap sock song spider spoon star stone storm sugar sun sword table tail tea tent thief tiger tower town
train tree trumpet turtle umbrella valley village violin wagon wall water wheel whistle window wing winter
wolf wood wool""".split()
NAMES = "Anna Bob Clara David Emma Frank Grace Henry Ivy Jack Kate Leo Mary Nick Olive Paul Rose Sam Tom Vera".split()
COLOURS = "red blue green yellow black white brown grey pink purple".split()
ITEMS = "kite drum coat hat ball boat cup bag book bell lamp chair ring scarf box bicycle".split()
PLACES = "garden kitchen park school market barn forest library harbour attic".split()
FOODS = "apples bread cheese soup honey cake fish rice plums tea".split()
VERBS = {"walk": "walked", "open": "opened", "paint": "painted", "help": "helped", "call": "called", "wash": "washed",
         "clean": "cleaned", "watch": "watched", "want": "wanted", "need": "needed", "pull": "pulled", "push": "pushed",
         "find": "found", "take": "took", "see": "saw", "buy": "bought", "bring": "brought", "keep": "kept",
         "lose": "lost", "make": "made", "hold": "held", "sell": "sold", "catch": "caught", "draw": "drew"}  # fmt: skip
OPPOSITES = {"hot": "cold", "big": "small", "tall": "short", "fast": "slow", "old": "young", "happy": "sad",
             "light": "dark", "early": "late", "full": "empty", "hard": "soft", "high": "low", "rich": "poor",
             "strong": "weak", "wet": "dry", "open": "closed", "loud": "quiet", "long": "short", "good": "bad",
             "clean": "dirty", "near": "far", "heavy": "light", "brave": "afraid", "thick": "thin"}  # fmt: skip
CAPITALS = {"France": "Paris", "England": "London", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin",
            "Portugal": "Lisbon", "Greece": "Athens", "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing",
            "Egypt": "Cairo", "Austria": "Vienna", "Ireland": "Dublin", "Poland": "Warsaw", "Norway": "Oslo",
            "Sweden": "Stockholm", "Denmark": "Copenhagen", "Hungary": "Budapest", "Peru": "Lima", "Cuba": "Havana",
            "Canada": "Ottawa", "Finland": "Helsinki", "Belgium": "Brussels", "India": "New Delhi"}  # fmt: skip
KINDS = {"animal": "dog cat horse cow pig sheep goat lion tiger bear wolf fox rabbit monkey camel".split(),
         "colour": COLOURS,
         "food": "bread cheese cake soup butter honey rice potato onion lemon".split(),
         "tool": "hammer saw needle broom ladder rope spade axe brush knife".split()}  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
TOOLS: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "get_weather": ("city", tuple(CAPITALS.values()), ("What is the weather in {}?", "Will it rain in {} today?")),
    "play_song": ("title", tuple(word.title() for word in NOUNS), ("Play the song {}.", "I want to hear {}.")),
    "send_message": ("name", NAMES, ("Send a message to {}.", "Write to {}, please.")),
    "find_book": ("subject", NOUNS, ("Find me a book about a {}.", "Look for books on the {}.")),
    "set_alarm": ("hour", tuple(map(str, range(1, 13))), ("Wake me at {}.", "Set an alarm for {} o'clock.")),
}

Made = tuple[str, str, str]


@dataclass(frozen=True)
class Exercise:
    """`system` is what the system turn says, "" for none."""

    kind: str
    prompt: str
    answer: str
    key: str
    system: str = ""


def pick(draw: Draw, values: Sequence[T]) -> T:
    return values[int(draw.integers(len(values)))]


def some(draw: Draw, values: Sequence[T], least: int, most: int) -> list[T]:
    """Several different ones."""
    return [values[i] for i in draw.permutation(len(values))[: int(draw.integers(least, most + 1))]]


def phrased(draw: Draw, ways: Sequence[str], *values: Any) -> str:
    return pick(draw, ways).format(*values)


def listed(words: Sequence[str]) -> str:
    return ", ".join(words)


# -- numbers ----------------------------------------------------------------------------------------------------------


def addition(draw: Draw) -> Made:
    a, b = (int(n) for n in draw.integers(0, 30, 2))
    ways = ("What is {} plus {}?", "{} + {} = ?", "Add {} and {}.", "How much is {} plus {}?")
    return phrased(draw, ways, a, b), str(a + b), f"{min(a, b)}+{max(a, b)}"


def subtraction(draw: Draw) -> Made:
    b, a = sorted(int(n) for n in draw.integers(0, 30, 2))
    ways = ("What is {} minus {}?", "{} - {} = ?", "How much is {} minus {}?")
    return phrased(draw, ways, a, b), str(a - b), f"{a}-{b}"


def multiplication(draw: Draw) -> Made:
    a, b = (int(n) for n in draw.integers(0, 11, 2))
    ways = ("What is {} times {}?", "{} x {} = ?", "How much is {} times {}?")
    return phrased(draw, ways, a, b), str(a * b), f"{a}x{b}"


def comparison(draw: Draw) -> Made:
    a, b = (int(n) for n in draw.permutation(100)[:2])
    if draw.random() < 0.5:
        ways, answer, key = ("Which is larger, {} or {}?", "Which number is greater: {} or {}?"), max(a, b), f"{a}>{b}"
    else:
        ways, answer, key = ("Which is smaller, {} or {}?", "Which number is less: {} or {}?"), min(a, b), f"{a}<{b}"
    return phrased(draw, ways, a, b), str(answer), key


def counting(draw: Draw) -> Made:
    start, steps = int(draw.integers(0, 40)), int(draw.integers(3, 8))
    numbers = range(start, start + steps)
    return phrased(draw, ("Count from {} to {}.", "Write the numbers from {} to {}."), numbers[0], numbers[-1]), \
        " ".join(map(str, numbers)), f"{start}..{steps}"  # fmt: skip


def number_words(draw: Draw) -> Made:
    n = int(draw.integers(len(NUMBERS)))
    if draw.random() < 0.5:
        ways = ("Write the number {} as a word.", "How do you write {} in letters?", "Spell out the number {}.")
        prompt = phrased(draw, ways, n)
        return prompt, NUMBERS[n], prompt
    ways = ("Write {} in digits.", "Which number is {}?", "Write the word {} as a number.")
    prompt = phrased(draw, ways, NUMBERS[n])
    return prompt, str(n), prompt


# -- lists and words --------------------------------------------------------------------------------------------------


def reversal(draw: Draw) -> Made:
    words = some(draw, NOUNS, 2, 4)
    ways = ("Reverse this list: {}", "Write these words in reverse order: {}", "Turn the list around: {}")
    return phrased(draw, ways, listed(words)), listed(words[::-1]), listed(words)


def sorting(draw: Draw) -> Made:
    words = some(draw, NOUNS, 2, 4)
    ways = ("Sort these words alphabetically: {}", "Put these words in alphabetical order: {}")
    return phrased(draw, ways, listed(words)), listed(sorted(words)), listed(words)


def number_sorting(draw: Draw) -> Made:
    numbers = draw.permutation(30)[: int(draw.integers(2, 5))].tolist()
    given = listed(list(map(str, numbers)))
    ways = ("Sort these numbers: {}", "Put these numbers in order: {}", "Order from small to large: {}")
    return phrased(draw, ways, given), listed(list(map(str, sorted(numbers)))), given


def repetition(draw: Draw) -> Made:
    said = sentence(draw) if draw.random() < 0.5 else listed(some(draw, NOUNS, 2, 5))
    return phrased(draw, ("Repeat after me: {}", "Copy this: {}", "Say exactly this: {}"), said), said, said


def several_times(draw: Draw) -> Made:
    word, times = pick(draw, NOUNS), int(draw.integers(2, 6))
    ways = ("Say {} {} times.", "Write the word {} {} times.")
    return phrased(draw, ways, word, NUMBERS[times]), " ".join([word] * times), f"{word}*{times}"


def spelling(draw: Draw) -> Made:
    word = pick(draw, NOUNS)
    return phrased(draw, ("Spell the word {}.", "How do you spell {}?", "Spell {}."), word), "-".join(word), word


def edge_word(draw: Draw) -> Made:
    words = some(draw, NOUNS, 3, 6)
    which, answer = pick(draw, (("first", words[0]), ("last", words[-1]), ("second", words[1])))
    ways = ("What is the {} word of this list? {}", "Which word is {} here? {}", "Give me the {} word: {}")
    return phrased(draw, ways, which, listed(words)), answer, f"{which} {listed(words)}"


def edge_letter(draw: Draw) -> Made:
    word = pick(draw, NOUNS)
    which, answer = pick(draw, (("first", word[0]), ("last", word[-1])))
    ways = ("What is the {} letter of {}?", "Which letter is {} in the word {}?")
    return phrased(draw, ways, which, word), answer, f"{which} {word}"


def how_many(draw: Draw) -> Made:
    words = some(draw, NOUNS, 1, 7)
    ways = ("How many words are in this list? {}", "Count the words: {}")
    return phrased(draw, ways, listed(words)), str(len(words)), listed(words)


def capital_letters(draw: Draw) -> Made:
    words = " ".join(some(draw, NOUNS, 1, 3))
    ways = ("Write in capital letters: {}", "Make this upper case: {}", "Shout this: {}")
    return phrased(draw, ways, words), words.upper(), words


def odd_one(draw: Draw) -> Made:
    ours, other = some(draw, list(KINDS), 2, 2)
    words = [*some(draw, KINDS[ours], 3, 3), pick(draw, KINDS[other])]
    answer, words = words[-1], [words[i] for i in draw.permutation(4)]
    ways = ("Which word does not belong: {}?", "Find the odd one out: {}")
    return phrased(draw, ways, listed(words)), answer, listed(sorted(words))


# -- sentences --------------------------------------------------------------------------------------------------------


def sentence(draw: Draw) -> str:
    verb = pick(draw, list(VERBS.values()))
    return f"{pick(draw, NAMES)} {verb} the {pick(draw, COLOURS)} {pick(draw, ITEMS)} in the {pick(draw, PLACES)}."


def past_tense(draw: Draw) -> Made:
    verb, name, item = pick(draw, list(VERBS)), pick(draw, NAMES), pick(draw, ITEMS)
    given = f"They {verb} the {item}." if draw.random() < 0.5 else f"{name} and I {verb} the {item}."
    ways = ("Put this into the past tense: {}", "Write in the past: {}", "Change to past tense: {}")
    return phrased(draw, ways, given), given.replace(f" {verb} ", f" {VERBS[verb]} "), given


def negation(draw: Draw) -> Made:
    name, colour, item = pick(draw, NAMES), pick(draw, COLOURS), pick(draw, ITEMS)
    given, answer = pick(draw, (
        (f"{name} has a {colour} {item}.", f"{name} does not have a {colour} {item}."),
        (f"The {item} is {colour}.", f"The {item} is not {colour}."),
        (f"{name} is in the {pick(draw, PLACES)}.", ""),
    ))  # fmt: skip
    ways = ("Make this sentence negative: {}", "Say the opposite: {}", "Rewrite with not: {}")
    return phrased(draw, ways, given), answer or given.replace(" is ", " is not "), given


def question(draw: Draw) -> Made:
    name, item, place, colour = pick(draw, NAMES), pick(draw, ITEMS), pick(draw, PLACES), pick(draw, COLOURS)
    given, answer = pick(draw, (
        (f"The {item} is {colour}.", f"Is the {item} {colour}?"),
        (f"{name} is in the {place}.", f"Is {name} in the {place}?"),
        (f"The {item} was in the {place}.", f"Was the {item} in the {place}?"),
    ))  # fmt: skip
    return phrased(draw, ("Turn this into a question: {}", "Make a question of it: {}"), given), answer, given


def swapping(draw: Draw) -> Made:
    said, name = sentence(draw), pick(draw, NAMES)
    first = said.split()[0]
    ways = ("Write {1} in place of {0}: {2}", "Replace {0} by {1}: {2}", "Change {0} to {1}: {2}")
    return phrased(draw, ways, first, name, said), said.replace(first, name), f"{name} {said}"


def reading(draw: Draw) -> Made:
    people = some(draw, NAMES, 2, 3)
    things = some(draw, ITEMS, len(people), len(people))
    colours = some(draw, COLOURS, len(people), len(people))
    story = " ".join(f"{p} has a {c} {t}." for p, c, t in zip(people, colours, things, strict=True))
    i = int(draw.integers(len(people)))
    asked, answer = pick(draw, (
        (f"What colour is the {things[i]}?", colours[i]),
        (f"Who has the {things[i]}?", people[i]),
        (f"What does {people[i]} have?", f"a {colours[i]} {things[i]}"),
    ))  # fmt: skip
    return f"{story} {asked}", answer, f"{story} {asked}"


def where_is(draw: Draw) -> Made:
    people = some(draw, NAMES, 2, 3)
    places = some(draw, PLACES, len(people), len(people))
    story = " ".join(f"{p} went to the {place}." for p, place in zip(people, places, strict=True))
    i = int(draw.integers(len(people)))
    asked, answer = pick(draw, ((f"Where is {people[i]}?", f"in the {places[i]}"),
                                (f"Who is in the {places[i]}?", people[i])))  # fmt: skip
    return f"{story} {asked}", answer, f"{story} {asked}"


def data_to_text(draw: Draw) -> Made:
    name, age, food, place = pick(draw, NAMES), int(draw.integers(5, 60)), pick(draw, FOODS), pick(draw, PLACES)
    facts = f"name: {name}; age: {age}; likes: {food}; place: {place}"
    ways = ("Write this as a sentence: {}", "Make a sentence of these facts: {}")
    return phrased(draw, ways, facts), f"{name} is {age} years old, likes {food} and is in the {place}.", facts


def text_to_data(draw: Draw) -> Made:
    name, age, food = pick(draw, NAMES), int(draw.integers(5, 60)), pick(draw, FOODS)
    story = f"{name} is {age} years old and likes {food}."
    ways = ("Take the facts out of this text as JSON: {}", "Write as JSON with name, age and likes: {}")
    return phrased(draw, ways, story), json.dumps({"name": name, "age": age, "likes": food}), story


# -- what can only be remembered --------------------------------------------------------------------------------------


def remembered(facts: dict[str, str], ways: Sequence[str]) -> Callable[[Draw], Made]:
    """A maker of questions about facts."""

    def make(draw: Draw) -> Made:
        asked, answer = pick(draw, list(facts.items()))
        prompt = pick(draw, ways).format(asked)
        return prompt, answer, prompt

    return make


def _after(names: Sequence[str]) -> dict[str, str]:
    return dict(zip(names, [*names[1:], names[0]], strict=True))


def kind_of_thing(draw: Draw) -> Made:
    kind = pick(draw, list(KINDS))
    prompt = phrased(draw, ("What kind of thing is {}?", "Is {} an animal, a colour, a food or a tool?",
                            "Say what {} is: animal, colour, food or tool."), pick(draw, KINDS[kind]))  # fmt: skip
    return prompt, kind, prompt


MAKERS: dict[str, Callable[[Draw], Made]] = {
    "addition": addition, "subtraction": subtraction, "multiplication": multiplication, "comparison": comparison,
    "counting": counting, "number words": number_words, "reversal": reversal, "sorting": sorting,
    "number sorting": number_sorting, "repetition": repetition, "several times": several_times, "spelling": spelling,
    "word of a list": edge_word, "letter of a word": edge_letter, "how many": how_many,
    "capital letters": capital_letters, "odd one out": odd_one, "past tense": past_tense, "negation": negation,
    "question": question, "swapping": swapping, "reading": reading, "where is": where_is,
    "data to text": data_to_text, "text to data": text_to_data, "kind of thing": kind_of_thing,
    "opposites": remembered(OPPOSITES, ("What is the opposite of {}?", "Give me the opposite of {}.", "{} or ... ?",
                                        "Which word means the contrary of {}?", "The opposite of {} is what?")),
    "capitals": remembered(CAPITALS, ("What is the capital of {}?", "Name the capital of {}.",
                                      "Which city is the capital of {}?", "Tell me the capital city of {}.")),
    "after": remembered(_after(DAYS) | _after(MONTHS), ("What comes after {}?", "Which one follows {}?",
                                                        "{} is over. What is next?", "Name what comes after {}.")),
}  # fmt: skip
"""Kind -> maker."""


def tool_call(draw: Draw) -> Exercise:
    """A request with the tools at hand in the system turn; the answer is the call as JSON."""
    offered = some(draw, list(TOOLS), 2, 4)
    name = pick(draw, offered)
    argument, values, ways = TOOLS[name]
    value = pick(draw, values)
    call = json.dumps({"name": name, "arguments": {argument: value}})
    return Exercise("tool call", phrased(draw, ways, value), call, f"{name} {value}", tools_line(
        [(each, [TOOLS[each][0]]) for each in offered]
    ))  # fmt: skip


def tools_line(tools: Sequence[tuple[str, Sequence[str]]]) -> str:
    """What the system turn says of (name, arguments)."""
    return "Tools: " + ", ".join(f"{name}({', '.join(arguments)})" for name, arguments in tools)


KINDS_OF_EXERCISE = (*MAKERS, "tool call")


def exercise(kind: str, draw: Draw) -> Exercise:
    """One of this kind."""
    return tool_call(draw) if kind == "tool call" else Exercise(kind, *MAKERS[kind](draw))
