"""Named lines and devices: every number with its source and date, or the word "assumption".

A profile is a line and a device: `phone-4g`, or any two by name, `starlink+rtx-4090`. A device's speed is its peak
times the share of it that training reaches, stated apart, since makers publish peaks and runs reach less. Latencies
are pings, there and back, as the sources measure them: a message is asked for, or confirmed. A speed test measures
connections whose owner had a reason to measure them, so medians of speed tests are no census of lines. Imports the
standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.machines.machine import Machine

__all__ = ["ASSUMPTION", "DEVICES", "LINES", "PROFILES", "Part", "Profile", "Stated", "profile_of"]

ASSUMPTION = "assumption"
"""Stands for the date of a number that nobody measured."""


@dataclass(frozen=True)
class Stated:
    """Numbers of one source."""

    numbers: Mapping[str, float]
    """By the names of `Machine`'s fields; of a device also `peak_flops` and `utilisation`."""
    source: str
    date: str = ASSUMPTION
    """When it was measured or stated."""


@dataclass(frozen=True)
class Part:
    """A line or a device."""

    title: str
    stated: tuple[Stated, ...]

    @cached_property
    def numbers(self) -> dict[str, float]:
        """All numbers together."""
        return {name: value for each in self.stated for name, value in each.numbers.items()}


_NEOWIN = "Ookla Speedtest Global Index, world median, by Neowin"
_SATELLITE = "Ookla, median of the United States, by newspaceeconomy.ca"
_NO_SOURCE = "no published figure found"
_REACHED = "share of the peak that training reaches: .1 to .5 are reported; measure your own"
_UTILISATION = Stated({"utilisation": 0.3}, _REACHED)

LINES: dict[str, Part] = {
    "fixed": Part(
        "fixed line at home, world median",
        (Stated({"download_mbit": 97.61, "upload_mbit": 52.84, "latency_ms": 9.0}, _NEOWIN, "2025-01"),),
    ),
    "mobile": Part(
        "mobile line, world mean before 5G had spread",
        (
            Stated(
                {"download_mbit": 35.96, "upload_mbit": 11.22, "latency_ms": 40.0},
                "Ookla Speedtest Global Index, world mean, by my-financial-wealth.com",
                "2020-09",
            ),
        ),
    ),
    "mobile-2025": Part(
        "mobile line, world median",
        (
            Stated({"download_mbit": 91.24}, _NEOWIN + "; 61.52 two months before, by Digital 2025", "2025-01"),
            Stated({"upload_mbit": 11.22}, "world mean of 2020; no later world figure found"),
            Stated({"latency_ms": 28.0}, "Ookla, world median, by tele.net.in", "2022-11"),
        ),
    ),
    "5g": Part(
        "5G, world median",
        (
            Stated(
                {"download_mbit": 166.13, "upload_mbit": 21.08},
                "Ookla, Growing and Slowing: The State of 5G Worldwide in 2021",
                "2021-09",
            ),
            Stated({"latency_ms": 28.0}, "Ookla, world median of all mobile lines, by tele.net.in", "2022-11"),
        ),
    ),
    "starlink": Part(
        "satellite in a low orbit (Starlink, United States)",
        (
            Stated(
                {"download_mbit": 104.71, "upload_mbit": 14.84},
                "Ookla, median of the United States, by telecompetitor.com; 17.4 % of tests reached 100/20",
                "2025-03",
            ),
            Stated({"latency_ms": 45.0}, _SATELLITE, "2025-03"),
        ),
    ),
    "geostationary": Part(
        "geostationary satellite (HughesNet, United States)",
        (
            Stated(
                {"download_mbit": 19.73, "upload_mbit": 2.43},
                "Ookla, How Starlink's Satellite Internet Stacks Up; Viasat 18.13/3.38",
                "2021-06",
            ),
            Stated({"latency_ms": 683.0}, _SATELLITE, "2025-03"),
        ),
    ),
    "broadband-us": Part(
        "what the United States call broadband",
        (
            Stated({"download_mbit": 100.0, "upload_mbit": 20.0}, "FCC, benchmark of its 2024 report", "2024-03"),
            Stated({"latency_ms": 9.0}, "the world median of fixed lines"),
        ),
    ),
    "slow-3g": Part(
        "a slow line of the third generation",
        (
            Stated(
                {"download_mbit": 0.78, "upload_mbit": 0.33, "latency_ms": 200.0},
                "a throttling tool's preset, which nobody measured",
            ),
        ),
    ),
    "office": Part(
        "an office, clinic or works with a line of its own",
        (Stated({"download_mbit": 500.0, "upload_mbit": 500.0, "latency_ms": 10.0}, _NO_SOURCE),),
    ),
    "data-centre": Part(
        "a server in a data centre",
        (Stated({"download_mbit": 10000.0, "upload_mbit": 10000.0, "latency_ms": 5.0}, _NO_SOURCE),),
    ),
}

