"""What may be published about a run with differential privacy: what its (epsilon, delta) covers, and no more.

The guarantee covers the global adapters of all rounds. Whatever is calculated from them and from settings alone is
covered with them (post-processing; Dwork and Roth 2014, Proposition 2.1). The other things a run folder holds are
about single clients, or about who was there, and got no noise. So a round is published as a line of `releases.jsonl`,
with the fields of `COVERED`, and `config.yaml` without the seed, from which clients' orders of rows follow and which
helps only those who want to find out whether a row was there. The run's secret (`privacy/secret.py`) goes nowhere.

A new field of a round's record stays in the run folder until it is listed here.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["COVERED", "LEAST_SECRET_SEED", "NOT_COVERED", "covered_config", "covered_round"]

COVERED = {
    "round_index": "a count",
    "learning_rate": "a setting: the cosine over rounds",
    "update_norm": "the distance of two global adapters that both are released",
    "adapter_sha256": "a digest of the global adapter and of server state that was calculated from the ones before",
    "privacy": "unit, epsilon and delta: calculated from settings; a clip that adapts: from counts with noise, which "
    "epsilon counts",
}
"""Field of a round's record -> why it may be published."""

NOT_COVERED = {
    "clients": "who took part, with rows, losses and times of each",
    "secure_sum": "counts those who took part, and those of them who were clipped",
    "wire": "means over the messages of those who took part, without noise",
    "left_out": "who took part and failed, and why",
    "train_loss": "a mean over the rows of those who took part, without noise",
    "aggregation_error": "calculated from single updates, where it is calculated at all",
    "clock_seconds": "a round's simulated time follows from who took part",
    "num_under_way": "counts clients, without noise",
    "server_step": "always true in a private run",
    "eval": "scores on clients' rows, without noise",
    "eval_score": "which of them decides what is best; a setting, useless without them",
    "eval_seconds": "belongs to them",
    "monitor": "the best of those scores",
    "ledger": "bytes, steps and seconds add up over those who took part, so they tell how many there were",
    "seconds": "longer where more clients took part",
    "num_clipped": "of `privacy`: counts clients, without noise",
}
"""Field of a round's record -> why it stays in the run folder."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
"""A revision on the Hub; the digest of a folder is longer."""
_PRIVACY = ("unit", "epsilon", "delta", "clip")

LEAST_SECRET_SEED = 2**48
"""Of a run that drew its noise from its seed: below it a seed may be found by trying, since the starting adapter,
often part of the finished one, is also drawn from it."""


def covered_round(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the guarantee covers of a round's record.

    >>> record = {"round_index": 0, "train_loss": 2.5, "privacy": {"epsilon": 1.0, "num_clipped": 3}}
    >>> covered_round(record)
    {'round_index': 0, 'privacy': {'epsilon': 1.0}}
    """
    covered = {name: record[name] for name in COVERED if name in record}
    if "privacy" in covered:
        covered["privacy"] = {name: value for name, value in covered["privacy"].items() if name in _PRIVACY}
    return covered


def covered_config(config: Mapping[str, Any], *, dataset_is_public: bool) -> dict[str, Any]:
    """Return the settings without seeds, rows of single clients, or the digest of a dataset that is not on the Hub.

    Args:
        config: as in `config.yaml`.
        dataset_is_public: whether the dataset's revision is a commit; a digest of a folder's rows would let whoever
            has all rows but one client's try whether they were these.

    The datasets of earlier runs (`earlier`) are treated alike.

    >>> covered_config({"federated": {"seed": 5, "num_rounds": 2}}, dataset_is_public=True)
    {'federated': {'num_rounds': 2}}
    """
    covered = deepcopy(dict(config))
    for section, names in (("federated", ("seed",)), ("client", ("seed", "data_seed"))):
        for name in names:
            covered.get(section, {}).pop(name, None)
    covered.get("privacy", {}).pop("by_client", None)  # tells how many rows single clients have
    if not dataset_is_public and "data" in covered:
        covered["data"]["revision"] = None
    for data in (covered.get("earlier") or {}).get("data", ()):
        if not _COMMIT.fullmatch(str(data.get("revision"))):
            data["revision"] = None
    return covered
