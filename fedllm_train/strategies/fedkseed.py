"""FedKSeed (Qin et al. 2024, arXiv 2312.06353, Algorithm 1): K shared directions, of which only scalars travel.

Symbols: theta0 what the run started from, known to all clients; z_j the direction of seed j of K; A_j how far the
global adapter went along it; eta the round's learning rate; L the loss of a step's batches.

Client rule: rebuild theta = theta0 - sum_j A_j z_j from the K scalars that the server sent. Then, for every step,
draw a seed j and compare two losses, without a gradient (`Visit.walk`):

    g = (L(theta + eps z_j) - L(theta - eps z_j)) / (2 eps),        theta <- theta - eta g z_j.

Send each step's seed and eta g, 8 bytes a step, or the K sums over steps where those are fewer bytes.
Server rule: A_j <- A_j + sum_k p_k sum_{steps of k on j} eta g; the global adapter is theta0 - sum_j A_j z_j.

All scalars are fixed-point numbers of 32 bits (`adapters/seeded_walk.py`). So a client's walk, the rebuild from its
scalars, the server's adapter and what the next round's clients rebuild are equal to the bit, whatever the order; one
client's round ends where that client's walk ended. With the paper's K = 4096 and 200 steps a visit costs 16,384 bytes
down and 1,600 up, whatever the model's size. A client's scalars name directions of its loss and are small, but they
are not private: no noise covers them, and dp_clip is refused.

`walk_draws pro` is FedKSeed-Pro (section 4.3): a seed's probability is the softmax of its mean |g| so far, scaled to
[0, 1] from the smallest to the largest (seeds without a step count as 0); K probabilities travel down beside the
scalars.

Where we differ: released code (FATE-LLM) adds up clients' scalars without weights and draws z_j by the device's own
generator; here a mean over clients has FedAvg's weights, and z_j is one for all machines. Our eta follows the run's
cosine, so what travels is eta g, not g.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes
from fedllm_train.adapters.seeded_walk import LARGEST_MOVE, MAX_SEEDS, UNIT, SeededWalk, fixed_point, starts_alike
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.seeds import stream_rng
from fedllm_train.strategy import Federation, Layout, OneAdapter, Sums, Traits
from fedllm_train.visit import Loss, Visit

__all__ = ["FedKSeed"]

_MOVES, _SUMS = "moves", "sums"  # K scalars: what the server keeps and sends, and what an update comes to
_START = "start"
_SIZES, _TOTAL, _COUNT = "sizes", "total", "count"  # of |g|, by seed
_CHANCES = "chances"
_STEPS, _SEEDS, _SCALARS, _RATE = "steps", "seeds", "scalars", "learning_rate"  # of an update


class FedKSeed(OneAdapter):
    """Walk along shared directions by losses alone; send scalars."""

    traits = Traits(
        title="FedKSeed",
        source="Qin et al. 2024, arXiv 2312.06353, Algorithm 1; section 4.3 for its -Pro",
        choose_when="a round must fit into some 18 kB whatever the model's size, or clients have memory for a forward "
        "pass alone; it needs many more steps than methods with gradients",
        family="classic",
        exact_aggregation=False,
        weights="rows",
        sees="sum",
        down="K scalars",
        up="a seed and a scalar for each step",
        server_cost="O(adapter), and up to K directions drawn a round",
        adapter_down="none",
        sends_adapter=False,
        takes_gradients=False,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        walk_seeds: int = field(
            default=4096, metadata={"help": "With fedkseed: number of shared directions (the paper's K)."}
        )
        walk_perturbation: float = field(
            default=5e-4,
            metadata={"help": "With fedkseed: how far along a direction the two losses lie that are compared."},
        )
        walk_clip: float | None = field(
            default=None,
            metadata={"help": "With fedkseed: largest size of a step's slope; larger ones are cut to it."},
        )
        walk_draws: Literal["uniform", "pro"] = field(
            default="uniform",
            metadata={
                "help": "With fedkseed: how a step's direction is drawn: uniform, or pro (those with steep slopes so "
                "far more often; K probabilities travel down as well)."
            },
        )

        def check(self) -> None:
            """Refuse what makes no walk."""
            if not 1 <= self.walk_seeds <= MAX_SEEDS:
                raise ConfigError(f"walk_seeds is {self.walk_seeds}; it must be from 1 to {MAX_SEEDS:,}")
            for name in ("walk_perturbation", "walk_clip"):
                if (value := getattr(self, name)) is not None and value <= 0:
                    raise ConfigError(f"{name} is {value}; it must be positive")
            if self.walk_draws not in ("uniform", "pro"):
                raise ConfigError(f"walk_draws is {self.walk_draws!r}; it must be uniform or pro")

    def __init__(self, federation: Federation) -> None:
        """Take the directions' number and seed, and how steps are made."""
        super().__init__(federation)
        self._seed = federation.seed
        self._settings: FedKSeed.Settings = federation.settings
        self._is_pro = federation.settings.walk_draws == "pro"
        # Only saves work: wherever it stands, it goes to the next place by the directions that differ.
        self._walk: SeededWalk | None = None

    def start(self, adapter: Adapter) -> Parts:
        """Begin with scalars of 0.

        Raises:
            ConfigError: if the adapter's precision would round the perturbation away.
        """
        for name, tensor in adapter.items():
            if tensor.dtype not in (torch.float32, torch.float64):
                raise ConfigError(
                    f"strategy fedkseed compares losses {self._settings.walk_perturbation:g} apart along a direction, "
                    f"and {name} is kept in {str(tensor.dtype).removeprefix('torch.')}, which rounds that away; train "
                    "an adapter, or load the model in float32"
                )
        num_seeds = self._settings.walk_seeds
        state = {"adapter": adapter, _START: adapter, _MOVES: {_SUMS: torch.zeros(num_seeds, dtype=torch.int32)}}
        if self._is_pro:
            state[_SIZES] = {name: torch.zeros(num_seeds, dtype=torch.float64) for name in (_TOTAL, _COUNT)}
        return state

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the K scalars; with -Pro the probability of every seed."""
        sent = {_MOVES: state[_MOVES]}
        return sent | {_CHANCES: {_CHANCES: _chances(state[_SIZES])}} if self._is_pro else sent

    def anchor(self, received: Parts, start: Adapter, client_id: str, round_index: int) -> Adapter:
        """Return nothing: an update holds no adapter that could be measured from one."""
        return {}

    def client_update(self, visit: Visit) -> Parts:
        """Walk from the rebuilt adapter; send every step's seed and scalar, or their sums."""
        walk = self._walk_from(visit.start_adapter)
        walk.go_to(visit.received[_MOVES][_SUMS].numpy())
        rng = stream_rng(self._seed, "walk", round_index=visit.round_index, client_id=visit.client_id)
        chances = self._received_chances(visit.received)
        eps, clip = self._settings.walk_perturbation, self._settings.walk_clip
        seeds: list[int] = []
        scalars: list[int] = []
        broken = False

        def take_step(loss: Loss) -> None:
            nonlocal broken
            j = int(rng.choice(self._settings.walk_seeds, p=chances))
            ahead, behind = walk.beside(j, eps)
            slope = (loss(ahead) - loss(behind)) / (2 * eps)
            if clip is not None:
                slope = float(np.clip(slope, -clip, clip))
            move = visit.learning_rate * slope
            reached = walk.scalars[j] * UNIT + move
            if broken or not abs(reached) < LARGEST_MOVE * UNIT:  # not a number, too
                broken = True
                return
            seeds.append(j)
            scalars.append(fixed_point(move))
            walk.move(j, scalars[-1])

        visit.walk(take_step)
        if broken:
            return {_STEPS: {_SCALARS: torch.tensor([float("nan")])}}  # which the host reports and does not send
        return self._packed(np.array(seeds, dtype=np.int32), np.array(scalars, dtype=np.int64), visit.learning_rate)

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect what the steps come to for every seed."""
        num_seeds = (self._settings.walk_seeds,)
        expected: Shapes = {_MOVES: {_SUMS: num_seeds}}
        return expected | {_SIZES: {_TOTAL: num_seeds, _COUNT: num_seeds}} if self._is_pro else expected

    def layouts(self, num_steps: int) -> tuple[Layout, Layout]:
        """Return K scalars down, and the shorter of steps and sums up."""
        num_seeds, made = (self._settings.walk_seeds,), (num_steps,)
        down = {_MOVES: {_SUMS: ("I32", num_seeds)}}
        if self._is_pro:
            down[_CHANCES] = {_CHANCES: ("F32", num_seeds)}
        if self._sends_sums(num_steps):
            return down, {_MOVES: {_SUMS: ("I32", num_seeds)}}
        steps = {_SEEDS: ("I32", made), _SCALARS: ("I32", made)}
        return down, {_STEPS: steps | ({_RATE: ("F32", (1,))} if self._is_pro else {})}

    def opened(self, update: Parts) -> Parts:
        """Add up the steps of a client by seed.

        Raises:
            ValueError: if they are no steps along the K directions.
        """
        num_seeds = self._settings.walk_seeds
        if _STEPS not in update:
            moves = update.get(_MOVES, {}).get(_SUMS)
            if self._is_pro or moves is None or moves.dtype != torch.int32:
                raise ValueError("it holds neither steps nor their sums")
            return {_MOVES: {_SUMS: moves.double()}}
        steps = update[_STEPS]
        named = {_SEEDS, _SCALARS, _RATE} if self._is_pro else {_SEEDS, _SCALARS}
        if update.keys() != {_STEPS} or steps.keys() != named:
            raise ValueError(
                f"its steps have {', '.join(sorted(steps))} where {', '.join(sorted(named))} are expected"
            )
        kinds = {steps[_SEEDS].dtype, steps[_SCALARS].dtype}
        if kinds != {torch.int32} or steps[_SEEDS].ndim != 1 or steps[_SEEDS].shape != steps[_SCALARS].shape:
            raise ValueError("its steps are no pairs of integers")
        seeds, scalars = steps[_SEEDS].numpy(), steps[_SCALARS].numpy()
        if ((seeds < 0) | (seeds >= num_seeds)).any():
            raise ValueError(f"it names a seed that is none of {num_seeds}")
        # Sums of integers far below 2^53: exact in float64, in any order.
        opened = {_MOVES: {_SUMS: _by_seed(seeds, scalars, num_seeds)}}
        if self._is_pro:
            rate = float(steps[_RATE].double().sum())
            if not rate > 0:
                raise ValueError(f"it claims a learning rate of {rate}")
            slopes = np.abs(scalars * UNIT) / rate
            ones = np.ones(len(seeds))
            opened[_SIZES] = {
                _TOTAL: _by_seed(seeds, slopes, num_seeds), _COUNT: _by_seed(seeds, ones, num_seeds)
            }  # fmt: skip
        return opened

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh a client's scalars by its rows, and the slopes of its steps like those of any other."""
        weights: dict[str, float] = {_MOVES: self.weight_of(num_rows)}
        return weights | {_SIZES: 1} if self._is_pro else weights

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Add the mean scalars, each rounded once to an integer, and rebuild the global adapter."""
        # A mean of places within the bound is within it; only a client that passed it can lead beyond.
        moved = state[_MOVES][_SUMS].double() + sums[_MOVES].mean()[_SUMS]
        scalars = moved.round().clamp(-LARGEST_MOVE, LARGEST_MOVE).to(torch.int32)
        walk = self._walk_from(state[_START])
        walk.go_to(scalars.numpy())
        after = state | {"adapter": walk.place(), _MOVES: {_SUMS: scalars}}
        if self._is_pro:
            seen = sums[_SIZES].total()
            after[_SIZES] = {name: tensor + seen[name] for name, tensor in state[_SIZES].items()}
        return after

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return nothing: rebuilding every client's adapter would cost more than the round."""
        return {}

    def _walk_from(self, start: Adapter) -> SeededWalk:
        if self._walk is None or not starts_alike(self._walk, start):
            self._walk = SeededWalk(start, run_seed=self._seed, num_seeds=self._settings.walk_seeds)
        return self._walk

    def _received_chances(self, received: Parts) -> np.ndarray | None:
        if not self._is_pro:
            return None
        chances = received[_CHANCES][_CHANCES].double().numpy()
        return chances / chances.sum()

    def _sends_sums(self, num_steps: int) -> bool:
        """Whether 4 bytes a seed are fewer than 8 a step; -Pro's server looks at single steps."""
        return not self._is_pro and 2 * num_steps > self._settings.walk_seeds

    def _packed(self, seeds: np.ndarray, scalars: np.ndarray, learning_rate: float) -> Parts:
        if self._sends_sums(len(seeds)):
            sums = np.zeros(self._settings.walk_seeds, dtype=np.int64)
            np.add.at(sums, seeds, scalars)
            return {_MOVES: {_SUMS: torch.from_numpy(sums.astype(np.int32))}}
        steps = {_SEEDS: torch.from_numpy(seeds), _SCALARS: torch.from_numpy(scalars.astype(np.int32))}
        return {_STEPS: steps | ({_RATE: torch.tensor([learning_rate])} if self._is_pro else {})}


def _by_seed(seeds: np.ndarray, values: np.ndarray, num_seeds: int) -> torch.Tensor:
    return torch.from_numpy(np.bincount(seeds, weights=values, minlength=num_seeds))


def _chances(sizes: Adapter) -> torch.Tensor:
    """Return how likely a step takes each seed: softmax of the mean |g|, scaled to [0, 1].

    >>> sizes = {"total": torch.tensor([6.0, 1.0, 0.0]), "count": torch.tensor([2.0, 1.0, 0.0])}
    >>> [round(each, 4) for each in _chances(sizes).tolist()]  # means 3, 1, 0: exp(1), exp(1/3), exp(0), normalised
    [0.5315, 0.2729, 0.1955]
    """
    mean = sizes[_TOTAL].double() / sizes[_COUNT].double().clamp(min=1)
    spread = mean.max() - mean.min()
    return torch.softmax((mean - mean.min()) / spread if spread > 0 else torch.zeros_like(mean), 0).float()
