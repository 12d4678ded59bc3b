"""Tables of `trust.py` and `audit_epsilon.py`, from a result file alone. Standard library only.

Symbols: a cell is one run; every number of a row is the mean over its seeds, unless its column says otherwise. Losses
have Student's 95 % interval over seeds, shares of answers Wilson's over the questions of all seeds.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist, mean, median, stdev
from typing import Any

__all__ = [
    "ATTACK_COLUMNS",
    "AUDIT_COLUMNS",
    "LEAK_COLUMNS",
    "attack_rows",
    "audit_rows",
    "leak_rows",
]

LEAK_COLUMNS = (
    *("method", "epsilon", ">values sent", ">noise multiplier", ">loss, same clients", ">loss, unseen clients"),
    *(">membership, AUC", ">epsilon found, most", ">could have been found", ">seeds"),
)
ATTACK_COLUMNS = (
    "defence",
    "attack",
    ">loss, same clients",
    ">of the gain lost",
    ">with trigger",
    ">without",
    ">seeds",
)
AUDIT_COLUMNS = (
    *("runs", ">number", ">epsilon claimed", ">found, any mechanism: median", ">most", ">above the claim"),
    *(">found, Gaussian: median", ">most", ">above the claim"),
)
_ARMS = {
    "all": "everybody in every round",
    "poisson": "half of the clients, by coins",
    "false_claim": "a fifth of the claimed noise",
}
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5 % points of Student's t for that many seeds."""
Result = Mapping[str, Any]


def leak_rows(result: Result, unit: str) -> list[list[str]]:
    """Return a row a method and epsilon, for one unit.

    >>> cell = {"method": "fedavg", "unit": "client", "epsilon": "8", "seed": 0, "num_values": 1000, "claims": {}}
    >>> cell |= {"noise_multiplier": 1.0, "scores": {"test": {"mean": 2.0}, "unseen": {"mean": 3.0}}}
    >>> cell |= {"auc": {"auc": 0.5}, "coins": {"epsilon": 0.0, "largest_epsilon": 2.0}}
    >>> leak_rows({"runs": {"a": cell}}, "client")
    [['`fedavg`', '8', '1,000', '1.00', '2.000', '3.000', '0.50', '0.00', '2.00', '1']]
    """
    rows = []
    groups: dict[tuple[str, str], list[Result]] = {}
    for cell in result["runs"].values():
        if cell.get("unit") == unit:
            groups.setdefault((cell["method"], cell["epsilon"]), []).append(cell)
    for (method, epsilon), cells in sorted(groups.items(), key=lambda item: (item[0][0], -_number(item[0][1]))):
        noise = [cell["noise_multiplier"] for cell in cells]
        rows.append(
            [
                f"`{method}`",
                epsilon,
                f"{cells[0]['num_values']:,}",
                "–" if None in noise else f"{mean(noise):.2f}",
                *(_over_seeds([cell["scores"][split]["mean"] for cell in cells]) for split in ("test", "unseen")),
                f"{mean(cell['auc']['auc'] for cell in cells):.2f}",
                f"{max(cell['coins']['epsilon'] for cell in cells):.2f}",
                f"{max(cell['coins']['largest_epsilon'] for cell in cells):.2f}",
                str(len(cells)),
            ]
        )
    return rows


def attack_rows(result: Result) -> list[list[str]]:
    """Return a row a defence and attack: the loss, and the share of the undefended gain that was lost.

    The gain is the base's loss less that of runs without defence and attack; beyond 100 % is worse than the base.
    """
    runs = [cell for cell in result["runs"].values() if cell["defence"] != "base"]
    base = result["runs"].get("base")
    clean = [_loss(cell) for cell in runs if cell["defence"] == cell["attack"] == "none"]
    groups: dict[tuple[str, str], list[Result]] = {}
    for cell in runs:
        groups.setdefault((cell["defence"], cell["attack"]), []).append(cell)
    rows = []
    for (defence, attack), cells in groups.items():
        losses = [_loss(cell) for cell in cells]
        loss = mean(losses)
        lost = "–"
        if base is not None and clean and (gain := _loss(base) - mean(clean)) > 0:
            lost = f"{(loss - mean(clean)) / gain:.0%}"
        triggered = [_shares(cells, name) for name in ("with_trigger", "without_trigger")]
        rows.append([f"`{defence}`", f"`{attack}`", _over_seeds(losses), lost, *triggered, str(len(cells))])
    return rows


def audit_rows(result: Result) -> list[list[str]]:
    """Return a row an arm of `audit_epsilon.py`.

    >>> runs = {str(n): {"arm": "all", "claimed": 4.0, "one_run": 1.0 + n, "gaussian": 3.5 + n} for n in range(2)}
    >>> audit_rows({"runs": runs})
    [['everybody in every round', '2', '4.00', '1.50', '2.00', '0', '4.00', '4.50', '1']]
    """
    rows = []
    for arm, words in _ARMS.items():
        cells = [cell for cell in result["runs"].values() if cell["arm"] == arm]
        if not cells:
            continue
        row = [words, str(len(cells)), f"{mean(cell['claimed'] for cell in cells):.2f}"]
        for bound in ("one_run", "gaussian"):
            found = [cell[bound] for cell in cells]
            above = sum(cell[bound] is not None and cell[bound] > cell["claimed"] for cell in cells)
            row += ["–"] * 3 if None in found else [f"{median(found):.2f}", f"{max(found):.2f}", str(above)]
        rows.append(row)
    return rows


def _loss(cell: Result) -> float:
    return float(cell["scores"]["test"]["mean"])


def _over_seeds(values: Sequence[float]) -> str:
    """The mean with its interval; of one seed without."""
    middle = f"{mean(values):.3f}"
    if len(values) not in _T:
        return middle
    half = _T[len(values)] * stdev(values) / sqrt(len(values))
    return f"{middle} [{mean(values) - half:.3f}, {mean(values) + half:.3f}]"


def _shares(cells: Sequence[Result], name: str) -> str:
    """Of the questions of all seeds."""
    asked = [cell for cell in cells if cell.get(name) is not None]
    num = sum(cell["num_questions"] for cell in asked)
    if not num:
        return "–"
    share, z = sum(cell[name] * cell["num_questions"] for cell in asked) / num, NormalDist().inv_cdf(0.975)
    middle, half = (share + z * z / (2 * num)), z * sqrt(share * (1 - share) / num + (z / (2 * num)) ** 2)
    low, high = ((middle + sign * half) / (1 + z * z / num) for sign in (-1, 1))
    return f"{share:.0%} [{max(0.0, low):.0%}, {min(1.0, high):.0%}]"


def _number(epsilon: str) -> float:
    return float("inf") if epsilon == "none" else float(epsilon)
