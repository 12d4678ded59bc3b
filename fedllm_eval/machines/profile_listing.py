"""The profiles as `fedllm-train machines` prints them, as JSON, and as the tables of `docs/machines.md`.

Every number stands beside its source and date. `python -m fedllm_eval.machines.profile_listing` writes the tables of
the guide, which a test keeps current. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedllm_data.markdown_table import markdown_table
from fedllm_eval.machines.energy import LINE_ENERGY
from fedllm_eval.machines.money import EGRESS
from fedllm_eval.machines.profiles import DEVICES, LINES, PROFILES, Part, profile_of

__all__ = [
    "MACHINES_PAGE",
    "machine_lines",
    "machine_record",
    "machine_records",
    "machine_tables",
    "profile_lines",
    "with_tables",
]

MACHINES_PAGE = "docs/machines.md"
"""Below the repository's root."""
_BEGIN = "<!-- tables: python -m fedllm_eval.machines.profile_listing -->\n"
_END = "<!-- end of tables -->"

_UNITS = {
    "download_mbit": ("down", "Mbit/s", 1.0),
    "upload_mbit": ("up", "Mbit/s", 1.0),
    "latency_ms": ("latency", "ms", 1.0),
    "peak_flops": ("peak", "TFLOP/s", 1e12),
    "utilisation": ("of the peak reached", "", 1.0),
    "memory_gb": ("memory", "GB", 1.0),
    "watts": ("draws", "W", 1.0),
}


def machine_lines() -> list[str]:
    """Return all profiles, lines and devices, one a line, with how to use them.

    >>> machine_lines()[0]
    'Profiles: a line and a device'
    """
    found = ["Profiles: a line and a device"]
    found += [f"  {name:<20}{line} + {device}" for name, (line, device) in PROFILES.items()]
    for title, parts in (("Lines", LINES), ("Devices", DEVICES)):
        found += ["", title]
        for name, part in parts.items():
            assumed = [_word(key) for each in part.stated if each.date == "assumption" for key in each.numbers]
            found.append(f"  {name:<20}{_numbers(part.numbers)}")
            found.append(f"  {'':<20}{part.title}" + (f"; assumed: {', '.join(assumed)}" if assumed else ""))
    return [
        *found,
        "",
        "Any line and any device make a profile: --client-table profile:starlink+rtx-4090. fedllm-train machines NAME "
        "tells the source and date of every number; --json has them all, and what energy and money rest on.",
    ]


def profile_lines(name: str) -> list[str]:
    """Return all there is to know of one profile, line or device.

    Raises:
        ConfigError: if there is none of that name.

    >>> profile_lines("starlink")[0]
    'starlink: satellite in a low orbit (Starlink, United States)'
    """
    stated = _stated(name)
    title = LINES[name].title if name in LINES else DEVICES[name].title if name in DEVICES else profile_of(name).title
    found = [f"{name}: {title}"]
    for part, each in stated:
        found.append(f"  {part}: {_numbers(each.numbers)}")
        found.append(f"      {each.source} ({each.date})")
    if name not in LINES and name not in DEVICES:
        machine = profile_of(name).machine
        assert machine.flops is not None
        found.append(f"  in training {machine.flops / 1e12:g} TFLOP/s: its peak times the share that is reached")
    return found


def machine_records() -> dict[str, Any]:
    """Return everything as JSON-ready records: profiles, lines, devices, energy of lines, prices of egress.

    >>> machine_records()["profiles"]["phone-4g"]
    {'line': 'mobile', 'device': 'phone'}
    """
    return {
        "profiles": {name: {"line": line, "device": device} for name, (line, device) in PROFILES.items()},
        "lines": {name: _part(part) for name, part in LINES.items()},
        "devices": {name: _part(part) for name, part in DEVICES.items()},
        "line_energy": {kind: [asdict(each) for each in figures] for kind, figures in LINE_ENERGY.items()},
        "egress": {name: asdict(each) for name, each in EGRESS.items()},
    }


def machine_record(name: str) -> dict[str, Any]:
    """Return one profile, line or device as a JSON-ready record.

    Raises:
        ConfigError: if there is none of that name.

    >>> machine_record("phone-4g")["machine"]["upload_mbit"]
    11.22
    """
    stated = [{"part": part, **_source(each)} for part, each in _stated(name)]
    if name in LINES or name in DEVICES:
        return {"name": name, "stated": stated}
    return {"name": name, "machine": asdict(profile_of(name).machine), "stated": stated}


def machine_tables() -> str:
    """Return the Markdown tables of the guide: lines, devices, profiles, energy and egress.

    >>> machine_tables().splitlines()[0]
    '### Lines'
    """
    found = []
    for title, parts in (("Lines", LINES), ("Devices", DEVICES)):
        rows = [
            [f"`{name}`" if index == 0 else "", part.title if index == 0 else "", *_cells(each)]
            for name, part in parts.items()
            for index, each in enumerate(part.stated)
        ]
        found += [f"### {title}", "", markdown_table(["name", "what", "numbers", "source", "date"], rows), ""]
    rows = [[f"`{name}`", f"`{line}`", f"`{device}`"] for name, (line, device) in PROFILES.items()]
    found += ["### Profiles", "", markdown_table(["name", "line", "device"], rows), ""]
    rows = [
        [f"`{kind}`" if index == 0 else "", f"{each.kwh_per_gb:g}", each.source, each.year]
        for kind, figures in LINE_ENERGY.items()
        for index, each in enumerate(figures)
    ]
    found += ["### Electricity of a gigabyte", "", markdown_table(["line", "kWh", "source", "year"], rows), ""]
    rows = [[f"`{name}`", f"{each.per_gb:g}", each.source, each.date] for name, each in EGRESS.items()]
    found += [
        "### Price of a gigabyte that leaves the server",
        "",
        markdown_table(["where", "US$", "source", "date"], rows),
    ]
    return "\n".join(found)


def with_tables(page: str) -> str:
    r"""Return the guide with its tables written again.

    >>> print(with_tables(_BEGIN + "old\n" + _END).splitlines()[2])
    ### Lines
    """
    before, begin, rest = page.partition(_BEGIN)
    return before + begin + "\n" + machine_tables() + "\n\n" + _END + rest.partition(_END)[2]


def _cells(each: Any) -> list[str]:
    return [_numbers(each.numbers), each.source, each.date]


def _stated(name: str) -> list[tuple[str, Any]]:
    for parts in (LINES, DEVICES):
        if name in parts:
            return [(name, each) for each in parts[name].stated]
    return list(profile_of(name).stated)


def _part(part: Part) -> dict[str, Any]:
    return {"title": part.title, "stated": [_source(each) for each in part.stated]}


def _source(each: Any) -> dict[str, Any]:
    return {"numbers": dict(each.numbers), "source": each.source, "date": each.date}


def _numbers(numbers: Mapping[str, float]) -> str:
    return ", ".join(
        f"{_word(name)} {value / _UNITS[name][2]:.6g} {_UNITS[name][1]}".strip() for name, value in numbers.items()
    )


def _word(name: str) -> str:
    return _UNITS[name][0]


if __name__ == "__main__":
    guide = Path(__file__).parents[2] / MACHINES_PAGE
    guide.write_text(with_tables(guide.read_text(encoding="utf-8")), encoding="utf-8")
