"""What in a client repo names people: client ids by their form, and what patterns find in the texts.

An id says nothing of a person if it is a number or a mixture of letters and digits, as hashes and counters are. It
looks like a person if it holds an e-mail address, is a phone or IP number, a handle (@ann), or words of letters alone
with a capital or a dot between them ("Ann Miller", "ann.miller", "Müller, Jörg", "王小明"). In a script without
capitals several words are a name ("محمد علي"). One word, or several in lower case ("ann_miller"), is a name as often
as it is a place or a team; such ids are said to look like names where most of a repo's ids are of that kind.
Forms miss much and catch some that is harmless: this decides what is asked, not what is true.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.repo import FolderRepo, split_of_file

__all__ = ["is_own_data", "personal_ids", "personal_texts"]

_PUBLIC_UPSTREAM = re.compile(r"generated|https?://\S+|[\w][\w.-]*/[\w][\w.-]*")
_MOST_ROWS = 5_000

_EMAIL = re.compile(r"[^\s@]@[^\s@]|\w ?[(\[{]at[)\]}] ?\w", re.IGNORECASE)
_IP = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_HANDLE = re.compile(r"@\w[\w.-]+")
_PHONE = re.compile(r"\+?\(?[0-9](?:[ ./()-]*[0-9]){6,14}")
_DATE = re.compile(r"[0-9]{4}([-./])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-./])[0-9]{1,2}\2[0-9]{4}")
_NAME_WORD = r"[^\W\d_]+(?:['’-][^\W\d_]+)*\.?"
_NAME = re.compile(rf"{_NAME_WORD}(?:(?:[,،] ?| |\.|_|-|・){_NAME_WORD})+")
_HAN_OR_KANA_NAME = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,6}")
_ONE_WORD = re.compile(_NAME_WORD)


def is_own_data(facts: Mapping[str, Any]) -> bool:
    """Return whether a repo's rows came from somebody's own files, not from a public corpus.

    Args:
        facts: content of build.json; empty if there is none.

    >>> is_own_data({"upstream": "tickets.csv"}), is_own_data({"upstream": "org/corpus"}), is_own_data({})
    (True, False, True)
    """
    return _PUBLIC_UPSTREAM.fullmatch(str(facts.get("upstream") or "")) is None


def personal_ids(client_ids: Iterable[str]) -> dict[str, int]:
    """Return how many client ids look like people, by what they look like.

    >>> personal_ids(["ann@example.org", "+49 30 901820", "Ann Miller", "9f3a77c0", "1234567", "site-3"])
    {'e-mail addresses': 1, 'phone numbers': 1, 'names': 1}
    >>> personal_ids(["ann", "bob", "u17"]), personal_ids(["berlin", "u17", "u18"])
    ({'names': 2}, {})
    """
    found: Counter[str] = Counter()
    num_words = num_ids = 0
    for client_id in client_ids:
        num_ids += 1
        letters = _without_marks(client_id)
        if _EMAIL.search(client_id):
            found["e-mail addresses"] += 1
        elif _HANDLE.fullmatch(client_id):
            found["handles"] += 1
        elif _IP.fullmatch(client_id):
            found["IP addresses"] += 1
        elif _PHONE.fullmatch(client_id) and not client_id.isdigit() and not _DATE.fullmatch(client_id):
            found["phone numbers"] += 1
        elif _is_name(letters):
            found["names"] += 1
        elif _ONE_WORD.fullmatch(letters) or _NAME.fullmatch(letters):
            num_words += 1
    if num_words * 2 > num_ids:
        found["names"] += num_words
    return dict(found)


def personal_texts(repo: FolderRepo) -> tuple[dict[str, int], str]:
    """Return what patterns find in the texts of a repo's rows, and a sentence on how it was looked for.

    >>> from pathlib import Path
    >>> personal_texts(FolderRepo("none", Path("no-such-folder")))[0]
    {}
    """
    import pyarrow.parquet as pq

    from fedllm_data.pipeline.scrub import scrub

    words = {"EMAIL": "e-mail addresses in texts", "PHONE": "phone numbers in texts", "IP": "IP addresses in texts"}
    counts: Counter[str] = Counter()
    num_rows = 0
    try:
        for path in (path for path in repo.files() if split_of_file(path)):
            with repo.open(path) as file:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=500):
                    for row in batch.to_pylist()[: _MOST_ROWS - num_rows]:
                        num_rows += 1
                        for text in _texts(row):
                            counts.update(scrub(text)[1])
                    if num_rows >= _MOST_ROWS:
                        break
    except ConfigError as error:
        return {}, f"texts were not searched: {error}"
    counts_by_words = {what: counts[kind] for kind, what in words.items() if counts[kind]}
    return counts_by_words, f"texts were searched by patterns in {num_rows:,} rows; names are found by no pattern"


def _is_name(letters: str) -> bool:
    if _HAN_OR_KANA_NAME.fullmatch(letters):
        return True
    if not _NAME.fullmatch(letters):
        return False
    return any(mark in letters for mark in ".,،・") or any(
        part[:1].isupper() or part[:1].upper() == part[:1].lower() for part in re.split(r"[ _-]", letters)
    )


def _without_marks(client_id: str) -> str:
    """An id without vowel signs, accents and joiners that stand as characters of their own: they are no letters."""
    return "".join(char for char in client_id if unicodedata.category(char) not in ("Mn", "Mc", "Me", "Cf"))


def _texts(row: Mapping[str, Any]) -> Iterable[str]:
    for column in ("messages", "prompt", "chosen", "rejected"):
        for message in row.get(column) or ():
            content = message.get("content")
            if isinstance(content, str):
                yield content
