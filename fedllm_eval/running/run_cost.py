"""What a run folder says about its cost: `rounds.jsonl` for what was measured, `config.yaml` for what was set.

Measured: bytes both ways, local steps, seconds; tokens, peak memory and energy as far as the rounds name them.
Estimated, and marked as such: operations, matrix by matrix where the run knows its model's shape (`machines` in
config.yaml), else by the 6 N D rule with the parameters counted in the weight files; where the rounds name no tokens,
the most tokens that the settings allow; energy by a stated wattage.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.flops import Work, token_flops
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_eval.policy.locate import locate
from fedllm_eval.policy.run_folder import ADAPTER, find_config, read_rounds, section
from fedllm_eval.policy.run_records import RoundRecord, RunConfig
from fedllm_eval.scoring.cost import communication, energy_kwh, training_flops, transfer_seconds

__all__ = ["RunCost", "StatedCosts", "count_parameters", "run_cost"]


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Totals of a run; None where nothing is known."""

    num_rounds: int
    num_visits: int
    """Clients summed over rounds."""
    num_clients: int
    """Different clients that took part."""
    download_bytes: int
    upload_bytes: int
    total_mib: float
    num_local_steps: int
    client_seconds: float
    """Time that clients spent training, summed."""
    seconds: float
    """Time that the rounds took where they ran."""
    transfer_seconds: float | None
    """Time to send the bytes over the stated lines."""
    num_tokens: int | None
    """Tokens trained on, or the most they can have been."""
    tokens_are_bound: bool
    """Whether `num_tokens` is the most that the settings allow, rather than counted."""
    flops: float | None
    """By the rule in `flops_rule`."""
    flops_rule: str | None
    peak_memory_bytes: int | None
    energy_kwh: float | None
    energy_source: str | None
    """`meter`, or the stated wattage."""

    def as_record(self) -> dict[str, Any]:
        """Return the totals as a JSON-ready mapping."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StatedCosts:
    """The clients' lines and devices as the user states them, since no run measures them."""

    watts: float | None = None
    """What a client's device draws while it trains, for energy where no meter was read."""
    download_mbit_per_second: float | None = None
    """A client's line, for the time of transfer; both directions or neither."""
    upload_mbit_per_second: float | None = None

    def given(self) -> list[str]:
        """Return the names of the values that are stated.

        >>> StatedCosts(watts=60.0).given()
        ['watts']
        """
        return [name for name, value in asdict(self).items() if value is not None]


def run_cost(run: Path, stated: StatedCosts | None = None) -> RunCost:
    """Return what a run cost.

    Args:
        run: a run folder.
        stated: the clients' lines and devices; nothing where None.

    Raises:
        ConfigError: if the folder has no rounds, or one direction of the line alone is stated.
        MetricError: if a bandwidth or wattage makes no sense.
    """
    stated = stated or StatedCosts()
    watts = stated.watts
    download_mbit_per_second, upload_mbit_per_second = stated.download_mbit_per_second, stated.upload_mbit_per_second
    rounds = read_rounds(run)
    if (download_mbit_per_second is None) != (upload_mbit_per_second is None):
        raise ConfigError("the line is stated in one direction alone; state download and upload in Mbit/s, or neither")
    down, up = (
        _per_round([record["ledger"][name] for record in rounds]) for name in ("download_bytes", "upload_bytes")
    )
    clients = [len(record["clients"]) for record in rounds]
    sent = communication(down, up, clients)
    ledger = rounds[-1]["ledger"]
    seconds = None
    if download_mbit_per_second is not None and upload_mbit_per_second is not None:
        seconds = transfer_seconds(
            down,
            up,
            clients,
            download_mbit_per_second=download_mbit_per_second,
            upload_mbit_per_second=upload_mbit_per_second,
        )
    cost = RunCost(
        num_rounds=sent.num_rounds,
        num_visits=sent.num_visits,
        num_clients=len({client["client_id"] for record in rounds for client in record["clients"]}),
        download_bytes=sent.download_bytes,
        upload_bytes=sent.upload_bytes,
        total_mib=sent.total_mib,
        num_local_steps=int(ledger["num_local_steps"]),
        client_seconds=float(ledger["client_seconds"]),
        seconds=math.fsum(record["seconds"] for record in rounds),
        transfer_seconds=seconds,
        num_tokens=None,
        tokens_are_bound=False,
        flops=None,
        flops_rule=None,
        peak_memory_bytes=_largest(rounds, "peak_memory_bytes"),
        energy_kwh=None,
        energy_source=None,
    )
    joules = [_of_clients(record, "energy_joules") for record in rounds]
    if cost.num_visits and None not in joules:
        cost = replace(cost, energy_kwh=energy_kwh(math.fsum(filter(None, joules)), 1.0), energy_source="meter")
    elif watts is not None:
        source = f"{watts:g} W stated, times the clients' seconds"
        cost = replace(cost, energy_kwh=energy_kwh(cost.client_seconds, watts), energy_source=source)
    return _with_flops(cost, run, rounds)


