"""What an algorithm is: a client rule and a server rule, and the record of what it can and cannot do.

Server state, messages and updates are all `Parts`: adapters by name, such as {"adapter": ..., "control": ...}. The
server's state always holds "adapter", the global adapter. A strategy keeps nothing in itself between calls: all that
must survive a stop is in the server's state (checkpointed) or in a client's memory (`visit.memory`, on that client's
disk), so that a resumed run reaches the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum, Shapes, shapes_of
from fedllm_train.settings import NoSettings, Settings
from fedllm_train.visit import Visit

__all__ = [
    "POOLED",
    "Federation",
    "Layout",
    "OneAdapter",
    "Sees",
    "Strategy",
    "Sums",
    "Traits",
    "Weights",
    "counts_alike",
]

Weights = Literal["rows", "uniform", "norms", "none"]
"""How clients count in a mean: by their rows, alike, by the norm of what they learned; or there is no mean."""

POOLED = "*"
"""In place of a client id: the rows of all clients together."""

Sees = Literal["mean", "sum", "each", "nothing"]
"""The least of the clients' updates that a server rule needs: the mean of their adapters, whatever their rows; sums
over clients; every update by itself; or nothing, because nothing travels."""

Layout = Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]
"""Part of a message -> its tensors' names -> precision, as safetensors calls it, and shape."""

Sums = dict[str, Any]
"""What a round's updates add up to, by a name of the method's choice; most often part -> `RunningSum`."""


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What is known before the model is loaded; given to a strategy when it is made, at both ends."""

    settings: Any
    """The method's own, of its `Settings`."""
    seed: int
    """The run seed."""
    num_clients: int
    """All clients of the dataset."""
    cohort_size: int
    """Clients that are asked in a round; all of them where the cohort rule is `all`."""
    has_fixed_steps: bool = True
    """Whether a visit takes the same number of steps for every client, over all of its rows."""
    is_private: bool = False
    """Whether a guarantee of differential privacy is asked for."""
    is_asynchronous: bool = False
    """Whether updates may be used that were made from an earlier server step."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """LoRA rank of each client; empty where all have the adapter's own."""
    layers: Mapping[str, int] = field(default_factory=dict)
    """How many of the last layers each client trains; empty where all train all."""
    eligible: Sequence[str] = ()
    """The clients that the cohort rule may sample; known to the server alone, as all that follows."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each client."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Main language of each client; `und` where nobody knows."""

    def for_hosts(self) -> "Federation":
        """Return the part that a client's machine needs: nothing that names who takes part but by ranks and layers."""
        return replace(self, eligible=(), sizes={}, languages={})


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The capability record of a method, as `fedllm-train methods` shows it."""

    title: str
    source: str
    """Paper, arXiv number, equation or algorithm."""
    choose_when: str = ""
    """When it is the one to choose, as the end of a sentence; a method of the user's own may leave it out."""
    family: Literal["baseline", "classic", "lora", "personal"]
    exact_aggregation: bool
    """Whether the product B A, with what is added to the base, becomes the weighted mean of the clients' products."""
    weights: Weights = "rows"
    """How clients count in the server's mean by the method's source; `uniform_weights` overrides it."""
    sees: Sees
    """The least that the server rule needs. With "mean" a clipped and noisy mean may stand for the updates; with "sum"
    secure aggregation can hide each of them."""
    mixed_ranks: bool = False
    """Whether clients may have LoRA adapters of different ranks."""
    needs_lora: bool = False
    """Whether it needs LoRA factors; else any adapter or the whole model will do."""
    down: str = "adapter"
    """What the server sends to a client in a round."""
    up: str = "adapter"
    """What a client sends back."""
    memory: str = "none"
    """What a client keeps between rounds."""
    server_cost: str = "O(adapter)"
    """Server memory and work, beyond receiving the updates."""
    personal: bool = False
    """Whether clients end with adapters of their own."""
    needs_languages: bool = False
    """Whether it reads the clients' main languages."""
    draws_start: bool = False
    """Whether clients begin a round from an adapter that is drawn afresh, or another than before, so that a change
    held back in one round belongs to no later one."""
    adapter_down: Literal["same", "own", "several", "none"] = "same"
    """Whether all clients of a round are sent the same adapter, each may be sent one of its own or several at once, or
    what is sent has no adapter: what a packed download can be measured from (`messages/downloads.py`)."""
    shifts_base: bool = False
    """Whether the server adds to the base weights beside the adapter (`adapters/base_shift.py`)."""
    sends_adapter: bool = True
    """Whether an update holds an adapter, whose change can be packed and whose norm can be bounded."""
    takes_gradients: bool = True
    """Whether clients train with TRL's optimizer; else they look at losses alone (`Visit.walk`)."""

    @property
    def travels(self) -> bool:
        """Whether anything goes over a network; if not, the ledger counts no bytes."""
        return self.sees != "nothing"


