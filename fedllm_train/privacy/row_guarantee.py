"""The guarantee of a run that is private to rows: epsilon of a row, and of a person, from settings and clients' sizes.

Symbols: n rows of a client, B rows of a step on average, q = min(1, B / n), T steps of a client in the run.

Every client is taken to be visited in every round it may be: who takes part hides no row, since clients' machines draw
no secret coin for it. So T is rounds times steps of a visit, and nothing is amplified by the sampling of clients. A
client with few rows has the largest q, so epsilon is that of the worst client, and the record shows how it is spread.

Epsilon is monotone in q and T (and for people in their rows): clients of like sizes are accounted for together, with
the largest q, T and number of rows among them, which bounds all of them. Imports no torch.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.clients.local_work import LocalWork
from fedllm_train.privacy.accountants import poisson_epsilons
from fedllm_train.privacy.accounting import check_noise, least_noise
from fedllm_train.privacy.privacy_settings import PrivacySettings
from fedllm_train.privacy.row_accounting import person_epsilon, row_epsilon
from fedllm_train.privacy.row_privacy import RowPrivacy

__all__ = ["RowGuarantee", "RowKind", "run_row_guarantee"]

_MOST_GROUPS = 12
_SHARES = {"smallest": 0.0, "median": 0.5, "largest": 1.0}
"""Clients of which epsilon is shown, by their share of smaller ones."""

RANDOMNESS = "a secret of each client, drawn from its machine's system"

ASSUMPTIONS = (
    "The unit is the example, one row or one preference pair of one client: epsilon bounds what everything that the "
    "client sends in the run, and so every adapter made of it, tells about whether the row's content was there. "
    "Neighbouring datasets differ by one row of one client added or removed, while the numbers of rows that are told "
    "stay as they are.",
    "Noise is added on the client's own machine, so the server need not be trusted with rows. Each step takes every "
    "row by a coin of its own (Poisson sampling), shortens each row's gradient to the clip and adds noise once.",
    "Every client is taken to be visited in every round, with all steps of a visit: nothing is amplified by who takes "
    "part. A client counts its own steps and makes no more than are accounted for.",
    "Coins, noise and dropout are drawn from a secret of 256 bits that the client's machine draws once a run and "
    "keeps beside what the client remembers (row_secret); whoever has it can take the noise off. The Gaussian is "
    "rounded to floating-point numbers, which a deployment must sample in a way that gives nothing away.",
    "Not protected: that a client took part, how many rows it has and how many were left out, times and lengths of "
    "messages, scores on held-out rows, what of one client several rows have in common beyond what epsilon of a "
    "person says, the choice of settings by earlier runs and the making of the dataset. A row that stands twice, or "
    "at two clients, counts as two.",
)
"""What the guarantee rests on, in words; in every such run's config and card."""


@dataclass(frozen=True, kw_only=True)
class RowKind:
    """Clients of one size."""

    num_rows: int
    visit_steps: int
    num_clients: int


