"""Who is served worst, by name: the ten clients with the worst scores, their language, rows, score before and now.

"Before" is the base, where it was scored as well. One score per split is listed, the headline one; its direction
settles what is worst. A tie goes to the client with more rows, whose score is the surer one.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.spread import num_worst

if TYPE_CHECKING:
    from fedllm_eval.results import Results

__all__ = ["HEADLINES", "worst_served_records"]

HEADLINES = ("heldout_loss", "implicit_reward_accuracy", "ranking_accuracy_per_token")
"""The scores that stand for a policy, the first that there is first."""
LABELS = ("policy", "personal")
NUM_LISTED = 10


def worst_served_records(results: "Mapping[str, Results]") -> list[dict[str, Any]]:
    """Return the worst-served clients of every split under the policy, and under the personal adapters.

    Args:
        results: label -> results, as in `assemble.join_results`.

    Returns:
        One item per policy and split: `policy`, `split`, `score`, `unit`, `higher_is_better`, `num_clients`,
        `num_in_worst_decile`, `num_tied_beyond` (clients not listed with the score of the last one listed), and
        `clients`, the worst first, each with `client_id`, `languages` (most rows first; None where rows name none),
        `num_rows`, `before` (None where the base has no score) and `now`.
    """
    found = []
    base = results.get("base")
    for label in (label for label in LABELS if label in results):
        one = results[label]
        for split in one.summary["splits"]:
            name = next((name for name in HEADLINES if name in one.per_client.column_names), None)
            if name is None:
                continue
            scores = _scores(one.per_client, split, name)
            if not scores:
                continue
            before = _scores(base.per_client, split, name) if base is not None else {}
            languages = _languages(one.per_row, split)
            sign = 1 if SCORES[name].higher_is_better else -1
            order = sorted(scores, key=lambda client: (sign * scores[client][0], -scores[client][1], client))
            listed = order[:NUM_LISTED]
            found.append(
                {
                    "policy": label,
                    "split": split,
                    "score": name,
                    "unit": SCORES[name].unit,
                    "higher_is_better": SCORES[name].higher_is_better,
                    "num_clients": len(scores),
                    "num_in_worst_decile": num_worst(len(scores)),
                    "num_tied_beyond": sum(
                        scores[client][0] == scores[listed[-1]][0] for client in order[NUM_LISTED:]
                    ),
                    "clients": [
                        {
                            "client_id": client,
                            "languages": languages.get(client),
                            "num_rows": scores[client][1],
                            "before": before[client][0] if client in before else None,
                            "now": scores[client][0],
                        }
                        for client in listed
                    ],
                }
            )
    return found


def _scores(table: pa.Table, split: str, name: str) -> dict[str, tuple[float, int]]:
    """Client -> (score, rows) in a split."""
    if name not in table.column_names:
        return {}
    columns = (table[column].to_pylist() for column in ("client_id", "split", name, "num_rows"))
    return {
        client: (score, num_rows)
        for client, where, score, num_rows in zip(*columns, strict=True)
        if where == split and score is not None
    }


def _languages(rows: pa.Table | None, split: str) -> dict[str, list[str]]:
    """Client -> the languages of its rows, most rows first."""
    if rows is None:
        return {}
    counts: dict[str, Counter[str]] = {}
    columns = (rows[column].to_pylist() for column in ("client_id", "split", "language"))
    for client, where, language in zip(*columns, strict=True):
        if where == split and language not in (None, "und"):
            counts.setdefault(client, Counter())[language] += 1
    return {
        client: [name for name, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))]
        for client, found in counts.items()
    }
