"""The flags of `compare` and `decide` for what no run knows: lines, devices and prices. They import no numbers."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.errors import ConfigError

if TYPE_CHECKING:
    from fedllm_eval.deciding.stated_lines import StatedPrices

__all__ = ["add_cost_questions", "add_stated_prices", "check_stated", "stated_prices"]

_NUMBERS = ("download_mbit", "upload_mbit", "watts", "price_per_gb", "price_per_hour", "price_per_kwh")


def add_stated_prices(costs: Any) -> None:
    """Add the flags for lines, devices and prices to a parser or a group of it."""
    costs.add_argument("--download-mbit", type=float, metavar="X", help="every partner's line in Mbit/s")
    costs.add_argument("--upload-mbit", type=float, metavar="X", help="the same the other way")
    costs.add_argument("--watts", type=float, metavar="X", help="what a partner's device draws while it trains")
    costs.add_argument("--line", action="append", default=[], metavar="PARTNER=DOWN/UP", help="one partner's own line")
    costs.add_argument(
        "--lines", type=Path, metavar="FILE.csv", help="the same of many: client_id, download_mbit, upload_mbit, watts"
    )
    costs.add_argument("--price-per-gb", type=float, metavar="X", help="of one GB sent, either way")
    costs.add_argument("--price-per-hour", type=float, metavar="X", help="of one hour of a device in training")
    costs.add_argument("--price-per-kwh", type=float, metavar="X", help="of one kilowatt-hour")
    costs.add_argument("--currency", default="", metavar="NAME", help="of the prices, such as EUR")


def add_cost_questions(compare: argparse.ArgumentParser) -> None:
    """Add what `compare` asks about costs: budgets, targets, and the flags for lines and prices."""
    asked = compare.add_argument_group("what it costs")
    asked.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="COST=X,...",
        help="best score within all of these: bytes=20MB,hours=2,money=5,epsilon=8, or some of them; may be repeated",
    )
    asked.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="SCORE=X",
        help="what had been spent when a method first reached a score on held-out rows; may be repeated",
    )
    add_stated_prices(asked)


def check_stated(arguments: argparse.Namespace) -> None:
    """Refuse lines and prices that make no sense, before anything is read.

    Raises:
        ConfigError: naming the flag.

    >>> check_stated(argparse.Namespace(**dict.fromkeys(_NUMBERS) | {"watts": -1.0}))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: --watts is -1.0; give a positive number
    """
    for name in _NUMBERS:
        value = getattr(arguments, name)
        if value is not None and not (math.isfinite(value) and (value > 0 or (value == 0 and "price" in name))):
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; give a positive number")
    if (arguments.download_mbit is None) != (arguments.upload_mbit is None):
        raise ConfigError("--download-mbit and --upload-mbit belong together; give both or neither")


def stated_prices(arguments: argparse.Namespace) -> "StatedPrices":
    """Return the lines and prices of the flags.

    Raises:
        ConfigError: if a line or the file of lines cannot be used.
    """
    from fedllm_eval.deciding.stated_lines import Line, StatedPrices, parse_lines, read_line_table

    table = {} if arguments.lines is None else read_line_table(arguments.lines)
    return StatedPrices(
        default=Line(arguments.download_mbit, arguments.upload_mbit, arguments.watts),
        lines=table | parse_lines(arguments.line),
        per_gb=arguments.price_per_gb,
        per_hour=arguments.price_per_hour,
        per_kwh=arguments.price_per_kwh,
        currency=arguments.currency,
    )
