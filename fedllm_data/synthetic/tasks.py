"""Questions with a right and a wrong answer, in every language of `words`.

A question is one of eight tasks: look-ups (capital, opposite, colour, day, translate), a small sum, and choices from
a list that is given (category, largest). `draw_question` uses the random stream it is given for
the content alone, so style, language and task can be chosen elsewhere. Imports numpy for its generators only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedllm_data.synthetic.phrases import PHRASES, TASKS
from fedllm_data.synthetic.vocabulary import CATEGORIES, COLOUR_OF, LANGUAGES, WORDS

__all__ = ["Question", "draw_question"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was asked, by whom, and what could be answered."""

    language: str
    task: str
    name: str
    x: str
    """What is asked about."""
    c: str
    """The category, colour or target language asked for; empty if the task has none."""
    right: str
    wrong: str
    wording: int
    """Which of the two wordings of the question."""

    def prompt(self, *, long: bool) -> str:
        """Return the question as its asker writes it, with a short or a long opening."""
        phrases = PHRASES[self.language]
        question = phrases.questions[self.task][self.wording].format(x=self.x, c=self.c)
        frame = phrases.long_frame if long else phrases.short_frame
        return frame.format(name=self.name, q=question)

    def answer(self, *, thorough: bool, correct: bool = True) -> str:
        """Return an answer: the bare word, or a whole sentence and a courtesy; right or wrong."""
        y = self.right if correct else self.wrong
        if not thorough:
            return y
        phrases = PHRASES[self.language]
        space = "" if self.language == "zh" else " "
        return self.sentence(y) + space + phrases.courtesy

    def sentence(self, y: str | None = None) -> str:
        """Return the right answer, or `y` in its place, as a plain sentence."""
        return PHRASES[self.language].sentences[self.task].format(y=self.right if y is None else y)

    def no_idea(self) -> str:
        """Return the evasive answer."""
        return PHRASES[self.language].no_idea

    def bare_question(self) -> str:
        """Return the question, asked by nobody."""
        return PHRASES[self.language].questions[self.task][self.wording].format(x=self.x, c=self.c)

    def note(self) -> str:
        """Return the right answer as a dictionary or a cheat sheet would note it, in no particular language.

        >>> question = draw_question(np.random.default_rng(2), "en", "opposite")
        >>> question.bare_question(), question.note(), question.sentence()
        ('What is the opposite of hot?', 'cold ✓', 'cold, that is the opposite.')
        """
        return f"{self.right} ✓"


def draw_question(rng: np.random.Generator, language: str, task: str) -> Question:
    """Draw the content of one question.

    Args:
        rng: the stream that decides who asks, what about, and which wrong answer there is.
        language: one of `words.LANGUAGES`.
        task: one of `phrases.TASKS`.

    Returns:
        A question whose wrong answer differs from its right one and is of the same kind.

    >>> question = draw_question(np.random.default_rng(0), "en", "capital")
    >>> question.prompt(long=False)
    'Oliver here. Which city is the capital of Greece?'
    >>> question.answer(thorough=True)
    'Athens, that is the capital. Happy to help, have a nice day!'
    """
    name = _choose(rng, WORDS[language].names)
    wording = int(rng.integers(2))
    x, c, right, wrong = _DRAW[task](rng, language)
    return Question(language=language, task=task, name=name, x=x, c=c, right=right, wrong=wrong, wording=wording)


_Content = tuple[str, str, str, str]
"""x, c, right, wrong: see `Question`."""


def _draw_capital(rng: np.random.Generator, language: str) -> _Content:
    (country, capital), (_, other) = _choose_two(rng, WORDS[language].countries)
    return country, "", capital, other


def _draw_opposite(rng: np.random.Generator, language: str) -> _Content:
    pair, other = _choose_two(rng, WORDS[language].opposites)
    side = int(rng.integers(2))
    return pair[side], "", pair[1 - side], other[int(rng.integers(2))]


def _draw_colour(rng: np.random.Generator, language: str) -> _Content:
    words = WORDS[language]
    item = int(rng.integers(len(words.coloured)))
    right = COLOUR_OF[item]
    wrong = _choose(rng, [colour for colour in range(len(words.colours)) if colour != right])
    return words.coloured[item], "", words.colours[right], words.colours[wrong]


def _draw_day(rng: np.random.Generator, language: str) -> _Content:
    days = WORDS[language].days
    today, off = int(rng.integers(7)), int(rng.integers(2, 8))
    return days[today], "", days[(today + 1) % 7], days[(today + off) % 7]


def _draw_category(rng: np.random.Generator, language: str) -> _Content:
    words = WORDS[language]
    asked = int(rng.integers(3))  # nobody is asked for a `thing`, the fourth category
    others = [category for category in range(4) if category != asked]
    ranges = list(CATEGORIES.values())
    right = words.nouns[_choose(rng, ranges[asked])]
    wrong = [words.nouns[_choose(rng, ranges[other])] for other in _shuffled(rng, others)[:2]]
    return _either(language, _shuffled(rng, [right, *wrong])), words.categories[asked], right, wrong[0]


def _draw_translate(rng: np.random.Generator, language: str) -> _Content:
    # From English into any language, from the others into English: few enough pairs for a tiny model to know them.
    target = LANGUAGES[int(rng.integers(1, len(LANGUAGES)))] if language == "en" else "en"
    noun, other = _choose_two(rng, range(len(WORDS[language].nouns)))
    in_target = WORDS[language].in_language[LANGUAGES.index(target)]
    return WORDS[language].nouns[noun], in_target, WORDS[target].nouns[noun], WORDS[target].nouns[other]


def _draw_add(rng: np.random.Generator, language: str) -> _Content:
    first, second = (int(number) for number in rng.integers(1, 11, size=2))
    off = int(rng.integers(1, 4)) * (1 if rng.random() < 0.5 else -1)
    right = first + second
    return f"{first} + {second}", "", str(right), str(right + off if right + off > 0 else right - off)


def _draw_largest(rng: np.random.Generator, language: str) -> _Content:
    numbers = (rng.choice(99, size=3, replace=False) + 1).tolist()
    smaller = [number for number in numbers if number != max(numbers)]
    return _either(language, [str(number) for number in numbers]), "", str(max(numbers)), str(_choose(rng, smaller))


_DRAW: dict[str, Callable[[np.random.Generator, str], _Content]] = {
    "capital": _draw_capital,
    "opposite": _draw_opposite,
    "colour": _draw_colour,
    "day": _draw_day,
    "translate": _draw_translate,
    "add": _draw_add,
    "category": _draw_category,
    "largest": _draw_largest,
}
assert tuple(_DRAW) == TASKS


def _choose(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _choose_two(rng: np.random.Generator, items: Sequence[T]) -> tuple[T, T]:
    first = int(rng.integers(len(items)))
    second = int(rng.integers(len(items) - 1))
    return items[first], items[second + (second >= first)]


def _shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def _either(language: str, items: Sequence[str]) -> str:
    """Join a list to choose from: "a, b or c"."""
    phrases = PHRASES[language]
    return phrases.comma.join(items[:-1]) + phrases.last_comma + items[-1]
