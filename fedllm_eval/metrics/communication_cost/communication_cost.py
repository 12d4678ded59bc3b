"""Bytes of a federated run as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from typing import Any

import datasets
import evaluate

from fedllm_data.errors import MetricError
from fedllm_eval.metrics import check_config, check_inputs
from fedllm_eval.scoring.cost import communication, transfer_seconds

_DESCRIPTION = """\
Bytes that a federated run sent in both directions, and the time to send them over lines of a stated bandwidth.
"""

_KWARGS_DESCRIPTION = """\
Args:
    download_bytes (list of int): bytes that the server sent in each round, summed over its clients.
    upload_bytes (list of int): bytes that the clients sent in each round.
    num_clients (list of int): clients of each round.
    download_mbit_per_second, upload_mbit_per_second (float): a client's line, in 10^6 bits a second; both or neither.

Returns:
    download_bytes, upload_bytes (int), total_mib (float): over all rounds.
    bytes_per_visit (float): both ways, for one client in one round; NaN where no client took part.
    transfer_seconds (float): with a stated line alone.
    num_rounds, num_visits (int): rounds, and clients summed over rounds.

No rounds or a negative count is an error (`MetricError`), never a cost of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["communication_cost"]))
    >>> result = metric.compute(download_bytes=[1048576], upload_bytes=[1048576], num_clients=[2])
    >>> result["total_mib"], result["bytes_per_visit"]
    (2.0, 1048576.0)
"""

_CITATION = ""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CommunicationCostMetric(evaluate.Metric):  # type: ignore[misc]
    """Bytes both ways and the time to send them."""

    def _info(self) -> Any:
        check_config("communication_cost", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "download_bytes": datasets.Value("int64"),
                    "upload_bytes": datasets.Value("int64"),
                    "num_clients": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self,
        download_bytes: list[int],
        upload_bytes: list[int],
        num_clients: list[int],
        *,
        download_mbit_per_second: float | None = None,
        upload_mbit_per_second: float | None = None,
        **foreign: object,
    ) -> dict[str, float]:
        check_inputs("communication_cost", self.config_name, foreign)
        found = communication(download_bytes, upload_bytes, num_clients)
        result: dict[str, float] = {
            "download_bytes": found.download_bytes,
            "upload_bytes": found.upload_bytes,
            "total_mib": found.total_mib,
            "bytes_per_visit": found.bytes_per_visit,
            "num_rounds": found.num_rounds,
            "num_visits": found.num_visits,
        }
        if (download_mbit_per_second is None) != (upload_mbit_per_second is None):
            raise MetricError("the line is stated in one direction alone; state download and upload, or neither")
        if download_mbit_per_second is not None and upload_mbit_per_second is not None:
            result["transfer_seconds"] = transfer_seconds(
                download_bytes,
                upload_bytes,
                num_clients,
                download_mbit_per_second=download_mbit_per_second,
                upload_mbit_per_second=upload_mbit_per_second,
            )
        return result
