"""Who takes part in a round: clients sampled uniformly, without replacement (McMahan et al. 2017, Algorithm 1)."""

from collections.abc import Sequence

from fedllm_data.errors import ConfigError
from fedllm_train.seeds import stream_rng

__all__ = ["sample_cohort"]


def sample_cohort(client_ids: Sequence[str], cohort_size: int, *, seed: int, round_index: int) -> list[str]:
    """Return the cohort of a round, sorted by client id.

    Args:
        client_ids: all clients that may take part, in any order.
        cohort_size: how many take part; at most `len(client_ids)`.
        seed: the run seed.
        round_index: from 0.

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
    ordered = sorted(client_ids)
    rng = stream_rng(seed, "cohort", round_index=round_index)
    return sorted(ordered[position] for position in rng.choice(len(ordered), size=cohort_size, replace=False))