@dataclass(frozen=True, kw_only=True)
class RowGuarantee:
    """What a run guarantees each row, and each person."""

    privacy: RowPrivacy
    delta: float
    kinds: tuple[RowKind, ...]
    """The clients by size, smallest first."""
    rows_per_person: int | None = None
    """Rows of a person at a client; None where a client is a person."""

    @property
    def num_rounds(self) -> int:
        """Rounds of the run."""
        return self.privacy.num_rounds

    @property
    def has_noise(self) -> bool:
        """Whether there is a guarantee at all."""
        return self.privacy.noise_multiplier > 0

    def epsilon(self, num_rounds: int | None = None) -> float | None:
        """Return the largest epsilon of a row over clients after some rounds, by default all; None without noise."""
        if not self.has_noise:
            return None
        z = self.privacy.noise_multiplier
        return max(row_epsilon(z, q, steps, self.delta) for q, steps in self._worst(num_rounds))

    def by_accountant(self) -> dict[str, float | None]:
        """Return epsilon of a row after all rounds by each accountant; None where there is none."""
        if not self.has_noise:
            return dict.fromkeys(("pld", "rdp", "zcdp"))
        z = self.privacy.noise_multiplier
        found = [poisson_epsilons(z, q, steps, self.delta) for q, steps in self._worst(None) if steps]
        return {
            name: max((one[name] for one in found if one[name] is not None), default=None)
            for name in ("pld", "rdp", "zcdp")
        }

    @cached_property
    def client_epsilon(self) -> float | None:
        """The largest epsilon of a client with all of its rows, after all rounds; None without noise."""
        return self._of_people(None)

    @cached_property
    def person_epsilon(self) -> float | None:
        """The largest epsilon of a person after all rounds; a client's where a client is a person."""
        return self.client_epsilon if self.rows_per_person is None else self._of_people(self.rows_per_person)

    def spread(self) -> dict[str, dict[str, float]]:
        """Return rows and epsilon of a row after all rounds, for clients from the smallest to the largest."""
        num_clients = sum(kind.num_clients for kind in self.kinds)
        shown = {}
        for name, share in _SHARES.items():
            kind = self._at(share * (num_clients - 1))
            spent = row_epsilon(
                self.privacy.noise_multiplier,
                self.privacy.rate(kind.num_rows),
                self.privacy.most_steps(kind.visit_steps),
                self.delta,
            )
            shown[name] = {"num_rows": kind.num_rows, "epsilon": spent}
        return shown

    def spent_in_words(self, num_rounds: int) -> str:
        """Return what some rounds spent, for people; of a person only after all rounds."""
        epsilon = self.epsilon(num_rounds)
        if epsilon is None:
            return "no epsilon: rows' gradients were clipped, and no noise was added"
        said = f"epsilon {epsilon:.4g} at delta {self.delta:g}, unit: example (one row of a client)"
        if num_rounds < self.num_rounds or self.person_epsilon is None:
            return said
        return f"{said}; {self.people_in_words()}"

    def people_in_words(self) -> str:
        """Return epsilon of a person after all rounds, for people."""
        if self.person_epsilon is None:
            return "no epsilon of a person"
        of = "a client with all of its rows"
        if self.rows_per_person is not None:
            of = f"a person with {self.rows_per_person} {'row' if self.rows_per_person == 1 else 'rows'} of a client"
        return f"epsilon {self.person_epsilon:.4g} for {of}"

    def noise_in_clips(self, num_values: int) -> float:
        """Return how long a step's noise on the mean gradient of a client of median size is, in clips, which bound it.

        Args:
            num_values: values that are trained.
        """
        median = self._at((sum(kind.num_clients for kind in self.kinds) - 1) / 2).num_rows
        rows = min(self.privacy.batch_rows, median)
        return self.privacy.noise_multiplier * math.sqrt(num_values) / rows

    def first_line(self, num_values: int) -> str:
        """Return what is said before the first round.

        Args:
            num_values: values that are trained.
        """
        told = self.spent_in_words(self.num_rounds)
        if not self.has_noise:
            return told
        most = max(self.privacy.most_steps(kind.visit_steps) for kind in self.kinds)
        return (
            f"{told}, over at most {most:,} steps of a client; noise on a step's mean gradient of {num_values:,} "
            f"values is {self.noise_in_clips(num_values):.3g} times dp_clip {self.privacy.clip:g}, which bounds that "
            f"mean; with {math.ceil(self.privacy.noise_multiplier * math.sqrt(num_values)):,} rows a step it would be "
            "as long as the clip"
        )

    def as_record(self) -> dict[str, Any]:
        """Return the guarantee after all rounds with what it rests on, JSON-ready."""
        units = {"example": self.epsilon(), "client": self.client_epsilon}
        units |= {} if self.rows_per_person is None else {"person": self.person_epsilon}
        return {
            "unit": "example",
            "epsilon": units["example"],
            "units": units,
            **({} if self.rows_per_person is None else {"rows_per_person": self.rows_per_person}),
            "clip": self.privacy.clip,
            "noise_multiplier": self.privacy.noise_multiplier,
            "sampling_rate": max(self.privacy.rate(kind.num_rows) for kind in self.kinds),
            "batch_rows": self.privacy.batch_rows,
            "num_steps": max(self.privacy.most_steps(kind.visit_steps) for kind in self.kinds),
            "delta": self.delta,
            "num_rounds": self.num_rounds,
            "by_client": self.spread() if self.has_noise else {},
            "accountant": "dp-accounting, privacy loss distributions of the Poisson-subsampled Gaussian; for clients "
            "and people, of mixtures of Gaussians",
            "claim": "pld",
            "by_accountant": self.by_accountant(),
            "neighbours": "one row of one client added or removed, the numbers of rows told staying as they are",
            "randomness": RANDOMNESS if self.has_noise else None,
            "assumptions": list(ASSUMPTIONS),
        }

    def _at(self, position: float) -> RowKind:
        seen = 0
        for kind in self.kinds:
            seen += kind.num_clients
            if seen > position:
                return kind
        return self.kinds[-1]

    def _worst(self, num_rounds: int | None) -> list[tuple[float, int]]:
        """Rates and steps that bound those of every client."""
        most: list[tuple[float, int]] = []
        for kind in self.kinds:  # the largest rate first
            steps = self.privacy.most_steps(kind.visit_steps, num_rounds)
            if not most or steps > most[-1][1]:
                most.append((self.privacy.rate(kind.num_rows), steps))
        return [(group[0][0], group[-1][1]) for group in _groups(most)]

    def _of_people(self, num_rows: int | None) -> float | None:
        if not self.has_noise:
            return None
        return max(
            person_epsilon(
                self.privacy.noise_multiplier,
                self.privacy.rate(group[0].num_rows),
                max(self.privacy.most_steps(kind.visit_steps) for kind in group),
                self.delta,
                num_rows=min(group[-1].num_rows, num_rows or group[-1].num_rows),
            )
            for group in _groups(self.kinds)
        )