DEVICES: dict[str, Part] = {
    "phone": Part(
        "a good phone, on its processor cores",
        (
            Stated({"peak_flops": 1e11}, _NO_SOURCE),
            _UTILISATION,
            Stated({"memory_gb": 4.0, "watts": 5.0}, "what an app may use of 8 GB, and what a phone can shed as heat"),
        ),
    ),
    "laptop": Part(
        "a laptop without a graphics processor for computing",
        (
            Stated(
                {"peak_flops": 8 * 3.3e9 * 32, "watts": 28.0},
                "AMD Ryzen 7 7840U: 8 cores at 3.3 GHz, by io-tech.fi; 32 operations a clock in single precision",
                "2023-05",
            ),
            _UTILISATION,
            Stated({"memory_gb": 16.0}, _NO_SOURCE),
        ),
    ),
    "jetson-orin-nano": Part(
        "a small computer for factories and vehicles (NVIDIA Jetson Orin Nano Super, 8 GB)",
        (
            Stated(
                {"peak_flops": 67e12 / 4, "memory_gb": 8.0, "watts": 25.0},
                "NVIDIA, datasheet: 67 sparse TOPS in INT8, so a quarter in dense half precision",
                "2024-12",
            ),
            _UTILISATION,
        ),
    ),
    "rtx-4090": Part(
        "a workstation with one NVIDIA RTX 4090",
        (
            Stated(
                {"peak_flops": 165.15e12, "memory_gb": 24.0, "watts": 450.0},
                "NVIDIA, dense BF16 with single-precision sums, by waredb.com",
                "2022-10",
            ),
            _UTILISATION,
        ),
    ),
    "a100": Part(
        "a server with one NVIDIA A100 of 80 GB",
        (
            Stated(
                {"peak_flops": 312e12, "memory_gb": 80.0, "watts": 400.0},
                "NVIDIA A100 datasheet, dense BF16, by glennklockwood.com",
                "2020-11",
            ),
            Stated({"utilisation": 0.4}, _REACHED),
        ),
    ),
}

PROFILES: dict[str, tuple[str, str]] = {
    "phone-4g": ("mobile", "phone"),
    "phone-5g": ("5g", "phone"),
    "phone-wifi": ("fixed", "phone"),
    "laptop-home": ("fixed", "laptop"),
    "office-workstation": ("office", "rtx-4090"),
    "clinic": ("office", "rtx-4090"),
    "bank-server": ("data-centre", "a100"),
    "factory-satellite": ("geostationary", "jetson-orin-nano"),
    "site-starlink": ("starlink", "jetson-orin-nano"),
}
"""Short names of a line and a device."""


@dataclass(frozen=True)
class Profile:
    """A line and a device."""

    name: str
    line: str
    """A key of `LINES`."""
    device: str
    """A key of `DEVICES`."""

    @property
    def title(self) -> str:
        """Both in words."""
        return f"{DEVICES[self.device].title}; {LINES[self.line].title}"

    @property
    def stated(self) -> list[tuple[str, Stated]]:
        """(line's or device's name, numbers with source and date)."""
        return [(name, each) for name, part in self._parts for each in part.stated]

    @property
    def machine(self) -> Machine:
        """The machine that it describes."""
        numbers: dict[str, Any] = {name: value for _, part in self._parts for name, value in part.numbers.items()}
        flops = numbers.pop("peak_flops") * numbers.pop("utilisation")
        return Machine(**numbers, flops=flops, profile=self.name)

    @property
    def _parts(self) -> tuple[tuple[str, Part], tuple[str, Part]]:
        return (self.line, LINES[self.line]), (self.device, DEVICES[self.device])


def profile_of(name: str) -> Profile:
    """Return a profile by its short name, or by `LINE+DEVICE`.

    Raises:
        ConfigError: if there is none of that name.

    >>> profile_of("starlink+rtx-4090").machine.upload_mbit, profile_of("phone-4g").device
    (14.84, 'phone')
    """
    if name in PROFILES:
        return Profile(name, *PROFILES[name])
    line, plus, device = name.partition("+")
    if not plus:
        raise ConfigError(
            f"no profile is called {name!r}; {did_you_mean(name, PROFILES)}choose from {', '.join(PROFILES)}, or join "
            "a line and a device as in starlink+rtx-4090; fedllm-train machines lists them"
        )
    for word, what, known in ((line, "line", LINES), (device, "device", DEVICES)):
        if word not in known:
            raise ConfigError(
                f"the profile {name!r} names a {what} {word!r} that there is not; {did_you_mean(word, known)}choose "
                f"from {', '.join(known)}"
            )
    return Profile(name, line, device)
