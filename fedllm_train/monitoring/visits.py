"""Who took part in a round and who was left out, and the mean loss of those who took part."""

from collections.abc import Sequence

from fedllm_train.engines.engine import Reply
from fedllm_train.monitoring.observer import Observer, Record, Step

__all__ = ["VisitLog"]


class VisitLog(Observer):
    """Collects who replied in a round, with the facts of each visit."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._visits: list[Record] = []
        self._left_out: list[Record] = []

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Note a client's visit, or why it is left out."""
        if problem is None:
            self._visits.append({"client_id": reply.client_id, "num_rows": reply.num_rows, **reply.facts})
        else:
            self._left_out.append({"client_id": reply.client_id, "reason": problem})

    def stepped(self, step: Step) -> Record:
        """Return the round's clients, and begin again."""
        record = {
            "train_loss": _weighted_mean(self._visits, "train_loss"),
            "clients": self._visits,
            "left_out": self._left_out,
        }
        self._visits, self._left_out = [], []
        return record


def _weighted_mean(visits: Sequence[Record], name: str) -> float | None:
    num_rows = sum(visit["num_rows"] for visit in visits)
    return sum(visit["num_rows"] * visit[name] for visit in visits) / num_rows if visits else None
