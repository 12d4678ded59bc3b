"""Profiles: every number has a source and a date, or says that it is an assumption."""

import re

import pytest

from fedllm_eval.machines.profiles import ASSUMPTION, DEVICES, LINES, PROFILES, profile_of

PARTS = [*LINES.items(), *DEVICES.items()]


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[name for name, _ in PARTS])
def test_every_number_has_a_source_and_a_date_or_is_an_assumption(name, part):
    needed = {"download_mbit", "upload_mbit", "latency_ms"} if name in LINES else {"peak_flops", "utilisation"}
    assert needed <= set(part.numbers)
    assert sum(len(each.numbers) for each in part.stated) == len(part.numbers)  # no number from two sources
    for each in part.stated:
        assert each.source
        assert each.date == ASSUMPTION or re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", each.date), each


def test_utilisation_is_nowhere_more_than_an_assumption():
    for part in DEVICES.values():
        assert [each.date for each in part.stated if "utilisation" in each.numbers] == [ASSUMPTION]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_a_machine(name):
    profile = profile_of(name)
    machine = profile.machine
    device = DEVICES[profile.device].numbers
    assert machine.flops == device["peak_flops"] * device["utilisation"]
    assert machine.download_mbit == LINES[profile.line].numbers["download_mbit"]
    assert machine.profile == name
    assert profile_of(f"{profile.line}+{profile.device}").machine.watts == machine.watts
