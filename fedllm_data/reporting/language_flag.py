"""The flag of every command that writes a page: which language the page speaks. It imports no page."""

import argparse

from fedllm_data.wording.catalogue import LANGUAGES

__all__ = ["add_language"]


def add_language(parser: argparse.ArgumentParser) -> None:
    """Add `--language`.

    >>> parser = argparse.ArgumentParser()
    >>> add_language(parser)
    >>> parser.parse_args(["--language", "ja"]).language, parser.parse_args([]).language
    ('ja', None)
    """
    parser.add_argument(
        "--language",
        choices=list(LANGUAGES),
        help="language of the page; by default it carries all of them, and the reader's browser chooses",
    )
