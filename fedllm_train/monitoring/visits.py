"""Who took part in a round and who was left out, and the mean loss of those who took part."""

from collections.abc import Sequence
from dataclasses import asdict

from fedllm_train.engines.engine import Reply
from fedllm_train.monitoring.observer import Observer, Record, Step

__all__ = ["VisitLog"]


class VisitLog(Observer):
    """Collects who replied in a round, with the facts of each visit."""

    def __init__(self, *, losses_are_summed: bool = False) -> None:
        """Begin with nobody.

        Args:
            losses_are_summed: whether no client tells its loss, and the aggregation has the mean of all.
        """
        self._losses_are_summed = losses_are_summed
        self._visits: list[Record] = []
        self._left_out: list[Record] = []

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Note a client's visit, or why it is left out."""
        sent = {"download_bytes": reply.download_bytes or 0, "upload_bytes": reply.upload_bytes or 0}
        if problem is None:
            visit = {"client_id": reply.client_id, "num_rows": reply.num_rows, **reply.facts, **sent}
            self._visits.append(visit | _times(reply))
        else:
            kind = reply.kind if reply.reason is not None else "refused"
            left_out = {"client_id": reply.client_id, "reason": problem, "kind": kind, **sent, **_times(reply)}
            if "num_steps" in reply.facts:
                left_out["num_steps"] = reply.facts["num_steps"]
            self._left_out.append(left_out)

    def stepped(self, step: Step) -> Record:
        """Return the round's clients, and begin again."""
        for each in (*self._visits, *self._left_out):
            if (asked := each.pop("asked_step", None)) is not None:
                each["staleness"] = step.index - asked
        record: Record = {} if self._losses_are_summed else {"train_loss": _weighted_mean(self._visits, "train_loss")}
        record |= {"clients": self._visits, "left_out": self._left_out}
        self._visits, self._left_out = [], []
        return record


def _times(reply: Reply) -> Record:
    """When a visit was made on the run's clock; nothing without one."""
    if reply.clock is None:
        return {}
    return {**asdict(reply.clock), "asked_step": reply.step}


def _weighted_mean(visits: Sequence[Record], name: str) -> float | None:
    told = [visit for visit in visits if name in visit]  # private steps tell nothing of what they saw
    num_rows = sum(visit["num_rows"] for visit in told)
    return sum(visit["num_rows"] * visit[name] for visit in told) / num_rows if told else None
