"""FedDPA (Yang et al. 2024, arXiv 2403.19211): a global and a local adapter, whose outputs are mixed.

A module computes W0 x + (1 - a) s B_g A_g x + a s B_l A_l x, with a = `feddpa_mix` (0.5, the paper's default weight).

Client rule: train the global adapter as in FedAvg and send it. With `feddpa_when="during"` (FedDPA-T) the client then
trains its local adapter beside the global one it received, which stays frozen, and keeps it. With "after" (FedDPA-F)
every client does so once, after the last round, from the finished global adapter. Server rule: the global adapter is
the clients' mean, uniform as in the paper, whose clients hold equally many rows, unless `uniform_weights` is off; the
released code hands the clients' numbers of rows to its average, which there comes to the same.

What a client ends with is one adapter of twice the rank, [(1 - a) B_g, B] [A_g; A_l]. We train B = a B_l itself, which
under Adam is the same up to the learning rate of B. The paper can also choose a for every question, by the likeness of
the question to the client's rows; a plain adapter cannot, so that is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.adapters.lora import factor_names
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import FinalStepsSettings, MeanSettings, PersonalSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedDPA"]


class FedDPA(OneAdapter):
    """FedAvg, with a local adapter per client whose output is mixed with the global one's."""

    traits = Traits(
        title="FedDPA",
        source="Yang et al. 2024, arXiv 2403.19211",
        choose_when="each client should keep what is general beside what is its own, in one adapter of twice the rank",
        family="personal",
        exact_aggregation=False,
        weights="uniform",
        sees="mean",
        needs_lora=True,
        memory="local adapter",
        personal=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(FinalStepsSettings, PersonalSettings, MeanSettings):
        """The settings of this method."""

        feddpa_mix: float = field(
            default=0.5,
            metadata={"help": "With feddpa: weight of the local adapter's output, the rest the global one's."},
        )
        feddpa_when: Literal["during", "after"] = field(
            default="during",
            metadata={"help": "With feddpa: train local adapters during the rounds or once after them."},
        )

        def check(self) -> None:
            """Refuse what is no share, or an unknown time."""
            if not 0 <= self.feddpa_mix <= 1:
                raise ConfigError(f"feddpa_mix is {self.feddpa_mix}; it is the local adapter's share, from 0 to 1")
            if self.feddpa_when not in ("during", "after"):
                raise ConfigError(f"feddpa_when is {self.feddpa_when!r}; it must be during or after")

    def __init__(self, federation: Federation) -> None:
        """Take the mixing weight and when local adapters are trained."""
        super().__init__(federation)
        self._mix = federation.settings.feddpa_mix
        self._during = federation.settings.feddpa_when == "during"
        self._personal_steps = federation.settings.personal_steps
        self.fits_per_visit = 2 if self._during else 1

    def client_update(self, visit: Visit) -> Parts:
        """Train the global adapter, and beside it perhaps the local one."""
        update = visit.fit(visit.received["adapter"])
        if self._during:
            visit.memory["local"] = self._train_local(visit, visit.memory.get("local"), None)
        return {"adapter": update}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the mean of the cohort's adapters."""
        return {"adapter": sums["adapter"].mean()}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Return the global and the local adapter side by side."""
        local = visit.memory.get("local")
        if local is None:
            local = self._train_local(visit, None, self._personal_steps)
        mixed = dict(visit.received["adapter"])
        for a, b in factor_names(mixed).values():
            mixed[b] = torch.cat([(1 - self._mix) * mixed[b], local[b]], dim=1)
            mixed[a] = torch.cat([mixed[a], local[a]], dim=0)
        return mixed

    def _train_local(self, visit: Visit, local: Adapter | None, num_steps: int | None) -> Adapter:
        frozen = visit.received["adapter"]
        names = factor_names(frozen)
        if local is None:
            # Both adapters begin as the starting policy, so that their mixture is the starting policy too.
            local = dict(visit.start_adapter)
            for _, b in names.values():
                local[b] = self._mix * local[b]
        shift = {}
        for module, (a, b) in names.items():
            shift[f"{module}.left"], shift[f"{module}.right"] = (1 - self._mix) * frozen[b], frozen[a]
        return visit.fit(local, base_shift=shift, purpose="local", num_steps=num_steps)
