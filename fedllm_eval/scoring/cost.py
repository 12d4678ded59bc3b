"""What a run cost: bytes, time to send them, floating-point operations, energy, and all of these up to a target score.

Symbols: R rounds. Bytes are sums over the clients of a round, as the ledger counts them: a broadcast to ten clients is
ten downloads. 1 MiB is 2^20 bytes; 1 Mbit/s is 10^6 bits a second.

Training a dense transformer of N parameters on D tokens takes about 6 N D operations (Kaplan et al. 2020, section
2.1): 2 forward, 2 for the gradient of activations, 2 for that of weights. Under LoRA the N base weights have no
gradient of their own and cost 4 N D, the adapter's weights 6 each; recomputing activations adds one forward pass, the
reference of DPO another unless its log-probabilities are kept. Attention over long contexts is not in the rule: at
1,024 tokens it adds a few percent for models of a billion parameters and more for small ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError

__all__ = [
    "Communication",
    "communication",
    "energy_kwh",
    "training_flops",
    "transfer_seconds",
]

MIB = 2**20


@dataclass(frozen=True)
class Communication:
    """Bytes over all rounds."""

    download_bytes: int
    """Server to clients."""
    upload_bytes: int
    """Clients to server."""
    total_mib: float
    bytes_per_visit: float
    """Both ways, for one client in one round; NaN where no client took part."""
    num_rounds: int
    num_visits: int
    """Clients summed over rounds."""


def communication(
    download_bytes_R: npt.ArrayLike, upload_bytes_R: npt.ArrayLike, num_clients_R: npt.ArrayLike
) -> Communication:
    """Return the bytes of a run.

    Args:
        download_bytes_R: (R,) bytes that the server sent in each round, summed over its clients.
        upload_bytes_R: (R,) bytes that the clients sent.
        num_clients_R: (R,) clients of each round.

    Raises:
        MetricError: if there are no rounds, lengths differ, or a number is negative or not finite.

    >>> found = communication([1048576, 1048576], [524288, 524288], [2, 2])
    >>> found.total_mib, found.bytes_per_visit
    (3.0, 786432.0)
    """
    down, up, clients = _rounds(download_bytes_R, upload_bytes_R, num_clients_R)
    total, visits = float(down.sum() + up.sum()), int(clients.sum())
    return Communication(
        download_bytes=int(down.sum()),
        upload_bytes=int(up.sum()),
        total_mib=total / MIB,
        bytes_per_visit=total / visits if visits else float("nan"),
        num_rounds=int(down.size),
        num_visits=visits,
    )


def transfer_seconds(
    download_bytes_R: npt.ArrayLike,
    upload_bytes_R: npt.ArrayLike,
    num_clients_R: npt.ArrayLike,
    *,
    download_mbit_per_second: float,
    upload_mbit_per_second: float,
) -> float:
    """Return how long sending takes where each client has a line of its own and a round waits for all of them.

    The clients of a round share its bytes alike; rounds follow one another. Latency and the server's line are left
    out.

    Args:
        download_bytes_R: (R,) bytes as in `communication`.
        upload_bytes_R: (R,) the same the other way.
        num_clients_R: (R,) clients of each round.
        download_mbit_per_second: what a client's line takes in, in megabits a second.
        upload_mbit_per_second: what it gives out.

    Raises:
        MetricError: as `communication`, or if a line has no bandwidth.

    >>> transfer_seconds([2_000_000], [1_000_000], [2], download_mbit_per_second=8.0, upload_mbit_per_second=4.0)
    2.0
    """
    down, up, clients = _rounds(download_bytes_R, upload_bytes_R, num_clients_R)
    for name, speed in (("download", download_mbit_per_second), ("upload", upload_mbit_per_second)):
        if not (np.isfinite(speed) and speed > 0):
            raise MetricError(f"{name} bandwidth is {speed} Mbit/s; state a positive one")
    per_client = np.maximum(clients, 1)
    seconds_R = 8e-6 * (down / download_mbit_per_second + up / upload_mbit_per_second) / per_client
    return float(seconds_R.sum())


def training_flops(
    num_parameters: int,
    num_tokens: int,
    *,
    adapter_parameters: int | None = None,
    recompute: bool = False,
    reference: bool = False,
) -> float:
    """Return the floating-point operations of training by the 6 N D rule, or its form for LoRA.

    Args:
        num_parameters: N, of the base model.
        num_tokens: D, tokens read over all steps, padding aside; for DPO those of chosen and rejected answers with
            their prompts.
        adapter_parameters: trained parameters of a LoRA adapter; None means that all N are trained.
        recompute: whether activations are computed again for the backward pass (gradient checkpointing).
        reference: whether a DPO reference reads every token once as well.

    Raises:
        MetricError: if a number is negative, or there are no parameters.

    >>> training_flops(1000, 10), training_flops(1000, 10, adapter_parameters=100)
    (60000.0, 46000.0)
    """
    if num_parameters < 1 or num_tokens < 0 or (adapter_parameters is not None and adapter_parameters < 0):
        raise MetricError(
            f"{num_parameters} parameters, {num_tokens} tokens, {adapter_parameters} in the adapter; counts are not "
            "negative and a model has parameters"
        )
    adapter = adapter_parameters or 0
    per_token = 6.0 * num_parameters if adapter_parameters is None else 4.0 * num_parameters + 6.0 * adapter
    forward = 2.0 * (num_parameters + adapter)
    if recompute:
        per_token += forward
    if reference:
        per_token += 2.0 * num_parameters
    return per_token * num_tokens


def energy_kwh(seconds: float, watts: float) -> float:
    """Return the energy of a device that draws `watts` for some time, in kilowatt-hours.

    Raises:
        MetricError: if a number is negative or not finite.

    >>> energy_kwh(7200.0, 250.0)
    0.5
    """
    if not (np.isfinite([seconds, watts]).all() and seconds >= 0 and watts >= 0):
        raise MetricError(f"{seconds} seconds at {watts} watts; state finite numbers that are not negative")
    return seconds * watts / 3.6e6


def _rounds(*columns: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], ...]:
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in columns)
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != 1 or len(set(shapes)) != 1:
        raise MetricError(f"rounds need lists of one length, got shapes {shapes}; give one value per round in each")
    if arrays[0].size == 0:
        raise MetricError("no rounds: the cost of nothing is undefined; give at least one round")
    for array in arrays:
        if not np.isfinite(array).all() or (array < 0).any():
            raise MetricError("a round has a negative or missing count; read rounds.jsonl again")
    return arrays
