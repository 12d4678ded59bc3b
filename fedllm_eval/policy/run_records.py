"""The records of a run folder: the keys of config.yaml, rounds.jsonl and the JSON files beside them, declared once.

`fedllm_train` writes them, and `policy/run_folder.py` says where they lie and reads them. A key that older versions
did not write is marked `NotRequired`, or its record is `total=False`. Imports no torch.
"""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "CheckpointRecord",
    "DataRecord",
    "LedgerRecord",
    "LeftOutClient",
    "ModelRecord",
    "Monitor",
    "PersonalClient",
    "PersonalClients",
    "RoundRecord",
    "RunConfig",
    "SecureSumRound",
    "SpentPrivacy",
    "UnrenderedRecord",
    "Visit",
    "WireRecord",
    "WireRound",
]


class ModelRecord(TypedDict):
    """The base model: section `model`."""

    name: str | None
    """Folder or Hub id; None for a model made in memory."""
    revision: str | None
    weights: NotRequired[str | None]
    """Digest of the weights (`policy/base_identity.py`)."""


class DataRecord(TypedDict):
    """The training data: section `data`, and the items of `earlier`."""

    name: str
    revision: str | None
    """Commit, or the digest of a folder's Parquet files; None for clients made in memory."""
    split: str
    licence: NotRequired[str | None]
    num_clients: NotRequired[int]
    client_ids: NotRequired[Mapping[str, Any] | None]
    """How client ids were made (`fedllm_data/id_facts.py`)."""
    only_client: NotRequired[str | None]


class RunConfig(TypedDict, total=False):
    """`config.yaml`; what older versions did not write may be missing."""

    format: int
    task: Literal["sft", "dpo", "kto"]
    model: ModelRecord
    tokenizer: dict[str, str]
    """Digests of the tokenizer and of its chat template."""
    start_adapter: str | None
    """Digest of the adapter that the run started from; None where it started from the base."""
    data: DataRecord
    federated: dict[str, Any]
    """The federation's settings, flat, with today's flag names."""
    client: dict[str, Any]
    """TRL's settings for a visit."""
    peft: dict[str, Any] | None
    """PEFT's settings; None where all weights are trained."""
    versions: dict[str, str]
    privacy: dict[str, Any]
    """The guarantee with its assumptions, where there is one."""
    earlier: dict[str, Any] | None
    """What the start was trained on: `data` (a list of `DataRecord`) and `is_complete`."""
    machines: dict[str, Any]
    """With a simulated clock: `sources` of the numbers, and the `model_shape` that operations are counted of."""
    template_date: str
    """The day that a chat template which writes the date took for today."""


class Visit(TypedDict):
    """One client in a round's `clients`; further keys are the metrics of its training."""

    client_id: str
    num_rows: NotRequired[int]
    num_dropped_rows: NotRequired[int]
    num_unrendered_rows: NotRequired[int]
    num_steps: NotRequired[int]
    seconds: NotRequired[float]
    train_loss: NotRequired[float]
    num_tokens: NotRequired[int]
    peak_memory_bytes: NotRequired[int]
    energy_joules: NotRequired[float]
    download_bytes: NotRequired[int]
    """Length of the message that the client was sent; 0 where nothing travels, as for `upload_bytes`."""
    upload_bytes: NotRequired[int]
    bits_per_value: NotRequired[float]
    """Of the client's upload, header included, over all values that it stands for."""
    relative_error: NotRequired[float | None]
    """How far what the server unpacked was off, as a share of what was packed; missing in a private run."""
    download_seconds: NotRequired[float]
    """Simulated, as all that follows: with a client table."""
    compute_seconds: NotRequired[float]
    upload_seconds: NotRequired[float]
    arrived: NotRequired[float]
    """Seconds of the run's clock."""
    staleness: NotRequired[int]
    """How many server steps lie between the state it was sent and the step its update is used in."""


class LeftOutClient(TypedDict):
    """One client in a round's `left_out`."""

    client_id: str
    reason: NotRequired[str]
    """Missing in a published run, as all that follows."""
    kind: NotRequired[Literal["lost", "late", "closed", "refused"]]
    num_steps: NotRequired[int]
    """What it had done."""
    download_bytes: NotRequired[int]
    upload_bytes: NotRequired[int]
    """What it had sent."""
    download_seconds: NotRequired[float]
    compute_seconds: NotRequired[float]
    upload_seconds: NotRequired[float]
    arrived: NotRequired[float]
    """When it was given up, in seconds of the run's clock."""
    staleness: NotRequired[int]