def count_parameters(folder: Path) -> int | None:
    """Return the number of values in a folder's safetensors files, by their headers; None if it has no such files."""
    files = sorted(folder.glob("*.safetensors"))
    total = 0
    for file in files:
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total if files else None


def _with_flops(cost: RunCost, run: Path, rounds: list[RoundRecord]) -> RunCost:
    config = find_config(run) or RunConfig()
    client = section(config, "client")
    prefers = config.get("task") in ("dpo", "kto")
    counted = [_of_clients(record, "num_tokens") for record in rounds]
    num_sequences = cost.num_local_steps * _sequences_per_step(client, prefers=prefers)
    if None not in counted:
        cost = replace(cost, num_tokens=int(sum(filter(None, counted))))
    elif isinstance(client.get("max_length"), int) and num_sequences:
        cost = replace(cost, num_tokens=num_sequences * client["max_length"], tokens_are_bound=True)
    if cost.num_tokens is None:
        return cost
    work = _work(config)
    shape = section(config, "machines").get("model_shape")
    if shape and num_sequences:
        # What is counted per token grows a little with the sequence; the mean length stands for all.
        length = max(1, round(cost.num_tokens / num_sequences))
        flops = token_flops(ModelShape.from_record(shape), work, length) * cost.num_tokens
        return replace(cost, flops=flops, flops_rule=f"matrix by matrix, in sequences of {length} tokens")
    return _by_rule(cost, run, config, work)


def _by_rule(cost: RunCost, run: Path, config: RunConfig, work: Work) -> RunCost:
    """The 6 N D rule, where the model's weights are at hand to be counted."""
    base = _base_folder(section(config, "model"))
    num_parameters = None if base is None else count_parameters(base)
    adapter_parameters = count_parameters(run / ADAPTER)
    if num_parameters is None or cost.num_tokens is None:
        return cost
    prefers = work.objective != "sft"
    reference = prefers and work.reads_reference
    flops = training_flops(
        num_parameters,
        cost.num_tokens,
        adapter_parameters=adapter_parameters,
        recompute=work.recompute,
        reference=reference,
    )
    rule = "6 N D" if adapter_parameters is None else "4 N D + 6 N_adapter D"
    rule += " + 2 (N + N_adapter) D recomputed" if work.recompute else ""
    rule += " + 2 N D of the reference" if reference else ""
    rule += "; the reference, computed once a client, is not counted" if prefers and not reference else ""
    return replace(cost, flops=flops, flops_rule=f"{rule}; N = {num_parameters}, N_adapter = {adapter_parameters}")


def _work(config: RunConfig) -> Work:
    """What a visit does with every row, by the settings."""
    client, task = section(config, "client"), config.get("task", "sft")
    # KTO's mismatched completions change from visit to visit, and with them what the reference says of them.
    mismatches = task == "kto" and client.get("loss_type") == "kto"
    return Work(
        objective=task,
        recompute=bool(client.get("gradient_checkpointing") or client.get("activation_checkpointing")),
        reads_reference=mismatches or not section(config, "federated").get("reference_cache"),
        reads_mismatch=mismatches,
    )


def _sequences_per_step(client: Mapping[str, Any], *, prefers: bool) -> int:
    """Sequences of one optimizer step; 0 where the settings do not tell."""
    rows = client.get("per_device_train_batch_size")
    if not isinstance(rows, int):
        return 0
    return rows * int(client.get("gradient_accumulation_steps") or 1) * (2 if prefers else 1)


def _base_folder(model: Mapping[str, Any]) -> Path | None:
    """The base model's folder where it is one here; nothing is fetched to count parameters."""
    name = model.get("name")
    if not isinstance(name, str) or not Path(name).is_dir():
        return None
    location = locate(name)
    return location.folder if location.kind == "model" else None


def _per_round(totals: list[int]) -> list[int]:
    """The ledger adds up; a round's own share is the step from the one before."""
    return [after - before for before, after in zip([0, *totals], totals, strict=False)]


def _of_clients(record: RoundRecord, name: str) -> float | None:
    """Sum over the clients of a round, None where one does not name it."""
    values: list[Any] = [client.get(name) for client in record["clients"]]
    return None if None in values else math.fsum(values)


def _largest(rounds: list[RoundRecord], name: str) -> int | None:
    values = [part.get(name) for record in rounds for part in (record, *record["clients"])]
    known: list[Any] = [value for value in values if value is not None]
    return int(max(known)) if known else None
