"""Energy, carbon and money: hand sums, sources, and mistakes."""

import re

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.energy import LINE_ENERGY, LINE_KINDS, carbon_kg, device_kwh, line_kwh
from fedllm_eval.machines.money import EGRESS, egress_money, price, split_bytes_per_step
from fedllm_eval.machines.profiles import LINES


def test_every_figure_has_a_source_and_a_year():
    for figures in LINE_ENERGY.values():
        assert all(
            each.source and re.fullmatch(r"20\d\d|unknown", each.year) and each.kwh_per_gb > 0 for each in figures
        )
    for name, each in EGRESS.items():
        assert each.source
        assert re.fullmatch(r"20\d\d" if name != "own" else "assumption", each.date)


def test_lines_of_profiles_have_a_kind_unless_they_are_satellites():
    assert set(LINES) - set(LINE_KINDS) == {"starlink", "geostationary"}
    assert set(LINE_KINDS.values()) <= set(LINE_ENERGY)


def test_sums_by_hand():
    assert device_kwh(3600, 250) == 0.25
    assert line_kwh(1e9, "fixed").low == 0.03
    assert line_kwh(1e9, "fixed").high == 0.06
    assert line_kwh(0, "5g").high == 0
    assert carbon_kg(1, 481) == pytest.approx(0.481)
    assert price(hours=2, per_hour=3) == 6
    # Fed-Aya's 26.8 GB cost about 2.4 dollars at AWS's price.
    assert 26.8 * EGRESS["aws"].per_gb == pytest.approx(2.4, abs=0.02)
    assert egress_money(26.8e9).low < 2.4 < egress_money(26.8e9).high


def test_split_learning_of_seven_billion_weights():
    step = {"batch_size": 16, "sequence_length": 512, "hidden_size": 4096}
    assert split_bytes_per_step(**step) == pytest.approx(268e6, rel=0.002)
    assert split_bytes_per_step(**step, labels_leave=True) == pytest.approx(134e6, rel=0.002)
    # LoRA on queries and values, rank 16, single precision: 32 layers x 2 x 2 x 16 x 4096 x 4 bytes a visit.
    assert 32 * 2 * 2 * 16 * 4096 * 4 == pytest.approx(33.6e6, rel=0.002)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: device_kwh(-1, 5), "-1 seconds at 5 watts"),
        (lambda: line_kwh(1, "wimax"), "no kind of line is called 'wimax'; choose from fixed"),
        (lambda: line_kwh(1, "fixd"), "did you mean fixed"),
        (lambda: line_kwh(-1, "5g"), "-1 bytes"),
        (lambda: carbon_kg(1, float("nan")), "nan g a kWh"),
        (lambda: price(hours=1, per_hour=-1), "price of hours: -1"),
        (lambda: egress_money(float("inf")), "downloaded bytes: inf"),
        (lambda: split_bytes_per_step(batch_size=0, sequence_length=1, hidden_size=1), "give positive numbers"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ConfigError, match=says):
        call()
