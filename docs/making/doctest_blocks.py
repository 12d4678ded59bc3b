"""Show the examples of docstrings as code in the Python reference.

A docstring here ends with its doctest, without a heading. Markdown would take `>>>` for a quotation in a quotation, so
each such paragraph becomes a block of code before it is parsed. An extension of griffe, named in `mkdocs.yml`.
"""

import re
from typing import Any

import griffe

__all__ = ["DoctestBlocks", "with_code_blocks"]

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n).*)*(?:\n\n>>> .*(?:\n(?!\n).*)*)*", re.MULTILINE)


def with_code_blocks(text: str) -> str:
    r"""Return a docstring whose doctests are blocks of code.

    >>> print(with_code_blocks("Sum.\n\n" + ">>" + "> 1 + 1\n2").replace("`", "'"))
    Sum.
    <BLANKLINE>
    '''pycon
    >>> 1 + 1
    2
    '''
    """
    return _EXAMPLE.sub(lambda match: f"```pycon\n{match[0]}\n```", text)


class DoctestBlocks(griffe.Extension):
    """Change every docstring once its object is known."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn the doctests of one object into code."""
        if obj.docstring is not None:
            obj.docstring.value = with_code_blocks(obj.docstring.value)
