"""Who takes part in a round.

uniform       without replacement, each client equally likely (McMahan et al. 2017, Algorithm 1)
weighted      without replacement, in proportion to rows: drawn one after the other, each time from those left. Methods
              that weight their average by rows then count rows twice; the paper's is uniform
fixed, all    the same clients in every round
poisson       each client on its own with probability cohort_size / number of clients: cohort_size is a mean, and a
              cohort may be empty; what the accountant of differential privacy assumes. With a guarantee it is drawn
              from the run's secret, since nobody may work out who took part (`privacy/secret.py`)
fedllm-bench  as its released code draws them: CPython's `random`, seeded with the round and nothing else
"""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.given import given_of
from fedllm_train.participation.participation_settings import ParticipationSettings
from fedllm_train.seeds import stream_rng

__all__ = ["COHORT_RULES", "cohort_pool", "eligible_clients", "sample_cohort"]

Rule = Callable[[Sequence[str], int, Mapping[str, int], int, int], list[str]]
"""From (sorted client ids, cohort size, rows of each, run seed, round) to the cohort, in any order."""


def sample_cohort(
    client_ids: Sequence[str],
    cohort_size: int,
    *,
    seed: int,
    round_index: int,
    rule: str = "uniform",
    sizes: Mapping[str, int] | None = None,
) -> list[str]:
    """Return the cohort of a round, sorted by client id.

    Args:
        client_ids: all clients that may take part, in any order.
        cohort_size: how many take part, or with "poisson" do on average; at most `len(client_ids)`.
        seed: the run seed, or with differential privacy what follows from the run's secret.
        round_index: from 0.
        rule: a name in `COHORT_RULES`.
        sizes: rows of each client; the rule "weighted" needs them.

    Raises:
        ConfigError: if there are fewer clients than `cohort_size`.

    >>> sample_cohort(["c", "a", "b"], 3, seed=0, round_index=0)
    ['a', 'b', 'c']
    """
    if not 1 <= cohort_size <= len(client_ids):
        raise ConfigError(
            f"cohort_size is {cohort_size} but {len(client_ids)} clients may take part; "
            f"choose a cohort_size from 1 to {len(client_ids)}"
        )
    # Sorted first, so that the order in which a caller lists the clients changes nothing.
    return sorted(COHORT_RULES[rule](sorted(client_ids), cohort_size, sizes or {}, seed, round_index))


def cohort_pool(
    config: ParticipationSettings, client_ids: Sequence[str], *, alone: bool = False
) -> tuple[list[str], int]:
    """Return the clients that a config lets take part, and how many of them do in a round.

    Args:
        config: the settings of the federation.
        client_ids: the clients that the method trains.
        alone: whether each trains alone, so that a cohort may be asked for that is larger than there are clients.

    Raises:
        ConfigError: if the rule is unknown, its clients do not exist, or there are too few, also for `min_clients`.

    >>> cohort_pool(ParticipationSettings(cohort_rule="fixed", cohort_clients="c,a"), ["a", "b", "c"])
    (['a', 'c'], 2)
    """
    pool, size = _pool(config, client_ids, alone)
    most = len(pool) if config.cohort_rule == "poisson" else size
    if config.min_clients > most:
        raise ConfigError(
            f"min_clients is {config.min_clients} but at most {most} clients take part in a round, so there would "
            f"never be a server step; choose at most {most}"
        )
    return pool, size


def eligible_clients(config: ParticipationSettings, client_ids: Sequence[str]) -> list[str]:
    """Return the clients that the cohort rule may ever sample, sorted: those named with rule fixed, else all.

    >>> fixed = ParticipationSettings(cohort_rule="fixed", cohort_clients="c,a")
    >>> eligible_clients(fixed, ["a", "b", "c"])
    ['a', 'c']
    """
    if config.cohort_rule != "fixed" or config.cohort_clients is None:
        return sorted(client_ids)
    named = {each.strip() for each in config.cohort_clients.split(",")}
    return sorted(named & set(client_ids))


def _pool(config: ParticipationSettings, client_ids: Sequence[str], alone: bool) -> tuple[list[str], int]:
    rule, size = config.cohort_rule, config.updates_per_step
    if rule not in COHORT_RULES:
        hint = did_you_mean(rule, COHORT_RULES)
        raise ConfigError(f"cohort_rule {rule!r} is unknown; {hint}choose from {', '.join(COHORT_RULES)}")
    if (config.cohort_clients is not None) != (rule == "fixed"):
        raise ConfigError(
            f"cohort_clients goes with cohort_rule fixed and nothing else, and cohort_rule is {rule!r}; give both or "
            "neither"
        )
    if rule in ("fixed", "all"):
        named = [each.strip() for each in config.cohort_clients.split(",")] if config.cohort_clients else client_ids
        if unknown := sorted(set(named) - set(client_ids)):
            raise ConfigError(
                f"cohort_clients names {unknown[0]!r}, which is not among the {len(client_ids)} clients; "
                f"they are called like {sorted(client_ids)[0]!r}"
            )
        if "cohort_size" in given_of(config) and size != len(set(named)):
            raise ConfigError(
                f"cohort_size is {size} but cohort_rule {rule!r} takes {len(set(named))} clients in every round; "
                "leave cohort_size out"
            )
        return sorted(set(named)), len(set(named))
    if alone:
        size = min(size, len(client_ids))
    if size > len(client_ids):
        raise ConfigError(
            f"{'cohort_size' if size == config.cohort_size else 'buffer_size'} is {size} but the dataset has "
            f"{len(client_ids)} clients; choose at most {len(client_ids)}"
        )
    return list(client_ids), size


def _uniform(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    rng = stream_rng(seed, "cohort", round_index=round_index)
    return [ids[position] for position in rng.choice(len(ids), size=size, replace=False)]


def _weighted(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    rows_K = np.array([sizes[client_id] for client_id in ids], dtype=np.float64)
    rng = stream_rng(seed, "cohort", round_index=round_index)
    return [ids[position] for position in rng.choice(len(ids), size=size, replace=False, p=rows_K / rows_K.sum())]


def _poisson(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    drawn = stream_rng(seed, "cohort", round_index=round_index).random(len(ids))
    return [client_id for client_id, value in zip(ids, drawn, strict=True) if value < size / len(ids)]


def _everybody(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    return list(ids)


def _fedllm_bench(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    return [ids[position] for position in random.Random(round_index).sample(range(len(ids)), size)]


COHORT_RULES: dict[str, Rule] = {
    "uniform": _uniform,
    "weighted": _weighted,
    "fixed": _everybody,
    "all": _everybody,
    "poisson": _poisson,
    "fedllm-bench": _fedllm_bench,
}
"""Name -> rule."""
