r"""Texts from outside (judges, question files, answers of other programs) that any file, page or table can hold.

JSON may escape half of a surrogate pair: "\ud83d" is legal there, becomes a Python string, and then no UTF-8 file,
Parquet table or tokenizer takes it. Such halves become U+FFFD where a text comes in (`whole`). What is kept all the
same comes back from disk as it was (`json_text`, `yaml_text`), and has a digest (`text_bytes`).
"""

import json
import re
from typing import Any

__all__ = ["json_lines", "json_text", "text_bytes", "whole", "yaml_text"]

_BREAKS = re.compile("[\x85\u2028\u2029]")
_HALVES = re.compile("[\ud800-\udfff]")


def whole(value: Any) -> Any:
    r"""Return a value of JSON with U+FFFD for every lone surrogate in its texts, names of fields included.

    >>> whole({"text": "a\ud83d!", "counts": [1, "\U0001f600"]})
    {'text': 'a�!', 'counts': [1, '😀']}
    """
    if isinstance(value, str):
        return _HALVES.sub("\ufffd", value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(name): whole(item) for name, item in value.items()}
    return value


def json_text(value: Any, **options: Any) -> str:
    r"""Return a value as JSON that UTF-8 can hold and that reads back equal: readable, or escaped where it must be.

    Args:
        value: what JSON can hold.
        options: further ones of `json.dumps`, except `ensure_ascii`.

    >>> json_text({"text": "é"}), json.loads(json_text({"text": "\ud83d"})) == {"text": "\ud83d"}
    ('{"text": "é"}', True)
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return json.dumps(value, **options) if _HALVES.search(text) else text


def yaml_text(value: Any) -> str:
    r"""Return a value as YAML that reads back equal: readable, or escaped where YAML sees the end of a line.

    PyYAML writes U+0085, U+2028 and U+2029 as they are, and reads them as spaces.

    >>> yaml_text({"name": "é"}), yaml_text({"name": "a\x85b"})
    ('name: é\n', 'name: "a\\Nb"\n')
    """
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return yaml.safe_dump(value, sort_keys=False) if _BREAKS.search(text) else text


def json_lines(text: str) -> list[str]:
    r"""Return the lines of a file of JSON lines, those without content left out.

    Not `splitlines()`: it also cuts at U+2028 or U+0085, which may stand unescaped inside a JSON string.

    >>> json_lines('{"a": "x\u2028y"}\n')
    ['{"a": "x\u2028y"}']
    """
    return [line for line in text.split("\n") if line.strip()]


def text_bytes(text: str) -> bytes:
    r"""Return UTF-8 for a digest; a lone surrogate has bytes of its own, so that two texts never share a digest.

    >>> text_bytes("é") == "é".encode(), text_bytes("\ud83d") != text_bytes("\ud83e")
    (True, True)
    """
    return text.encode("utf-8", "surrogatepass")
