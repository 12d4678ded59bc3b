"""Whom taking part pays off for: a federated policy's results against base, training alone and pooled training.

All come from `fedllm-eval run` on the same clients. "Alone" is a policy of its own for each client, trained on that
client's rows, and only its score on that same client counts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedllm_data.errors import MetricError
from fedllm_eval.plain_json import without_nan
from fedllm_eval.results import Results
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.collaboration import Gain, collaboration_gain, recovered_fraction

__all__ = ["NoSharedClients", "client_gains"]


class NoSharedClients(MetricError):
    """A baseline and the policy have no scored client of a split in common."""


def client_gains(
    policy: Results,
    *,
    base: Results | None = None,
    alone: Mapping[str, Results] | None = None,
    centralised: Results | None = None,
    score: str | None = None,
    split: str = "test",
    seed: int = 0,
) -> dict[str, Any]:
    """Return what clients gain by a policy over each baseline that is given.

    Args:
        policy: results of the federated policy.
        base: results of the model that it started from.
        alone: client id -> results of the policy trained on that client alone.
        centralised: results of one policy trained on all rows.
        score: one of `SCORES`; by default the first that the policy's table has.
        split: split of the client repo.
        seed: seeds the sign flips.

    Returns:
        JSON-ready: `score`, `split`, `unit`, `higher_is_better`, and under `against` for each baseline the mean
        `gain` with `ci_low`, `ci_high` and `p_value`, `better_off` with its interval, `worse_off`,
        `num_unmoved` (clients without a difference beyond rounding), `worst_decile_gain`, `num_clients` (those with a
        score on both sides) and `by_client`. With both alone and centralised also `recovered_fraction`, over the
        clients that all three have. Undefined numbers are None.

    Raises:
        NoSharedClients: if a baseline shares no client with the policy.
        MetricError: if no baseline is given, or the policies were scored on different data.
    """
    own_name = score or next((name for name in SCORES if name in policy.per_client.column_names), None)
    if own_name not in SCORES or own_name not in policy.per_client.column_names:
        raise MetricError(f"the policy has no score {own_name!r}; it has {', '.join(_names(policy)) or 'none'}")
    about = SCORES[own_name]
    own = _by_client(policy, own_name, split)
    baselines: dict[str, dict[str, float]] = {}
    for name, results in (("base", base), ("centralised", centralised)):
        if results is not None:
            _check_alike(policy, results, name)
            baselines[name] = _by_client(results, own_name, split)
    if alone is not None:
        for client_id, results in alone.items():
            _check_alike(policy, results, f"client {client_id} alone")
        scores = {client_id: _by_client(results, own_name, split) for client_id, results in alone.items()}
        baselines["alone"] = {client_id: found[client_id] for client_id, found in scores.items() if client_id in found}
    if not baselines:
        raise MetricError("a gain needs something to gain over; give base, alone or centralised results")
    against = {}
    for name, baseline in baselines.items():
        shared = [client_id for client_id in own if client_id in baseline]
        if not shared:
            raise NoSharedClients(
                f"{name} shares no scored client of split {split!r} with the policy; score it on them"
            )
        gain = collaboration_gain(
            [own[client_id] for client_id in shared],
            [baseline[client_id] for client_id in shared],
            higher_is_better=about.higher_is_better,
            rounding=about.rounding,
            seed=seed,
        )
        against[name] = _record(gain, shared)
    record: dict[str, Any] = {
        "score": own_name,
        "split": split,
        "unit": about.unit,
        "higher_is_better": about.higher_is_better,
        "against": against,
    }
    if {"alone", "centralised"} <= baselines.keys():
        shared = [client_id for client_id in own if all(client_id in baselines[name] for name in baselines)]
        means = [
            float(np.mean([scores[client_id] for client_id in shared])) if shared else float("nan")
            for scores in (own, baselines["alone"], baselines["centralised"])
        ]
        record["recovered_fraction"] = recovered_fraction(*means) if shared else None
    cleaned: dict[str, Any] = without_nan(record)
    return cleaned


def _record(gain: Gain, client_ids: list[str]) -> dict[str, Any]:
    return {
        "gain": gain.gain.difference,
        "ci_low": gain.gain.low,
        "ci_high": gain.gain.high,
        "p_value": gain.gain.p_value,
        "better_off": gain.better_off.fraction,
        "better_off_ci_low": gain.better_off.low,
        "better_off_ci_high": gain.better_off.high,
        "worse_off": gain.worse_off.fraction,
        "num_unmoved": int((gain.gain_K == 0).sum()),
        "worst_decile_gain": gain.worst_decile_gain,
        "num_clients": len(client_ids),
        "by_client": dict(zip(client_ids, gain.gain_K.tolist(), strict=True)),
    }


def _by_client(results: Results, score: str, split: str) -> dict[str, float]:
    table = results.per_client
    if score not in table.column_names:
        raise MetricError(f"{results.summary['policy']['name']} has no score {score!r}; score it in the same way")
    columns = (table[name].to_pylist() for name in ("split", "client_id", score))
    return {
        client_id: value
        for where, client_id, value in zip(*columns, strict=True)
        if where == split and value is not None
    }


def _check_alike(policy: Results, other: Results, name: str) -> None:
    data = "revision" if policy.summary["dataset"].get("revision") else "name"
    for part, key in (
        ("dataset", data),
        *(("settings", key) for key in ("max_length", "max_rows_per_client", "seed")),
    ):
        own, its = policy.summary[part].get(key), other.summary[part].get(key)
        if own != its:
            raise MetricError(
                f"{name} was scored with {part} {key} {its!r}, the policy with {own!r}; score both alike"
            )


def _names(results: Results) -> list[str]:
    return [name for name in SCORES if name in results.per_client.column_names]
