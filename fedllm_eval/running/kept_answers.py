"""Answers kept on disk as they are written, so that a suite which was stopped generates none of them twice.

One line of `answers.jsonl` per answer, appended as soon as it has ended. Its key is a digest of what settles the
answer: the policy's weights and chat template, the conversation and the settings of generation; not the batch size,
which settles nothing. A policy whose weights have no digest (a model made in memory) is answered afresh each time.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_eval.policy.generation import Answer, Conversation, Progress
from fedllm_eval.running.written_answers import write_answers
from fedllm_eval.served.served_policy import ServedPolicy
from fedllm_eval.texts import json_text, text_bytes

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["ANSWERS_FILE", "kept_answers"]

ANSWERS_FILE = "answers.jsonl"


def kept_answers(
    policy: "Policy | ServedPolicy",
    conversations: Sequence[Conversation],
    folder: Path,
    *,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> list[Answer]:
    """Return one answer for each conversation: those in the folder as they are, the others generated and kept.

    Args:
        policy: who answers.
        conversations: as `generate` takes them, and so are the settings.
        folder: an existing folder; several suites and policies may share one.
        max_new_tokens: as in `generate`.
        temperature: as in `generate`.
        top_p: as in `generate`.
        seed: as in `generate`.
        batch_size: as in `generate`.
        progress: called with (answers finished, answers in all), kept ones included.

    Returns:
        Answers in the order of the conversations.

    Raises:
        ConfigError: as `generate` does.
        MetricError: as `generate` does.
        ServedModelError: if a server cannot be asked any further; what it answered is kept.
    """
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    if temperature == 0:
        # Greedy answers hang on neither.
        settings |= {"top_p": 1.0, "seed": 0}
    file = folder / ANSWERS_FILE
    weights, known = _who(policy)
    kept = _read(file) if known else {}
    keys = [_digest({"policy": weights, "settings": settings, "messages": list(item)}) for item in conversations]
    missing = [index for index, key in enumerate(keys) if key not in kept]
    num_kept = len(keys) - len(missing)

    def keep(position: int, answer: Answer) -> None:
        if known:
            line = {"key": keys[missing[position]], **answer._asdict()}
            with file.open("a", encoding="utf-8") as out:
                out.write(json_text(line) + "\n")

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(num_kept + done, len(keys))

    if progress is not None and num_kept:
        progress(num_kept, len(keys))
    made = write_answers(
        policy,
        [conversations[index] for index in missing],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
        progress=told,
        on_answer=keep,
    )
    kept |= {keys[index]: answer for index, answer in zip(missing, made, strict=True)}
    return [kept[key] for key in keys]


def _who(policy: "Policy | ServedPolicy") -> tuple[dict[str, Any], bool]:
    """What settles a policy's answers, and whether that tells it from every other policy."""
    if isinstance(policy, ServedPolicy):
        return policy.identity(), True
    weights: dict[str, Any] = {
        name: value for name, value in policy.describe().items() if name not in ("name", "base")
    }
    weights["chat_template"] = policy.tokenizer.chat_template
    known = weights["base_digest"] is not None and (policy.adapter is None or weights["adapter_sha256"] is not None)
    return weights, known


def _read(file: Path) -> dict[str, Answer]:
    """What was kept; a line that a stop cut short is answered again."""
    kept = {}
    if file.is_file():
        content = file.read_text(encoding="utf-8", errors="replace")
        for line in content.split("\n"):  # splitlines() would also cut at U+2028 inside a text
            try:
                record = json.loads(line)
                kept[record["key"]] = Answer(record["text"], record["num_tokens"], record["finished"])
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        if content and not content.endswith("\n"):
            with file.open("a", encoding="utf-8") as out:
                out.write("\n")
    return kept


def _digest(what: object) -> str:
    return hashlib.sha256(text_bytes(json.dumps(what, sort_keys=True, ensure_ascii=False))).hexdigest()
