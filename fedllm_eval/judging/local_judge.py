"""A model in memory as judge: no endpoint, no key, no cost but time. Small ones answer beside the point; it shows."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_eval.judging.request import Finish, JudgeRequest, Judgment

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["LocalModel"]


class LocalModel:
    """A policy that judges."""

    def __init__(self, policy: "Policy", *, batch_size: int = 8, seed: int = 0) -> None:
        """Judge with a policy.

        Args:
            policy: base model with an adapter or none.
            batch_size: judgments written side by side, and lost at most when the process is killed.
            seed: seeds judgments at a temperature above 0.
        """
        self.policy, self.batch_size, self.seed = policy, batch_size, seed
        self.model = policy.name
        self.record_file: Path | None = None

    def identity(self) -> str:
        """Return a digest of weights and seed: two models under one name are kept apart."""
        described = json.dumps([self.policy.describe(), self.seed], sort_keys=True)
        return f"local {hashlib.sha256(described.encode()).hexdigest()}"

    def describe(self) -> dict[str, Any]:
        """Return kind, model and its digests."""
        return {"kind": "local", "model": self.model, "policy": self.policy.describe(), "seed": self.seed}

    def usage(self) -> dict[str, Any]:
        """Return nothing: it costs time alone."""
        return {}

    def ask(self, requests: Sequence[JudgeRequest], finish: Finish) -> None:
        """Judge in batches of similar length; a request that does not fit the model fails alone."""
        from fedllm_eval.policy.generation import generate, prompt_lengths

        lengths = prompt_lengths(self.policy, [request.messages() for request in requests])
        positions = getattr(self.policy.model.config, "max_position_embeddings", None)
        groups: dict[tuple[float, int], list[int]] = {}
        for at in sorted(range(len(requests)), key=lambda at: (-int(lengths[at]), at)):
            if positions is not None and lengths[at] >= positions:
                failure = (
                    f"the request is {lengths[at]} tokens long and judge {self.model!r} has {positions} positions"
                )
                finish(at, Judgment(failure=failure))
            else:
                groups.setdefault((requests[at].temperature, requests[at].max_tokens), []).append(at)
        for (temperature, max_tokens), members in groups.items():
            for begin in range(0, len(members), self.batch_size):
                batch = members[begin : begin + self.batch_size]
                answers = generate(
                    self.policy,
                    [requests[at].messages() for at in batch],
                    max_new_tokens=max_tokens,
                    temperature=temperature,
                    seed=self.seed,
                    batch_size=self.batch_size,
                )
                for at, answer in zip(batch, answers, strict=True):
                    judgment = Judgment(
                        text=answer.text,
                        model=self.model,
                        prompt_tokens=int(lengths[at]),
                        completion_tokens=answer.num_tokens,
                        cut=not answer.finished,
                    )
                    finish(at, judgment)
