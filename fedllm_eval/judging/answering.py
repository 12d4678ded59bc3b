"""Put questions to a policy, turn by turn, and keep every answer: a run that is stopped answers nothing twice."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_eval.judging.questions import Question, read_answers, read_outputs
from fedllm_eval.judging.store import ContentStore
from fedllm_eval.policy.generation import Answer
from fedllm_eval.running.written_answers import answer_identity, write_answers
from fedllm_eval.served.served_policy import ServedPolicy
from fedllm_eval.texts import text_bytes

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.suites.suite import SuiteOptions

__all__ = ["answer_questions", "stored_answers"]

BATCHES_BETWEEN_SAVES = 4


def answer_questions(
    policy: "Policy | ServedPolicy",
    questions: Sequence[Question],
    options: "SuiteOptions",
    temperatures: Sequence[float],
    *,
    top_p: float = 1.0,
) -> list[tuple[str, ...]]:
    """Return a policy's answers to every turn of every question.

    Args:
        policy: who answers.
        questions: N of them.
        options: folder, batch size, limit of tokens, seed and progress.
        temperatures: N, at which each question is answered.
        top_p: nucleus of sampled answers.

    Returns:
        N tuples, one answer a turn. The same whatever the batching, and whether a run was resumed or not.

    Raises:
        ConfigError: if a conversation does not fit the policy.
        ServedModelError: if a server cannot be asked any further; what it answered is kept.
    """
    store = ContentStore(options.folder / "answers")
    identity = answer_identity(policy)
    conversations = [question.first_messages() for question in questions]
    answers: list[list[str]] = [[] for _ in questions]
    num_turns, num_done = sum(len(question.turns) for question in questions), 0

    def key(at: int) -> str:
        settings = [identity, conversations[at], float(temperatures[at]), top_p, options.max_new_tokens, options.seed]
        return hashlib.sha256(text_bytes(json.dumps(settings, ensure_ascii=False))).hexdigest()

    def keep(at: int, text: str) -> None:
        nonlocal num_done
        answers[at].append(text)
        num_done += 1
        if options.progress is not None:
            options.progress("answers", num_done, num_turns)

    def save(group: Sequence[int], turn: int, at: int, answer: Answer) -> None:
        number = group[at]
        line = {"question_id": questions[number].question_id, "turn": turn + 1, "text": answer.text}
        store.put(key(number), {**line, "num_tokens": answer.num_tokens, "finished": answer.finished})

    for turn in range(max((len(question.turns) for question in questions), default=0)):
        members = [at for at, question in enumerate(questions) if len(question.turns) > turn]
        if turn > 0:
            for at in members:
                said = {"role": "assistant", "content": answers[at][-1]}
                conversations[at] += [said, {"role": "user", "content": questions[at].turns[turn]}]
        groups: dict[float, list[int]] = {}
        for at in members:
            if (kept := store.get(key(at))) is not None and isinstance(kept.get("text"), str):
                keep(at, kept["text"])
            else:
                groups.setdefault(temperatures[at], []).append(at)

        # A server is asked for all at once, and keeps itself busy; a model in memory sorts what it is given by length.
        step = len(questions) if isinstance(policy, ServedPolicy) else options.batch_size * BATCHES_BETWEEN_SAVES
        for temperature, group in groups.items():
            for begin in range(0, len(group), step):
                chunk = group[begin : begin + step]
                texts = write_answers(
                    policy,
                    [conversations[at] for at in chunk],
                    max_new_tokens=options.max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=options.seed,
                    batch_size=options.batch_size,
                    on_answer=partial(save, chunk, turn),
                )
                for at, answer in zip(chunk, texts, strict=True):
                    keep(at, answer.text)
    return [tuple(turns) for turns in answers]


def stored_answers(path: str, questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """Return answers that were written elsewhere: FastChat's JSONL by question id, AlpacaEval's JSON by instruction.

    Raises:
        ConfigError: if a question has no answer there, or not one a turn.
    """
    if str(path).endswith(".json"):
        outputs = read_outputs(path)
        answers = {one.question_id: tuple(outputs[said] for said in one.turns if said in outputs) for one in questions}
    else:
        answers = read_answers(path)
    found = []
    for question in questions:
        turns = answers.get(question.question_id, ())
        if len(turns) < len(question.turns):
            raise ConfigError(
                f"{path} has {len(turns)} answers to question {question.question_id!r}, which has "
                f"{len(question.turns)} turns; give answers to all questions, or leave the file out"
            )
        found.append(turns[: len(question.turns)])
    return found
