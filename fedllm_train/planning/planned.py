"""What a run would cost, as records: one of everything that a plan says of a candidate. Imports no torch.

Bytes, seconds and operations are the run's own formulas on shapes alone (`hollow_run.py`); energy and money are ranges
over published figures (`fedllm_eval/machines/`), and what is an estimate says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fedllm_data.wording.catalogue import marked

__all__ = [
    "ACCOUNTANTS",
    "WHY",
    "PlannedBytes",
    "PlannedMemory",
    "PlannedPartner",
    "PlannedPower",
    "PlannedPrivacy",
    "PlannedRun",
    "PlannedTime",
]


WHY = {
    "entropy": marked("entropy-coded messages are as long as their values make them"),
    "shift": marked("downloads grow with the rank of what was learned so far"),
    "secret": marked("cohorts are drawn from a secret of the run, so nobody knows them before"),
    "early": marked("the run may stop early"),
    "scaled": marked("the first rounds stand for all"),
}
"""Reason of an estimate -> in words."""

ACCOUNTANTS = {"pld": "PLD", "rdp": "RDP", "zcdp": "zCDP"}
"""Accountant of differential privacy -> what it is called."""


@dataclass(frozen=True, kw_only=True)
class PlannedBytes:
    """What travels."""

    down: int
    """In all rounds, server to clients."""
    up: int
    down_visit: float
    """Bytes down of one client's visit, on average."""
    up_visit: float
    down_round: float
    up_round: float
    down_bits: float | None
    """Bits for each value that a message stands for; None where nothing travels."""
    up_bits: float | None
    is_down_exact: bool = True
    """Whether the lengths of single downloads are certain, and so of uploads."""
    is_up_exact: bool = True
    why_estimate: Sequence[str] = ()
    """Why the ledger may say something else, in words of `WHY`; empty where it will say the same to the byte."""

    @property
    def is_exact(self) -> bool:
        """Whether a run's ledger will say the same."""
        return not self.why_estimate


@dataclass(frozen=True, kw_only=True)
class PlannedPartner:
    """What one client gives."""

    client_id: str
    num_visits: int
    """Visits that it is asked for."""
    num_bytes: int
    hours: float


@dataclass(frozen=True, kw_only=True)
class PlannedTime:
    """Hours on the simulated clock; synchronous or not, as the run's settings say."""

    total_hours: float
    median_round_seconds: float
    slowest_round_seconds: float
    download_seconds: float
    """Mean of a visit."""
    compute_seconds: float
    upload_seconds: float
    rounds_a_day: float
    num_lost: Mapping[str, int]
    """Visits that are lost, late or closed, by kind."""
    num_made: int
    """Server steps that are made."""
    partners: Sequence[PlannedPartner] = field(repr=False, default=())
    """All that are visited, those who give most hours first."""


@dataclass(frozen=True, kw_only=True)
class PlannedMemory:
    """What a client needs while it trains, by how the base is kept."""

    precision: str
    low_gb: float
    high_gb: float
    num_too_small: int | None
    """Clients whose memory is below the upper end; None where no memory is known."""


@dataclass(frozen=True, kw_only=True)
class PlannedPower:
    """Electricity and what the server pays, from the lowest published figure to the highest."""

    device_kwh: float | None
    """None where a machine's watts are not known."""
    line_kwh: tuple[float, float]
    line_kinds: Sequence[str]
    egress: tuple[float, float]
    """In US dollars, for what the server sends."""


@dataclass(frozen=True, kw_only=True)
class PlannedPrivacy:
    """The guarantee, and how its noise compares with what clients say."""

    epsilon: float | None
    delta: float
    noise_multiplier: float
    clip: float
    noise_in_clips: float
    """Norm of a round's noise on the mean, in multiples of the clip, which bounds that mean."""
    share_in_noise: float
    """How many times as long the noise is as one client's share of the mean can be."""
    by_accountant: Mapping[str, float | None] = field(default_factory=dict)
    """Accountant (`pld`, `rdp`, `zcdp`) -> epsilon; None where it does not know the mechanism."""
    claim: str = "pld"
    """The accountant whose epsilon stands above."""
    needed_cohort: int = 0
    """Clients in a round with which the noise would be as long as the clip."""
    unit: str = "client"
    """What epsilon is of: `client`, or `example`, one row of a client; then noise is that of a client's step."""
    people: str = ""
    """With unit example: epsilon of a person, or of a client with all of its rows, in words."""
    client_epsilon: float | None = None
    """With unit example: of a client with all of its rows."""
    noise_of_methods: Mapping[str, float] = field(default_factory=dict)
    """Method -> `noise_in_clips` with the values that it would train on the same modules."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One candidate."""

    strategy: str
    wire: str
    download_wire: str
    cohort_size: int
    refused: str | None = None
    """Why a run would not begin; then nothing else is known."""
    num_rounds: int = 0
    num_visits: int = 0
    steps_visit: float = 0.0
    num_trainable: int = 0
    num_sent_values: int = 0
    """Values of an adapter that a client sends in a round."""
    visit_flops: float = 0.0
    """Operations of a visit, on average."""
    total_flops: float = 0.0
    travel: PlannedBytes | None = None
    uploads: Mapping[str, float] = field(default_factory=dict)
    """Wire -> bytes of a visit's upload with it, other settings as they are."""
    time: PlannedTime | None = None
    """None where nothing is known of machines."""
    memory: Sequence[PlannedMemory] = ()
    power: PlannedPower | None = None
    privacy: PlannedPrivacy | None = None
    notes: Sequence[str] = ()

    def as_record(self) -> dict[str, Any]:
        """Return it as a JSON-ready mapping."""
        return asdict(self)
