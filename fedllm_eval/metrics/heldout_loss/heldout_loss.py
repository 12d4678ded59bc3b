"""Held-out loss as an `evaluate` metric: a shell over `fedllm_eval.scoring.heldout_loss`."""

from typing import Any

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_inputs, check_texts, check_whole
from fedllm_eval.scoring.heldout_loss import heldout_loss, perplexity

_DESCRIPTION = """\
Mean negative log-likelihood per answer token and its perplexity, over all tokens and, with client ids, over clients.
The token-weighted loss is what one pooled test set would give; the client-weighted loss gives every client the same
say, however little the client wrote.
"""

_KWARGS_DESCRIPTION = """\
Args:
    nll_sums (list of float): negative log-likelihood of each row's answer, summed over its tokens, in nats.
    num_tokens (list of int): number of answer tokens of each row, positive.
    client_ids (list of str): the client of each row; config "clients" only.

Returns:
    heldout_loss (float): nats per token over all tokens; 0 when every answer was certain.
    heldout_perplexity (float): exp(heldout_loss).
    num_rows, num_tokens (int): what the numbers rest on.
    With config "clients" also client_heldout_loss (float), the mean over clients of each client's own loss,
    client_heldout_perplexity (float), exp of it and so the geometric mean of the clients' perplexities, and
    num_clients (int).

No rows, a negative loss or a row without tokens is an error (`MetricError`), never a score of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["heldout_loss"]))
    >>> metric.compute(nll_sums=[2.0, 6.0], num_tokens=[2, 2])["heldout_loss"]
    2.0
    >>> per_client = evaluate.load(str(METRIC_FOLDERS["heldout_loss"]), "clients")
    >>> result = per_client.compute(nll_sums=[2.0, 6.0, 6.0], num_tokens=[2, 2, 2], client_ids=["a", "b", "b"])
    >>> result["client_heldout_loss"], result["num_clients"]
    (2.0, 2)
"""

_CITATION = ""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class HeldoutLossMetric(evaluate.Metric):  # type: ignore[misc]
    """Negative log-likelihood per token."""

    def _info(self) -> Any:
        check_config("heldout_loss", self.config_name)
        features = {"nll_sums": datasets.Value("float64"), "num_tokens": datasets.Value("float64")}
        if self.config_name == "clients":
            features["client_ids"] = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def _compute(
        self, nll_sums: list[float], num_tokens: list[int], client_ids: list[str] | None = None, **foreign: object
    ) -> dict[str, float]:
        check_inputs("heldout_loss", self.config_name, {**foreign, "client_ids": client_ids})
        check_texts(client_ids=client_ids)
        check_whole(num_tokens=num_tokens)
        losses = heldout_loss(nll_sums, num_tokens, client_ids if self.config_name == "clients" else None)
        result: dict[str, float] = {
            "heldout_loss": losses.token_weighted,
            "heldout_perplexity": perplexity(losses.token_weighted),
            "num_rows": losses.num_rows,
            "num_tokens": losses.num_tokens,
        }
        if losses.client_weighted is not None and losses.num_clients is not None:
            result |= {
                "client_heldout_loss": losses.client_weighted,
                "client_heldout_perplexity": perplexity(losses.client_weighted),
                "num_clients": losses.num_clients,
            }
        return result
