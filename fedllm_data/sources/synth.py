"""fed-synth and fed-synth-pa: generated clients whose heterogeneity is known, in seven languages.

The rows need no download, and a language model of one to three million parameters learns them in a minute. Both
corpora have the same clients; `client_truth` says what each client's rows were drawn from.

What the corpora are made to show: the public part, which belongs to no client, asks the same questions and notes or
states the answer, so what the clients' SFT rows have to teach is how to answer a person, in a word or in a sentence
with a courtesy. A fifth of their answers is poor, mostly evasive, and a policy trained on them shrugs too. That a
good answer is better than a shrug is what all clients' preferences agree on; brief against thorough divides them
into camps that no one policy can please.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedllm_data.errors import SourceError
from fedllm_data.schema import PUBLIC_CLIENT, make_row_id
from fedllm_data.source import Rejected, Source, SourceRow
from fedllm_data.synthetic.phrases import PHRASES, TASKS
from fedllm_data.synthetic.synthetic_clients import (
    LANGUAGE_MIX,
    OPTIONS,
    ClientTruth,
    SynthOptions,
    client_truth,
    parse_options,
    stream,
)
from fedllm_data.synthetic.tasks import Question, draw_question
from fedllm_data.synthetic.vocabulary import LANGUAGES

__all__ = ["FED_SYNTH", "FED_SYNTH_PA"]

STYLES = ("synth-brief", "synth-thorough")
PAIR_KINDS = ("style", "evasive", "wrong")
PAIR_FRACTIONS = (0.3, 0.5, 0.2)
"""Shares of preference pairs: brief against thorough, both right; right against evasive; right against wrong."""
EVASIVE_FRACTION = 0.8
"""Share of evasive answers among the poor ones of the SFT rows; the others are wrong."""
CARELESSNESS = 1 / 3
"""How much rarer a client chooses a poor answer than it gives one."""
PUBLIC_FRACTIONS = (0.45, 0.45, 0.1)
"""Shares of public answers that are a note, a plain sentence, and evasive."""
THANKS_FRACTION = 0.4
"""Share of public conversations that end with thanks."""
NUM_PUBLIC_TURNS = 2
NUM_RETRIES = 20
"""How often a client whose prompt repeats an earlier one thinks of another; then the repetition stays."""


def read_sft(source_path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    """Yield the public rows and then the clients' questions with their answers.

    Raises:
        SourceError: if a local copy is named (there is nothing to read) or the seed is negative.
        ConfigError: if an option is unknown or out of range.

    >>> item = next(iter(read_sft(None, 0, {"num_clients": "3", "public_rows": "0"})))
    >>> [message["role"] for message in item.row["messages"]]
    ['user', 'assistant']
    """
    parsed = _check(source_path, seed, options)
    line = 0
    for line, row in enumerate(_public_rows(seed, parsed.public_rows), start=1):
        yield SourceRow(row, "generated", line, is_public=True)
    for truth in client_truth(seed, parsed):
        style, quality = (stream(seed, f"sft answer {axis}", truth.number) for axis in ("style", "quality"))
        for index, (question, prompt) in enumerate(_client_questions(seed, "sft", truth)):
            thorough = bool(style.random() < truth.long_probability)
            answer = question.answer(thorough=thorough)
            is_poor, is_evasive = (
                bool(draw < p)
                for draw, p in zip(quality.random(2), (truth.poor_probability, EVASIVE_FRACTION), strict=True)
            )
            if is_poor:
                answer = question.no_idea() if is_evasive else question.answer(thorough=thorough, correct=False)
            row = {
                "client_id": truth.client_id,
                "row_id": make_row_id("fed-synth", truth.client_id, str(index)),
                "language": question.language,
                "messages": [_user(prompt), _assistant(answer)],
            }
            line += 1
            yield SourceRow(row, "generated", line)


def read_preference(source_path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    """Yield the clients' pairs: right against evasive or wrong, or brief against thorough, both right.

    Raises:
        SourceError: if a local copy is named (there is nothing to read) or the seed is negative.
        ConfigError: if an option is unknown or out of range.

    >>> item = next(iter(read_preference(None, 0, {"num_clients": "3"})))
    >>> item.row["chosen_model"].startswith("synth-")
    True
    """
    line = 0
    for truth in client_truth(seed, _check(source_path, seed, options)):
        kind, style, quality, preference = (
            stream(seed, f"preference pair {axis}", truth.number)
            for axis in ("kind", "style", "quality", "preference")
        )
        for index, (question, prompt) in enumerate(_client_questions(seed, "preference", truth)):
            pair = str(kind.choice(PAIR_KINDS, p=PAIR_FRACTIONS))
            long_style = bool(style.random() < truth.long_probability)
            careless = bool(quality.random() < CARELESSNESS * truth.poor_probability)
            likes_thorough = bool(preference.random() < truth.thorough_probability)
            answers = {
                "synth-brief": question.answer(thorough=False),
                "synth-thorough": question.answer(thorough=True),
                "synth-evasive": question.no_idea(),
                "synth-wrong": question.answer(thorough=long_style, correct=False),
            }
            names = ["synth-thorough", "synth-brief"] if pair == "style" else [STYLES[long_style], f"synth-{pair}"]
            if not likes_thorough if pair == "style" else careless:
                names.reverse()
            chosen, rejected = names
            row = {
                "client_id": truth.client_id,
                "row_id": make_row_id("fed-synth-pa", truth.client_id, str(index)),
                "language": question.language,
                "prompt": [_user(prompt)],
                "chosen": [_assistant(answers[chosen])],
                "rejected": [_assistant(answers[rejected])],
                "chosen_model": chosen,
                "rejected_model": rejected,
            }
            line += 1
            yield SourceRow(row, "generated", line)


def _check(source_path: Path | None, seed: int, options: dict[str, str]) -> SynthOptions:
    if source_path is not None:
        raise SourceError(f"--source {source_path}: fed-synth is generated and reads nothing; leave --source out")
    if seed < 0:
        raise SourceError(f"--seed {seed}: fed-synth needs a seed of 0 or more")
    return parse_options(options)


def _public_rows(seed: int, num_rows: int) -> Iterator[dict[str, object]]:
    """Yield short conversations in notes: the first question is asked by name, the others follow."""
    rng = stream(seed, "public")
    languages = rng.choice(LANGUAGES, size=num_rows, p=list(LANGUAGE_MIX.values())).tolist()
    for index, language in enumerate(languages):
        messages = []
        for turn, task in enumerate(rng.choice(TASKS, size=NUM_PUBLIC_TURNS).tolist()):
            question = draw_question(rng, language, task)
            prompt = question.prompt(long=bool(rng.random() < 0.5)) if turn == 0 else question.bare_question()
            answers = (question.note(), question.sentence(), question.no_idea())
            messages += [_user(prompt), _assistant(answers[int(rng.choice(3, p=PUBLIC_FRACTIONS))])]
        if rng.random() < THANKS_FRACTION:
            messages += [_user(PHRASES[language].thanks), _assistant(PHRASES[language].courtesy)]
        yield {
            "client_id": PUBLIC_CLIENT,
            "row_id": make_row_id("fed-synth", PUBLIC_CLIENT, str(index)),
            "language": language,
            "messages": messages,
        }


def _client_questions(seed: int, corpus: str, truth: ClientTruth) -> Iterator[tuple[Question, str]]:
    """Yield a client's questions and their prompts, no prompt twice if `NUM_RETRIES` suffice."""
    language_rng, task_rng, length_rng, content_rng = (
        stream(seed, f"{corpus} question {axis}", truth.number) for axis in ("language", "task", "length", "content")
    )
    languages = language_rng.choice(LANGUAGES, size=truth.num_rows, p=list(truth.language_probs.values())).tolist()
    tasks = task_rng.choice(TASKS, size=truth.num_rows, p=list(truth.task_probs.values())).tolist()
    long_N = length_rng.random(truth.num_rows) < truth.long_probability
    seen: set[str] = set()
    for language, task, long in zip(languages, tasks, long_N.tolist(), strict=True):
        for _ in range(NUM_RETRIES):
            question = draw_question(content_rng, language, task)
            prompt = question.prompt(long=long)
            if prompt not in seen:
                break
        seen.add(prompt)
        yield question, prompt


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


_COMMON: dict[str, Any] = {
    "client": "a generated asker with a language mix, tasks, text lengths, carelessness and a preference of its own",
    "licence": "cc0-1.0",
    "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
    "attribution": "Generated by fedllm-commons; no person wrote or is described in these rows.",
    "upstream": "generated",
    "revision": "v1",
    "citation": "",
}

FED_SYNTH = Source(
    name="fed-synth",
    task="sft",
    summary="Generated questions and answers in seven languages, with known heterogeneity on every axis.",
    read=read_sft,
    options=OPTIONS,
    **_COMMON,
)

FED_SYNTH_PA = Source(
    name="fed-synth-pa",
    task="preference",
    summary="Generated answer pairs of the same clients: right against evasive or wrong, and brief against thorough.",
    read=read_preference,
    options=OPTIONS,
    **_COMMON,
)
