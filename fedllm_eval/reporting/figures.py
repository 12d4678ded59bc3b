"""Where things lie in the figures of the page: clients' scores under each policy, and each client's gain in order."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedllm_eval.reporting.table_section import by_label, fewer_clients, name_of
from fedllm_eval.running.worst_served import HEADLINES

if TYPE_CHECKING:
    from fedllm_eval.results import Results

__all__ = ["gain_figures", "scale", "score_figures"]

Array = npt.NDArray[np.float64]
WIDTH, ROW, CURVE_HEIGHT = 620.0, 34.0, 130.0
NUM_TICKS = 5
MAX_POINTS = 160


def score_figures(results: "Results") -> list[dict[str, Any]]:
    """Return one figure for each split and headline score: a row per policy.

    A row has the middle 80 % of the clients (`low_client`, `high_client`), the `mean` with its interval, and the worst
    decile.
    """
    summary, found = results.summary, []
    tables = {"policy": results.per_client} | {label: other.per_client for label, other in results.policies.items()}
    for split in summary["splits"]:
        for name in HEADLINES:
            rows: list[dict[str, Any]] = []
            ends: list[float] = []
            for label, splits in by_label(summary).items():
                score = splits.get(split, {}).get("scores", {}).get(name)
                if score is None:
                    continue
                x_K = _clients(tables[label], split, name)
                middle = np.quantile(x_K, [0.1, 0.9]).tolist()
                fewer = fewer_clients(score, summary["splits"][split]["scores"].get(name, score))
                shown = f"{name_of(label, summary)}, {fewer}" if fewer else name_of(label, summary)
                rows.append({"name": shown, "score": score, "middle": middle, "label": label})
                ends += [*middle, score["mean"], score["worst_decile"]]
                ends += [score[end] for end in ("ci_low", "ci_high") if score[end] is not None]
            if not rows:
                continue
            place, ticks = scale(min(ends), max(ends), WIDTH)
            for index, row in enumerate(rows):
                score = row["score"]
                row |= {
                    "y": (index + 0.5) * ROW,
                    "at": place(score["mean"]),
                    "low": None if score["ci_low"] is None else place(score["ci_low"]),
                    "high": None if score["ci_high"] is None else place(score["ci_high"]),
                    "low_client": place(row["middle"][0]),
                    "high_client": place(row["middle"][1]),
                    "worst": place(score["worst_decile"]),
                }
            found.append(
                {
                    "split": split,
                    "score": name,
                    "unit": rows[0]["score"]["unit"],
                    "higher_is_better": rows[0]["score"]["higher_is_better"],
                    "rows": rows,
                    "height": len(rows) * ROW,
                    "ticks": ticks,
                }
            )
    return found


def gain_figures(results: "Results") -> list[dict[str, Any]]:
    """Return one figure for each gain in a headline score: the clients' gains from the largest to the smallest."""
    found: list[dict[str, Any]] = []
    if results.gains is None:
        return found
    columns = {name: np.asarray(results.gains[name].to_pylist()) for name in results.gains.column_names}
    for item in results.summary.get("gains", []):
        if item["score"] not in HEADLINES:
            continue
        keys = ("split", "score", "policy", "against")
        chosen = np.all([columns[key] == item[key] for key in keys], axis=0)
        gain_K = np.sort(columns["gain"][chosen].astype(np.float64))[::-1]
        if gain_K.size < 2:
            continue
        shown = gain_K[np.unique(np.linspace(0, gain_K.size - 1, min(gain_K.size, MAX_POINTS)).round().astype(int))]
        place, ticks = scale(min(0.0, float(shown.min())), max(0.0, float(shown.max())), CURVE_HEIGHT)
        step = WIDTH / shown.size
        zero = CURVE_HEIGHT - place(0.0)
        found.append(
            {
                "item": item,
                "name": name_of(item["policy"], results.summary),
                "against": name_of(item["against"], results.summary),
                "height": CURVE_HEIGHT,
                "zero": zero,
                "ticks": [(label, CURVE_HEIGHT - at) for label, at in ticks],
                "bars": [
                    {
                        "x": index * step,
                        "width": max(0.5, step - (1.5 if step > 4 else 0.0)),
                        "y": min(zero, CURVE_HEIGHT - place(float(gain))),
                        "height": abs(zero - (CURVE_HEIGHT - place(float(gain)))),
                        "lost": bool(gain < 0),
                    }
                    for index, gain in enumerate(shown)
                ],
            }
        )
    return found


def scale(low: float, high: float, length: float) -> tuple[Callable[[float], float], list[tuple[str, float]]]:
    """Return a linear scale over [0, length] with room at both ends, and its round ticks with their positions.

    >>> place, ticks = scale(0.0, 1.0, 100.0)
    >>> round(place(0.5), 6), [label for label, _ in ticks]
    (50.0, ['0.0', '0.5', '1.0'])
    """
    if high - low < 1e-12:
        room = max(1e-6, abs(low) / 10)
        low, high = low - room, high + room
    room = 0.08 * (high - low)
    low, high = low - room, high + room
    raw = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * power for nice in (1, 2, 5, 10) if nice * power >= raw)
    digits = max(0, -math.floor(math.log10(step)))

    def place(value: float) -> float:
        return length * (value - low) / (high - low)

    first = math.ceil(low / step)
    ticks = [(f"{index * step + 0.0:.{digits}f}", place(index * step)) for index in range(first, first + 12)]
    return place, [(label.replace("-", "−"), at) for label, at in ticks if at <= length]


def _clients(table: Any, split: str, name: str) -> Array:
    pairs = zip(table["split"].to_pylist(), table[name].to_pylist(), strict=True)
    return np.array([value for where, value in pairs if where == split and value is not None], dtype=np.float64)
