"""Sources and folders for the tests of `fedllm_data`."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fedllm_data.schema import Task
from fedllm_data.source import Rejected, Source, SourceRow

Row = dict[str, Any]


@pytest.fixture
def turns() -> Callable[..., list[dict[str, str]]]:
    """A conversation from its texts: user, assistant, user, ..."""

    def conversation(*texts: str) -> list[dict[str, str]]:
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]

    return conversation


@pytest.fixture
def make_source() -> Callable[..., Source]:
    """A source of given items; plain dicts become rows."""

    def source(items: Iterable[Row | SourceRow | Rejected], task: Task = "sft", **changes: Any) -> Source:
        kept = [
            item if isinstance(item, SourceRow | Rejected) else SourceRow(item, "memory", line)
            for line, item in enumerate(items, start=1)
        ]
        facts: dict[str, Any] = {
            "name": "fed-test",
            "task": task,
            "summary": "Rows for tests.",
            "client": "a name",
            "licence": "cc0-1.0",
            "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
            "attribution": "nobody",
            "upstream": "generated",
            "revision": "1",
            "citation": "",
            "read": lambda path, seed, options: iter(kept),
            "options": {},
        }
        return Source(**(facts | changes))

    return source


@pytest.fixture
def many_rows(turns: Callable[..., list[dict[str, str]]]) -> list[Row]:
    """40 clients with 3 to 9 rows each, all openings different, in two languages."""
    return [
        {
            "client_id": f"client-{client:02d}",
            "row_id": f"{client:02d}-{row}",
            "language": ("en", "de")[client % 2],
            "messages": turns(f"question {client} {row}", f"answer {client} {row}"),
        }
        for client in range(40)
        for row in range(3 + client % 7)
    ]


@pytest.fixture
def digest() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file under a folder, by its path."""

    def of(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return of


@pytest.fixture
def shared_data() -> Path:
    """Real files next to the checkout, for slow tests."""
    default = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("FEDLLM_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real files at {path}; set FEDLLM_SHARED_DATA")
    return path


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without page and figures, whose drawing takes most of the time: for tests that look at neither."""
    monkeypatch.setattr("fedllm_data.reporting.write_page.write_page", lambda document, profiles, out, language: None)
