"""Who takes part in a round.

uniform       without replacement, each client equally likely (McMahan et al. 2017, Algorithm 1)
weighted      without replacement, in proportion to rows: drawn one after the other, each time from those left. Methods
              that weight their average by rows then count rows twice; the paper's is uniform
fixed, all    the same clients in every round
poisson       each client on its own with probability cohort_size / number of clients: cohort_size is a mean, and a
              cohort may be empty; what the accountant of differential privacy assumes. With a guarantee it is drawn
              from the run's secret, since nobody may work out who took part (`privacy/secret.py`)
fedllm-bench  as its released code draws them: CPython's `random`, seeded with the round and nothing else

A draw goes through the clients in blocks, so that memory grows with the cohort alone (rules `fixed` and `all` name
theirs), and takes from its stream what NumPy's own calls take: cohorts are the same to the client.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from fedllm_data.client_index import BLOCK, SortedIds, values_of
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
    return sorted(COHORT_RULES[rule](_in_order(client_ids), cohort_size, sizes or {}, seed, round_index))


def cohort_pool(
    config: ParticipationSettings, client_ids: Sequence[str], *, alone: bool = False
) -> tuple[Sequence[str], int]:
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


def eligible_clients(config: ParticipationSettings, client_ids: Sequence[str]) -> Sequence[str]:
    """Return the clients that the cohort rule may ever sample, sorted: those named with rule fixed, else all.

    >>> fixed = ParticipationSettings(cohort_rule="fixed", cohort_clients="c,a")
    >>> eligible_clients(fixed, ["a", "b", "c"])
    ['a', 'c']
    """
    if config.cohort_rule != "fixed" or config.cohort_clients is None:
        return _in_order(client_ids)
    known = client_ids if isinstance(client_ids, SortedIds) else set(client_ids)
    return sorted({name for each in config.cohort_clients.split(",") if (name := each.strip()) in known})


def _in_order(client_ids: Sequence[str]) -> Sequence[str]:
    """The ids in sorted order."""
    return client_ids if isinstance(client_ids, SortedIds) else sorted(client_ids)


def _pool(config: ParticipationSettings, client_ids: Sequence[str], alone: bool) -> tuple[Sequence[str], int]:
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
        known = client_ids if isinstance(client_ids, SortedIds) else set(client_ids)
        if unknown := sorted({client_id for client_id in named if client_id not in known}):
            raise ConfigError(
                f"cohort_clients names {unknown[0]!r}, which is not among the {len(client_ids)} clients; "
                f"they are called like {min(client_ids)!r}"
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
    return client_ids, size


def _uniform(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    rng = stream_rng(seed, "cohort", round_index=round_index)
    return [ids[position] for position in rng.choice(len(ids), size=size, replace=False)]


def _weighted(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    rng = stream_rng(seed, "cohort", round_index=round_index)
    return [ids[position] for position in _drawn_by_rows(rng, ids, size, sizes)]


def _drawn_by_rows(rng: np.random.Generator, ids: Sequence[str], size: int, sizes: Mapping[str, int]) -> list[int]:
    """What `rng.choice(len(ids), size, replace=False, p=rows / rows.sum())` draws, in blocks of clients.

    As it does: draw as many numbers as are missing, look for them in the cumulative shares, in which clients drawn
    before count nothing, take each client once, and draw again for those that are missing then.
    """
    num_rows = float(sum(values_of(sizes, ids)))  # exact, as the sum of an array of whole numbers is
    found: list[int] = []
    while len(found) < size:
        wanted = rng.random(size - len(found))
        total = 0.0
        for shares in _shares(ids, sizes, num_rows, found):
            total = np.cumsum(np.concatenate([[total], shares]))[-1]
        order = np.argsort(wanted, kind="stable")
        places = np.empty(len(wanted), dtype=np.int64)
        begin, due, last = 0, 0, 0.0
        for shares in _shares(ids, sizes, num_rows, found):
            sums = np.cumsum(np.concatenate([[last], shares]))
            last, ends = sums[-1], sums[1:] / total
            here = int(np.searchsorted(wanted[order], ends[-1], side="left"))
            places[order[due:here]] = begin + np.searchsorted(ends, wanted[order[due:here]], side="right")
            due, begin = here, begin + len(shares)
        places[order[due:]] = begin
        found += dict.fromkeys(places.tolist())
    return found


def _shares(
    ids: Sequence[str], sizes: Mapping[str, int], num_rows: float, found: Sequence[int]
) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the share of the rows of each client, zero for those that were drawn, a block at a time."""
    drawn, rows = np.sort(np.array(found, dtype=np.int64)), values_of(sizes, ids)
    for begin in range(0, len(ids), BLOCK):
        shares = np.array(list(islice(rows, BLOCK)), dtype=np.float64) / num_rows
        shares[drawn[(drawn >= begin) & (drawn < begin + BLOCK)] - begin] = 0.0
        yield shares


def _poisson(ids: Sequence[str], size: int, sizes: Mapping[str, int], seed: int, round_index: int) -> list[str]:
    rng, cohort = stream_rng(seed, "cohort", round_index=round_index), list[str]()
    for begin in range(0, len(ids), BLOCK):
        drawn = rng.random(min(BLOCK, len(ids) - begin))
        cohort += [ids[begin + int(place)] for place in np.flatnonzero(drawn < size / len(ids))]
    return cohort


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
