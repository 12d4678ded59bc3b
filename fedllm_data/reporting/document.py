"""The report as an object, and as the JSON document that everything else reads.

`heterogeneity.json` holds, per axis, a sentence, a verdict and the measures with value, null, p and interval:

    {"axes": {"language": {"sentence", "chance", "verdict", "headline", "p_holm", "null", "means", "facts",
                           "client_columns": [keys of "clients" that the axis gives], "num_null", "num_bootstrap",
                           "measures": {"divergence_fraction": {"title", "unit", "meaning", "value", "null_mean",
                                        "null_std", "z", "p", "low", "high", "num_clients", "reason"}}}},
     "clients": {column: [one entry a client]},
     "config": {"seed", "num_null", "num_bootstrap", "confidence", "correction", "min_client_rows",
                "codebook": its digest, "tokenizer", "encoder", "scorers", "parsers", "min_rows", "num_merged_rows"},
     "versions", "name", "revision", "task", "splits", "num_clients", "num_rows", "summary"}

A number that the rows do not determine is null, and `reason` says why. Draws of an axis are fewer than the config's
where there are very many clients. The same seed, codebook and rows give the same bytes; so do profiles that were
written elsewhere, but for `name` and `revision`, which say where the rows lie. (Clients below the codebook's
`min_rows` must have been merged by the same hands: what is merged in two places may be left out in both.)
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from fedllm_data.codebook import Codebook
from fedllm_data.heterogeneity import AxisResult, ClientProfile, Estimate
from fedllm_data.heterogeneity.axis import Axis
from fedllm_data.markdown_table import markdown_table
from fedllm_data.reporting.numbers import format_chance, format_number
from fedllm_data.reporting.report_words import summary_sentence
from fedllm_data.wording.catalogue import words

__all__ = ["HeterogeneityReport", "dump_json"]

REPORT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class HeterogeneityReport:
    """What the profiles of the clients say, with all that is needed to compute it again."""

    name: str
    revision: str | None
    task: str
    splits: tuple[str, ...]
    profiles: tuple[ClientProfile, ...]
    """One a client, sorted by client id; the rest is a function of these and of `config`."""
    axes: dict[str, AxisResult]
    definitions: dict[str, Axis]
    """What the axes measure."""
    codebook: Codebook
    config: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Rows of all clients, those included that are too small for a profile of their own."""
        return sum(profile.num_rows for profile in self.profiles) + int(self.config["num_merged_rows"])

    def summary(self) -> str:
        """Return the whole finding in one sentence."""
        return summary_sentence({name: result.verdict for name, result in self.axes.items()}, len(self.profiles))

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, as in `heterogeneity.json`."""
        return {
            "version": REPORT_VERSION,
            "name": self.name,
            "revision": self.revision,
            "task": self.task,
            "splits": list(self.splits),
            "num_clients": len(self.profiles),
            "num_rows": self.num_rows,
            "summary": self.summary(),
            "axes": {name: self._axis_json(name, result) for name, result in self.axes.items()},
            "clients": self._client_columns(),
            "config": self.config,
            "versions": {package: version(package) for package in ("fedllm-commons", "numpy", "pyarrow")},
        }

    def _axis_json(self, name: str, result: AxisResult) -> dict[str, Any]:
        axis = self.definitions[name]
        return {
            "question": axis.question,
            "sentence": result.sentence,
            "chance": _chance_sentence(axis.measures[axis.headline].title, result, axis.headline),
            "verdict": result.verdict,
            "headline": axis.headline,
            "p_holm": result.p_holm,
            "null": axis.null,
            "min_rows": axis.min_rows,
            "means": axis.reading.means,
            "facts": result.facts,
            "client_columns": list(result.per_client),
            "num_null": result.num_null,
            "num_bootstrap": result.num_bootstrap,
            "measures": {
                key: {
                    "title": measure.title,
                    "unit": measure.unit,
                    "meaning": measure.meaning,
                    "unequal": measure.unequal,
                    **asdict(result.estimates[key]),
                }
                for key, measure in axis.measures.items()
            },
        }

    def _client_columns(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"client_id": [profile.client_id for profile in self.profiles]}
        for result in self.axes.values():
            for column, values in result.per_client.items():
                known = dict(zip(result.client_ids, values, strict=False))
                columns[column] = [known.get(client_id) for client_id in columns["client_id"]]
        return columns

    def table(self, *, all_measures: bool = False) -> str:
        """Return a Markdown table: the headline measure of every axis, or all measures.

        Args:
            all_measures: also list the measures that are not the headline of their axis.
        """
        confidence = f"{self.config['confidence']:.0%}".replace("%", " %")
        header = ["axis", "measure", "value", f"{confidence} interval", "by chance", "z", "p", "clients"]
        rows = []
        for name, result in self.axes.items():
            axis = self.definitions[name]
            for key, measure in axis.measures.items():
                if all_measures or key == axis.headline:
                    p = result.p_holm if key == axis.headline else result.estimates[key].p
                    rows.append([name, f"{measure.title} ({measure.unit})", *_cells(result.estimates[key], p)])
        return markdown_table(header, rows, right=range(2, len(header)))


def dump_json(document: dict[str, Any]) -> str:
    """Return JSON text in which every list of plain values takes one line.

    >>> print(dump_json({"a": [1, 2], "b": {"c": None}}), end="")
    {
      "a": [1, 2],
      "b": {
        "c": null
      }
    }
    """

    def lines(value: Any, indent: str) -> str:
        if isinstance(value, dict) and value:
            inner = indent + "  "
            items = (f"{inner}{json.dumps(key)}: {lines(item, inner)}" for key, item in value.items())
            return "{\n" + ",\n".join(items) + f"\n{indent}}}"
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    return lines(document, "") + "\n"


def _cells(estimate: Estimate, p: float | None) -> list[str]:
    if estimate.value is None:
        return ["not enough data", "–", "–", "–", "–", str(estimate.num_clients)]
    interval = f"{format_number(estimate.low)} to {format_number(estimate.high)}" if estimate.low is not None else "–"
    chance = format_chance(estimate.null_mean, estimate.null_std)
    z = "–" if estimate.z is None else f"{estimate.z:+,.1f}"
    return [format_number(estimate.value), interval, chance, z, format_number(p), str(estimate.num_clients)]


def _chance_sentence(title: str, result: AxisResult, headline: str) -> str:
    estimate = result.estimates[headline]
    if estimate.value is None or estimate.null_mean is None or result.p_holm is None:
        return ""
    return words(
        "{title} {value}; chance alone would give {chance} (p = {p} after correction for the number of axes).",
        title=title,
        value=format_number(estimate.value),
        chance=format_chance(estimate.null_mean, estimate.null_std),
        p=format_number(result.p_holm),
    )
