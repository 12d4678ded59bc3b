"""What a run claims to protect, by its own config.yaml, and whether an audit's bound contradicts it.

A claim is an epsilon at a delta for one unit. A bound for one unit says nothing about the claim for the other, and a
bound for a larger delta than the claim's is weaker than it looks, never stronger: both are kept apart here. A bound
above its claim says that the claim is wrong, or that the one chance in twenty (at 95 %) has come true.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fedllm_eval.policy.run_records import RunConfig

__all__ = ["Claim", "Verdict", "claimed", "protections", "verdict"]

Verdict = Literal["above", "within", "no claim", "no bound"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A guarantee of differential privacy, as a run states it for one unit."""

    epsilon: float
    delta: float


def claimed(config: RunConfig | None) -> dict[str, Claim]:
    """Return the guarantees of a run: unit -> epsilon and delta; empty where it makes none.

    A record of privacy names its unit, and may have further units under `units`.

    >>> claimed({"privacy": {"unit": "client", "epsilon": 8.0, "delta": 1e-05}})
    {'client': Claim(epsilon=8.0, delta=1e-05)}
    >>> claimed({"privacy": {"unit": "client", "epsilon": None, "delta": 1e-05}}), claimed(None)
    ({}, {})
    """
    record = (config or {}).get("privacy")
    if not isinstance(record, Mapping):
        return {}
    stated: dict[str, Mapping[str, Any]] = {str(record.get("unit", "client")): record}
    others = record.get("units")
    if isinstance(others, Mapping):
        stated |= {str(unit): other for unit, other in others.items() if isinstance(other, Mapping)}
    return {
        unit: Claim(epsilon=float(each["epsilon"]), delta=float(each.get("delta") or record.get("delta") or 0.0))
        for unit, each in stated.items()
        if each.get("epsilon") is not None
    }


def protections(config: RunConfig | None) -> dict[str, Any]:
    """Return what protected a run's clients, JSON-ready; settings that the run does not have count as off.

    >>> protections({"federated": {"wire": "int8", "robust_sum": "median"}})["robust_sum"]
    'median'
    """
    federated = (config or {}).get("federated") or {}
    return {
        "privacy": {unit: asdict(claim) for unit, claim in claimed(config).items()},
        "clip": federated.get("dp_clip"),
        "secure_sum": bool(federated.get("secure_sum")),
        "robust_sum": _unless_none(federated.get("robust_sum")),
        "wire": _unless_none(federated.get("wire", federated.get("upload_codec"))),
        "strategy": federated.get("strategy"),
    }


def verdict(bound: Mapping[str, Any] | None, claim: Claim | None) -> Verdict:
    """Return whether a bound contradicts the claim for its unit.

    Args:
        bound: `epsilon` and `delta` of what an attack showed; epsilon is None where it could show nothing.
        claim: what the run states for the bound's unit.

    >>> verdict({"epsilon": 3.0, "delta": 1e-05}, Claim(epsilon=2.0, delta=1e-05))
    'above'
    >>> verdict({"epsilon": 3.0, "delta": 0.0}, Claim(epsilon=2.0, delta=1e-05))  # at delta 0 nothing was promised
    'no bound'
    """
    if claim is None:
        return "no claim"
    if bound is None or bound.get("epsilon") is None or bound["delta"] < claim.delta:
        return "no bound"
    return "above" if bound["epsilon"] > claim.epsilon else "within"


def _unless_none(value: Any) -> Any:
    return None if value in (None, "none") else value
