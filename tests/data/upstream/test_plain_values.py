"""Values of typed files as text that stays the same."""

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pytest

from fedllm_data.upstream.plain_values import plain_value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Decimal("7"), "7"),
        (Decimal("7.00"), "7"),
        (Decimal("-0.0"), "0"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1200"), "1200"),
        (Decimal("0.10"), "0.1"),
        (Decimal("NaN"), "NaN"),
        (datetime.time(9, 30), "09:30:00"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (b"\xc3\xa9", "é"),
        (b"\x00\x01", "0001"),
        (b"", ""),
        (np.int16(3), 3),
        ([Decimal("1.0"), (b"a",)], ["1", ["a"]]),
        (True, True),
        (2.5, 2.5),
        (None, None),
    ],
)
def test_a_value_becomes_what_json_has(value, plain):
    assert plain_value(value) == plain
    assert type(plain_value(value)) is type(plain)