class Strategy(Protocol):
    """An algorithm; made once a run as `STRATEGIES[name](federation)`."""

    traits: Traits
    Settings: type[Settings]
    """The method's own settings (`settings.py`)."""

    def participants(self, client_ids: Sequence[str]) -> Sequence[str]:
        """Return the clients that may be sampled."""
        ...

    def start(self, adapter: Adapter) -> Parts:
        """Return the server's state before round 0; its part "adapter" is the starting adapter."""
        ...

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Return what the server sends to a client."""
        ...

    def first_download(self, start: Adapter, client_id: str) -> Adapter:
        """Return the adapter that would be sent to a client before round 0; the same code runs at both ends.

        A packed download is measured from it at first; its names and shapes are those of every later one.

        Args:
            start: the adapter the run started from.
            client_id: the client.
        """
        ...

    def anchor(self, received: Parts, start: Adapter, client_id: str, round_index: int) -> Adapter:
        """Return what a client's training starts from, as far as it is shared; the same code runs at both ends.

        Packed changes, clipping and bounds on norms are measured from it.

        Args:
            received: what the client read from the server's message.
            start: the adapter the run started from.
            client_id: the client.
            round_index: the round.
        """
        ...

    def client_update(self, visit: Visit) -> Parts:
        """The client rule: train, perhaps change `visit.memory`, and return what is sent back."""
        ...

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Return the names and shapes of the client's update."""
        ...

    def message_kind(self, state: Parts, client_id: str, round_index: int) -> Any:
        """Return what the names and shapes of a client's messages depend on beside its rank; for plans.

        Messages of one kind, hashable, are looked at once while the server's state is as long as it was.
        """
        ...

    def layouts(self, num_steps: int) -> tuple[Layout, Layout] | None:
        """Return what a visit of some steps downloads and uploads, without a model; for plans.

        Returns:
            Both directions, or None where they are what `broadcast` and `expects` say, of which the tensors are known
            from the adapter.
        """
        ...

    def opened(self, update: Parts) -> Parts:
        """Return what a client's message stands for, with the names and shapes of `expects`; most often itself.

        Raises:
            ValueError: if it stands for nothing, with the reason; the update is left out.
        """
        ...

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return the adapter a client ended with, as far as the server knows it.

        For the record only: what the server's next state is measured against (`monitoring/step_size.py`).
        """
        ...

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Return the weight of each part of an update in the server's sums; a part without one is in no sum."""
        ...

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add one client's update to the running sums of the round; nothing else of it is kept."""
        ...

    def why_not_summed(self) -> str | None:
        """Return why one weighted sum of each part cannot stand for the updates, as the end of a sentence, or None."""
        ...

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """The server rule: return the next state."""
        ...

    def personal_adapter(self, visit: Visit) -> Adapter:
        """After the last round, where `traits.personal`: return the adapter the client keeps."""
        ...


class OneAdapter:
    """The plumbing of methods whose server state and messages are one adapter; the rules are in their own files."""

    traits: Traits
    Settings: type[Settings] = NoSettings
    fits_per_visit: int = 1
    """How often a client goes through its local steps in a visit; the simulated clock counts them all."""
    _counts_alike = False

    def __init__(self, federation: Federation) -> None:
        """Take how clients count; a method with settings of its own takes them after this."""
        self._counts_alike = counts_alike(getattr(federation.settings, "uniform_weights", None), self.traits.weights)

    def weight_of(self, num_rows: int) -> int:
        """Return the weight in the mean of a client with this many rows."""
        return 1 if self._counts_alike else num_rows

    def participants(self, client_ids: Sequence[str]) -> Sequence[str]:
        """Return all clients."""
        return client_ids

    def start(self, adapter: Adapter) -> Parts:
        """Return the global adapter, which is all there is."""
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the global adapter."""
        return {"adapter": state["adapter"]}

    def first_download(self, start: Adapter, client_id: str) -> Adapter:
        """Return what `broadcast` makes of the state before round 0."""
        return self.broadcast(self.start(start), client_id, 0).get("adapter", {})

    def anchor(self, received: Parts, start: Adapter, client_id: str, round_index: int) -> Adapter:
        """Start from the adapter that was sent."""
        return received["adapter"]

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect the adapter that was sent, trained."""
        return shapes_of({"adapter": self.broadcast(state, client_id, round_index)["adapter"]})

    def layouts(self, num_steps: int) -> tuple[Layout, Layout] | None:
        """Return None: messages are what `broadcast` and `expects` say."""
        return None

    def message_kind(self, state: Parts, client_id: str, round_index: int) -> Any:
        """Return what the names and shapes of a client's messages depend on beside its rank: the turn of the round."""
        return round_index % 2

    def opened(self, update: Parts) -> Parts:
        """Return the message itself."""
        return update

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh the adapter by the client's rows, or like every other."""
        return {"adapter": self.weight_of(num_rows)}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add each part with its weight to the running sum of the part's name."""
        for part, weight in weights.items():
            sums.setdefault(part, RunningSum()).add(update[part], weight)

    def why_not_summed(self) -> str | None:
        """Return None where updates are folded as here: with a weight of each part, opened by nobody."""
        own = type(self)
        if own.opened is not OneAdapter.opened:
            return "reads what clients send before it adds, and messages themselves have no places that add up"
        if own.fold is not OneAdapter.fold:
            return "makes more of each update than one weighted sum of each part"
        return None

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Keep the global adapter; methods that personalise say otherwise."""
        return visit.received["adapter"]

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return what the client sent."""
        return update.get("adapter", {})


def counts_alike(uniform_weights: bool | None, weights: Weights) -> bool:
    """Return whether every client counts alike in a mean, whatever its rows.

    Args:
        uniform_weights: the setting; decides if it is given.
        weights: what the method's source says.

    >>> counts_alike(False, "uniform"), counts_alike(None, "uniform")
    (False, True)
    """
    return weights == "uniform" if uniform_weights is None else uniform_weights
