"""The replies of a step with those of simulated attackers changed: between what arrives and what is added up.

What an attacker sent is unpacked as ever and its change replaced, so that the bytes are those of an honest run and
every aggregation, packed or private, sees what it would see of an attacker. Colluders know one another's honest
changes, so their replies are added when all of the step have arrived.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedllm_train.adapters.arithmetic import Adapter, Parts, change_of
from fedllm_train.aggregation.aggregation import Aggregation, Inbox
from fedllm_train.attacks.attack_settings import COLLUDING, OF_ROWS, AttackSettings
from fedllm_train.attacks.update_attacks import colluding_change, lone_change
from fedllm_train.engines.engine import Reply
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.strategy import Sums

__all__ = ["AttackedAggregation", "AttackedInbox"]


@dataclass(frozen=True, kw_only=True)
class AttackedInbox(Inbox):
    """Unpacks updates, and puts in the attackers' place what they send."""

    attackers: Mapping[str, str]
    """Client -> attack."""
    settings: AttackSettings
    colluded: dict[str, Adapter] = field(default_factory=dict)
    """What the colluders of the step send, by attack; they read as honest until it is there."""

    def read(self, reply: Reply, server: Parts) -> tuple[Parts, Adapter, str | None]:
        """Return an update as `Inbox.read` does, an attacker's as it sends it."""
        update, anchor, problem = super().read(reply, server)
        attack = self.attackers.get(reply.client_id)
        if problem is not None or attack is None or attack in OF_ROWS or "adapter" not in update:
            return update, anchor, problem
        if attack in COLLUDING:
            if attack not in self.colluded:
                return update, anchor, problem
            bad = self.colluded[attack]
        else:
            bad = lone_change(attack, change_of(update["adapter"], anchor), self.settings.scale_of(attack))
        sent = {
            name: (anchor[name].double() + bad[name]).to(tensor.dtype) for name, tensor in update["adapter"].items()
        }
        update = {**update, "adapter": sent}
        expected = self.strategy.expects(server, reply.client_id, reply.step)
        return update, anchor, update_problem(update, expected, anchor, max_norm=self.max_norm)


class AttackedAggregation:
    """An aggregation whose attackers collude."""

    def __init__(self, inner: Aggregation, inbox: AttackedInbox, server: Parts) -> None:
        """Begin with nothing.

        Args:
            inner: what adds up; it unpacks with `inbox`.
            inbox: changes what attackers send.
            server: the server's state that the step begins from.
        """
        self._inner, self._inbox, self._server = inner, inbox, server
        self._waiting: dict[str, Reply] = {}
        self._changes: dict[str, dict[str, Adapter]] = {}
        self._told: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._num_updates = 0
        inbox.colluded.clear()

    def add(self, reply: Reply) -> str | None:
        """Add an update, a colluder's later; return why it cannot be used, or None."""
        attack = self._inbox.attackers.get(reply.client_id)
        if attack is not None:
            self._told[reply.client_id] = attack
        if attack not in COLLUDING:
            problem = self._inner.add(reply)
            self._num_updates += problem is None
            return problem
        update, anchor, problem = self._inbox.read(reply, self._server)
        if problem is None:
            self._waiting[reply.client_id] = reply
            self._changes.setdefault(attack, {})[reply.client_id] = change_of(update["adapter"], anchor)
            self._num_updates += 1
        return problem

    def is_enough(self) -> bool:
        """Return whether what was added makes a server step."""
        self._add_colluders()
        return self._inner.is_enough()

    def sums(self) -> Sums:
        """Return what the server rule sees."""
        self._add_colluders()
        return self._inner.sums()

    def as_record(self) -> dict[str, Any]:
        """Return the record of the aggregation, which clients attacked, and which colluders' updates were refused.

        What colluders send is made when all of the step have arrived, so that the visits' record cannot name them.
        """
        left_out = {"left_out": self._left_out} if self._left_out else {}
        return {**self._inner.as_record(), "attack": {"attackers": self._told, **left_out}}

    def _add_colluders(self) -> None:
        for attack, changes in self._changes.items():
            self._inbox.colluded[attack] = colluding_change(
                attack,
                [changes[client_id] for client_id in sorted(changes)],
                num_updates=self._num_updates,
                scale=self._inbox.settings.scale_of(attack),
            )
        for client_id in sorted(self._waiting):
            if problem := self._inner.add(self._waiting[client_id]):
                self._left_out[client_id] = problem
        self._waiting, self._changes = {}, {}