def run_row_guarantee(
    settings: PrivacySettings,
    work: LocalWork,
    sizes: Mapping[str, int],
    *,
    num_rounds: int,
    fits_per_visit: int = 1,
    final_steps: int = 0,
) -> RowGuarantee | None:
    """Return the privacy of a run's rows, with the noise that a wanted epsilon needs; None if none is asked for.

    Args:
        settings: clip, noise and the guarantee asked for.
        work: steps of a visit, and rows of a step.
        sizes: rows of each client that may take part.
        num_rounds: number of rounds in the run.
        fits_per_visit: how often a visit goes through its steps.
        final_steps: steps of a client after the last round, at most.

    Raises:
        ConfigError: if delta is so large that one row might be published whole, or epsilon cannot be reached.
    """
    if not settings.protects_rows or settings.dp_clip is None or settings.dp_delta is None:
        return None
    counted = Counter(size for size in sizes.values() if size > 0)
    if not counted:
        raise ConfigError("dp_unit is example, and no client that may take part has a row; leave dp_clip out")
    kinds = tuple(
        RowKind(num_rows=size, visit_steps=work.num_steps(size), num_clients=counted[size]) for size in sorted(counted)
    )
    if settings.dp_delta >= 1 / kinds[-1].num_rows:
        raise ConfigError(
            f"dp_delta is {settings.dp_delta} and a client has {kinds[-1].num_rows} rows; a delta of "
            f"1/{kinds[-1].num_rows} allows publishing one of them whole, so choose much less"
        )

    def made(noise: float) -> RowGuarantee:
        assert settings.dp_clip is not None
        assert settings.dp_delta is not None
        privacy = RowPrivacy(
            clip=settings.dp_clip,
            noise_multiplier=noise,
            batch_rows=work.rows_per_step,
            num_rounds=num_rounds,
            fits_per_visit=fits_per_visit,
            final_steps=final_steps,
        )
        return RowGuarantee(
            privacy=privacy, delta=settings.dp_delta, kinds=kinds, rows_per_person=settings.dp_rows_per_person
        )

    given = settings.dp_noise_multiplier
    if given is None:
        assert settings.dp_epsilon is not None, "the config refuses one without the other"
        given = least_noise(lambda z: made(z).epsilon() or math.inf, settings.dp_epsilon, settings.dp_delta)
    if given > 0:
        check_noise(given)
    return made(given)


def _groups(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut a sequence into at most so many runs of like length."""
    size = math.ceil(len(items) / _MOST_GROUPS)
    return [items[first : first + size] for first in range(0, len(items), size)]