class LedgerRecord(TypedDict):
    """What the run had cost after a round, from round 0 on."""

    download_bytes: int
    upload_bytes: int
    num_local_steps: int
    client_seconds: float


class SpentPrivacy(TypedDict):
    """How much of the guarantee was spent after a round."""

    unit: str
    epsilon: float | None
    delta: float
    clip: NotRequired[float]
    """Of the round, where it adapts: calculated from noisy counts, so it is published."""
    num_clipped: NotRequired[int]
    """Counts clients without noise, so it is not published."""


class WireRound(TypedDict):
    """How what travelled in a round was packed: means over its visits; None where nothing is known."""

    bits_per_value: float | None
    """Of uploads."""
    relative_error: float | None
    """||decoded - true|| / ||true|| of what was packed; 0 where values travel whole. Not known in a private run."""
    download_bits_per_value: float | None
    download_relative_error: float | None


class Monitor(TypedDict):
    """What early stopping and the keeping of the best adapter remember."""

    best_round: int | None
    best_value: float | None
    num_no_better: int
    stop: bool


class SecureSumRound(TypedDict):
    """A round's secure sum."""

    num_summed: int
    """Clients whose updates are in it."""
    reason: str | None
    """Why there is none; None where there is one."""
    bits: int
    fraction_bits: int
    exchange_download_bytes: int
    """Of the exchanges beside broadcast and updates."""
    exchange_upload_bytes: int
    num_clipped: NotRequired[int]
    """Clients with a value that was clipped; not told where noise is shared, or there is no sum."""


class RoundRecord(TypedDict):
    """One line of `rounds.jsonl`."""

    round_index: int
    clients: list[Visit]
    left_out: NotRequired[list[LeftOutClient]]
    ledger: LedgerRecord
    seconds: float
    learning_rate: NotRequired[float]
    train_loss: NotRequired[float | None]
    update_norm: NotRequired[float]
    aggregation_error: NotRequired[float | None]
    adapter_sha256: NotRequired[str]
    clock_seconds: NotRequired[float]
    """Simulated seconds since the run's start when the server step was made."""
    num_under_way: NotRequired[int]
    """With a simulated clock: clients that had been asked by then and had not replied."""
    server_step: NotRequired[bool]
    """Whether there were enough clients for one."""
    wire: NotRequired[WireRound]
    privacy: NotRequired[SpentPrivacy]
    secure_sum: NotRequired[SecureSumRound]
    eval: NotRequired[dict[str, Any]]
    """`split`, and each score's mean, interval and counts."""
    eval_score: NotRequired[str]
    eval_seconds: NotRequired[float]
    monitor: NotRequired[Monitor]


class WireRecord(TypedDict):
    """What the server's end of the wire remembers, beside the tensors in `wire.safetensors`."""

    chain_start: int
    """The step before the oldest change of a chain of downloads."""
    versions: dict[str, int]
    """Client -> the step of the newest broadcast that it keeps, for those that changes can be sent to."""
    under_way: dict[str, list[int | None]]
    """Client that has not replied -> the step it was asked for, and the version that its message follows, if any."""
    weights: dict[str, float]
    """With EF21: client -> its weight in the mean."""


class CheckpointRecord(TypedDict):
    """`state.json` of a checkpoint: what the run goes on from, beside the tensors."""

    next_round: int
    ledger: LedgerRecord
    monitor: Monitor | dict[str, Any]
    """Empty before the first score."""
    refused: dict[str, int]
    """Client id -> the step of its first update that was refused since one was accepted."""
    wire: NotRequired[WireRecord]
    clock: NotRequired[float]
    """Where the simulated clock stood, in seconds."""
    privacy: NotRequired[dict[str, Any]]
    """What the server of a private run remembers: the clip that is next, who came when."""
    under_way: NotRequired[list[dict[str, Any]]]
    """Who was asked and had not replied (`client_id`, `step`, `asked`, `num_steps`)."""
    run_key: str
    """Names this start of the run, and the folder below `client_memory/`."""
    record: dict[str, Any]
    """The round's line of `rounds.jsonl`."""


class PersonalClient(TypedDict, total=False):
    """One client in `personal/clients.json`: where its adapter lies, or why it has none."""

    folder: str
    """Below `personal/`."""
    adapter_sha256: str
    """In the place of a folder, where the adapter stayed with the client."""
    num_steps: int
    left_out: str
    """The reason."""


PersonalClients = dict[str, PersonalClient]


class UnrenderedRecord(TypedDict):
    """`unrendered_rows.json`."""

    num_rows: int
    num_unrendered_rows: int
    reasons: dict[str, int]
    clients: dict[str, dict[str, int]]
