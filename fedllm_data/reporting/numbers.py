"""Numbers as a reader wants them: three digits, or a mean with its spread."""

import math

from fedllm_data.wording.catalogue import words

__all__ = ["format_chance", "format_number"]


def format_number(value: float | None) -> str:
    """Return a number with three significant digits, or an en dash for none.

    >>> [format_number(value) for value in (0.45805, 1234.5, -1e-6, None)]
    ['0.458', '1,234', '-1e-06', '–']
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_chance(mean: float | None, std: float | None) -> str:
    """Return "mean ± standard deviation", the latter with two significant digits and the former with as many decimals.

    >>> format_chance(0.09912, 0.009012), format_chance(990.13, 35.2), format_chance(None, None)
    ('0.0991 ± 0.0090', '990 ± 35', '–')
    >>> format_chance(1.675, None)
    '1.68 on average'
    """
    if mean is None:
        return "–"
    if std is None:
        return words("{number} on average", number=format_number(mean))
    if std <= 1e-12 * max(1.0, abs(mean)):
        return f"{format_number(mean)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(std)))
    return f"{round(mean, decimals) + 0.0:,.{decimals}f} ± {std:,.{decimals}f}"
