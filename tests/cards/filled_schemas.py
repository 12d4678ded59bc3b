"""Upstream files of corpora that are not at hand: records in the published schemas, filled with generated text.

Six people with a few dozen records each, so that every preset of filters leaves something. The records come from the
makers with which the builders are tested.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from fedllm_data.source import SourceRow
from fedllm_data.sources.synth import FED_SYNTH
from tests.data.sources import alignment_files as files
from tests.data.sources import industry_files as fields
from tests.data.sources.test_aya import annotation
from tests.data.sources.test_chatbot_arena import vote
from tests.data.sources.test_kokkai import speech
from tests.data.sources.test_oasst import message
from tests.data.sources.test_wildchat import conversation

__all__ = ["FILLED"]

NUM_PEOPLE = 6
NUM_RECORDS = 24
"""Of each person, where the corpus's preset of filters does not ask for more."""


def _texts() -> Iterator[tuple[str, str]]:
    """English questions and answers, no two questions alike."""
    seen = set()
    for item in FED_SYNTH.read(None, 0, {}):
        if isinstance(item, SourceRow) and item.row["language"] == "en" and len(item.row["messages"]) == 2:
            question, answer = (turn["content"] for turn in item.row["messages"])
            if question not in seen:
                seen.add(question)
                yield question, answer


def _records(num_records: int = NUM_RECORDS) -> Iterator[tuple[str, int, str, str]]:
    """(person, number of the record, question, answer)."""
    pairs = itertools.islice(_texts(), NUM_PEOPLE * num_records)
    for number, (question, answer) in enumerate(pairs):
        yield f"person{number % NUM_PEOPLE}", number, question, answer


def _lines(path: Path, records: list[dict]) -> Path:
    return files.write_lines(path, records)


def _aya(folder: Path) -> Path:
    return _lines(folder / "aya.jsonl", [annotation(who, q, a) for who, _, q, a in _records(120)])


def _arena(folder: Path) -> Path:
    votes = [
        vote(a=(q, a), b=(q, f"I would rather not say {n}."), judge=who, question_id=f"q-{n}")
        for who, n, q, a in _records()
    ]
    return _lines(folder / "arena.jsonl", votes)


def _wildchat(folder: Path) -> Path:
    more = ("Could you say more?", "That is all I know.")
    chats = [
        conversation(q, a, *more[: 2 * (n // NUM_PEOPLE % 2)], hashed_ip=who, number=100 * n)
        | {"conversation_hash": f"{n:016x}"}
        for who, n, q, a in _records()
    ]
    return _lines(folder / "wildchat.jsonl", chats)


def _oasst(folder: Path) -> Path:
    messages = []
    for who, n, question, answer in _records():
        messages.append(message(f"p{n}", None, who, question))
        messages.append(message(f"a{n}x", f"p{n}", "person0", answer, rank=0))
        messages.append(message(f"a{n}y", f"p{n}", "person1", f"I would rather not say {n}.", rank=1))
    return _lines(folder / "messages.jsonl", messages)


def _prism(folder: Path) -> Path:
    conversations = []
    for who, n, question, answer in _records():
        history = [
            files.prompt(0, question),
            files.answer(0, answer, 90, chosen=True, within_turn_id=0, model_name="model-a"),
            files.answer(0, f"I would rather not say {n}.", 20, within_turn_id=1, model_name="model-b"),
        ]
        conversations.append(files.prism_conversation(f"c{n}", who, history))
    return files.write_prism(folder / "prism", conversations)


def _community(folder: Path) -> Path:
    conversations = [
        files.community_conversation(f"c{n}", who, files.community_turn("first", question))
        for who, n, question, _ in _records()
    ]
    return files.write_community(folder / "community_alignment.csv", conversations)


def _collective(folder: Path) -> Path:
    comparisons = [
        files.comparison(
            f"p{n}",
            *(files.assessment(f"person{each}", "A>B>C>D", "B>A>C>D") for each in range(NUM_PEOPLE)),
            messages=[{"role": "user", "content": question}],
        )
        for _, n, question, _ in _records()
    ]
    people = [f"person{each}" for each in range(NUM_PEOPLE)]
    return files.write_collective(folder / "collective", comparisons, people)


def _summaries(folder: Path) -> Path:
    records = [
        fields.summary_comparison(who, q, (f" {a}", f" I would rather not say {n}."), choice=0)
        for who, n, q, a in _records()
    ]
    return _lines(folder / "batch9.jsonl", records)


def _multipref(folder: Path) -> Path:
    records = [
        fields.multipref_comparison(
            f"c{n}",
            [fields.annotation(who), fields.annotation(f"person{(n + 1) % NUM_PEOPLE}", "B-is-clearly-better")],
            text=q,
            completion_a=a,
            completion_b=f"I would rather not say {n}.",
        )
        for who, n, q, a in _records()
    ]
    return _lines(folder / "multipref.jsonl", records)


def _dices(folder: Path) -> Path:
    ratings = [
        fields.rating(who, str(n), "Yes" if n % 3 else "No", context=f"USER: {q}", response=a)
        for who, n, q, a in _records()
    ]
    return fields.write_ratings(folder, ratings)


def _hansard(folder: Path) -> Path:
    records = [
        fields.speech(f"uk.org.publicwhip/person/{who}", a, id=str(n), minor_heading=q) for who, n, q, a in _records()
    ]
    return _lines(folder / "hansard.jsonl", records)


def _complaints(folder: Path) -> Path:
    products = ("Credit card", "Mortgage", "Student loan")
    records = [
        fields.complaint(f"Company {who[-1]}", f"{q} {a}", n, Product=products[n % 3]) for who, n, q, a in _records()
    ]
    return _lines(folder / "complaints.jsonl", records)


def _cases(folder: Path) -> Path:
    records = [
        fields.case(q, f"Court of {who}", [fields.opinion(a)], id=n, date_filed=f"19{n % 90 + 10}-01-31")
        for who, n, q, a in _records()
    ]
    return _lines(folder / "cases.jsonl", records)


def _kokkai(folder: Path) -> Path:
    records = [speech(who, f"○{who}君　{q} {a}", speechID=str(n), issue=f"第{n}号") for who, n, q, a in _records()]
    return _lines(folder / "kokkai.jsonl", records)


FILLED: dict[str, Callable[[Path], Path]] = {
    "fed-aya": _aya,
    "fed-chatbot-it": _arena,
    "fed-chatbot-pa": _arena,
    "fed-wildchat": _wildchat,
    "fed-wildchat-multi": _wildchat,
    "fed-oasst2": _oasst,
    "fed-oasst2-pa": _oasst,
    "fed-prism": _prism,
    "fed-community-alignment": _community,
    "fed-collective-alignment": _collective,
    "fed-summaries-pa": _summaries,
    "fed-multipref-pa": _multipref,
    "fed-dices-pa": _dices,
    "fed-hansard": _hansard,
    "fed-complaints": _complaints,
    "fed-cases": _cases,
    "fed-kokkai": _kokkai,
}
"""Corpus -> what writes upstream's files into a folder and returns what `--source` names."""
