"""Values of typed files (Parquet, Arrow, workbooks) as JSON has them: dates, decimals and bytes become stable text.

So an id stays the same whichever format the file has: a date is `2024-01-31`, a point in time ISO 8601, a decimal its
digits without trailing zeros (7.00 is 7, as a whole float is), bytes the text that they spell in UTF-8, or else
hexadecimal digits, and a UUID its usual form.
"""

import datetime
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

__all__ = ["plain_value"]


def plain_value(value: Any) -> Any:
    """Return a value that JSON could hold; texts, numbers, truth values and null stay as they are.

    >>> plain_value(datetime.date(2024, 1, 31)), plain_value(Decimal("7.50")), plain_value(b"ann")
    ('2024-01-31', '7.5', 'ann')
    >>> plain_value({"id": bytes([255, 0])})
    {'id': 'ff00'}
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(plain_value(name)): plain_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return str(value)
    if isinstance(value, Decimal):
        return _digits(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of(bytes(value))
    if isinstance(value, uuid.UUID):
        return str(value)
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    return str(value)


def _digits(value: Decimal) -> str:
    if not value.is_finite():
        return str(value)
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _text_of(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if text and all(char.isprintable() or char in "\t\r\n" for char in text) else value.hex()
