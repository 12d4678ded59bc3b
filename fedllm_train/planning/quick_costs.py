"""The arithmetic that a reader repeats on the page: costs of a run in which all clients are alike.

The page's script (`plan_page.js.jinja`) has the same formulas, and a test compares both. Symbols: T rounds, S clients
a round, E steps; a visit of D bytes down, U up and E F operations takes l + 8 D / d + E F / f + l + 8 U / u seconds
(`fedllm_eval/machines/machine.py`), and so does a round, since all of its clients work side by side. Bytes of a visit
are those of the plan. Pure; imports the machines' formulas alone.
"""

from dataclasses import asdict, dataclass, fields

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.energy import LINE_ENERGY, device_kwh, line_kwh
from fedllm_eval.machines.machine import Machine, visit_seconds

__all__ = ["QuickCosts", "QuickInputs", "default_inputs", "line_rates", "quick_costs"]


@dataclass(frozen=True, kw_only=True)
class QuickInputs:
    """What the reader can change; units are those of a client table."""

    download_bytes: float
    """Bytes of one visit."""
    upload_bytes: float
    step_flops: float
    """Operations of one optimizer step."""
    num_rounds: float = 100
    cohort_size: float = 10
    local_steps: float = 10
    download_mbit: float = 100
    upload_mbit: float = 20
    latency_ms: float = 20
    tera_flops: float = 10
    """10^12 operations a second that a machine reaches in training."""
    watts: float = 200
    price_per_gb: float = 0.09
    """What the server pays for 10^9 bytes that it sends."""
    price_per_kwh: float = 0.3
    price_per_hour: float = 0.0
    """Price of one hour of a client's machine."""
    line: str = "fixed"
    """A key of `LINE_ENERGY`."""

    def __post_init__(self) -> None:
        """Refuse numbers from which no time follows.

        Raises:
            ConfigError: naming the number.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str):
                continue
            if not 0 <= value < float("inf") or (each.name.endswith(("_mbit", "_flops")) and value == 0):
                raise ConfigError(
                    f"{each.name} is {value}; give a number that is not negative, and no line of nothing"
                )


@dataclass(frozen=True, kw_only=True)
class QuickCosts:
    """What follows."""

    visit_seconds: float
    download_seconds: float
    compute_seconds: float
    upload_seconds: float
    hours: float
    """Hours that the run takes, and so does a client that takes part in every round."""
    rounds_a_day: float
    total_down: float
    total_up: float
    device_hours: float
    """Hours in training, of all clients together."""
    device_kwh: float
    line_kwh_low: float
    line_kwh_high: float
    money_low: float
    """Bytes that the server sends, electricity and hours of machines, at the prices given."""
    money_high: float


def quick_costs(given: QuickInputs) -> QuickCosts:
    """Return what a run costs in which all clients are alike.

    >>> costs = quick_costs(QuickInputs(download_bytes=1e6, upload_bytes=1e6, step_flops=1e12))
    >>> round(costs.visit_seconds, 3), round(costs.total_down / 1e9, 3)
    (1.52, 1.0)
    """
    machine = Machine(
        download_mbit=given.download_mbit,
        upload_mbit=given.upload_mbit,
        latency_ms=given.latency_ms,
        flops=given.tera_flops * 1e12,
    )
    seconds = visit_seconds(
        machine,
        download_bytes=given.download_bytes,  # type: ignore[arg-type]
        flops=given.local_steps * given.step_flops,
        upload_bytes=given.upload_bytes,  # type: ignore[arg-type]
        client_id="every client",
    )
    visits = given.num_rounds * given.cohort_size
    down, up = visits * given.download_bytes, visits * given.upload_bytes
    device_hours = visits * seconds.total / 3600
    device = device_kwh(visits * seconds.compute, given.watts)
    line = line_kwh(down + up, given.line)
    fixed = down / 1e9 * given.price_per_gb + device_hours * given.price_per_hour
    return QuickCosts(
        visit_seconds=seconds.total,
        download_seconds=seconds.download,
        compute_seconds=seconds.compute,
        upload_seconds=seconds.upload,
        hours=given.num_rounds * seconds.total / 3600,
        rounds_a_day=86400 / seconds.total if seconds.total else float("inf"),
        total_down=down,
        total_up=up,
        device_hours=device_hours,
        device_kwh=device,
        line_kwh_low=line.low,
        line_kwh_high=line.high,
        money_low=fixed + (device + line.low) * given.price_per_kwh,
        money_high=fixed + (device + line.high) * given.price_per_kwh,
    )


def line_rates() -> dict[str, tuple[float, float]]:
    """Return kilowatt-hours of 10^9 bytes, from and to, by the kind of line.

    >>> line_rates()["fixed"]
    (0.03, 0.06)
    """
    found = {kind: [each.kwh_per_gb for each in figures] for kind, figures in LINE_ENERGY.items()}
    return {kind: (min(values), max(values)) for kind, values in found.items()}


def default_inputs() -> dict[str, float | str]:
    """Return what the page begins with, beside what a candidate gives."""
    given = asdict(QuickInputs(download_bytes=0, upload_bytes=0, step_flops=1))
    return {
        name: value for name, value in given.items() if name not in ("download_bytes", "upload_bytes", "step_flops")
    }
