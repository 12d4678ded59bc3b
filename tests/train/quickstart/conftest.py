"""One quickstart folder for all tests: its commands in miniature, on people and words that try to break the page."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedllm_data.source import SourceRow
from fedllm_data.sources import SOURCES
from fedllm_train.models import tiny
from fedllm_train.quickstart import steps as quickstart

HOSTILE = '<script>alert("x")</script> | a\'b'
SEED = 3
SMALLER = [
    (r"build (\S+) ", r"build \1 --set num_clients=14 --set mean_rows=8 --set public_rows=300 --no-report "),
    (r"tiny ", "tiny --steps 3 "),
    (r"--num-rounds \d+", "--num-rounds 2"),
    (r"--cohort-size \d+", "--cohort-size 2"),
    (r"--local-steps \d+", "--local-steps 2"),
]


@dataclass(frozen=True)
class Finished:
    """What `python -m fedllm_train.quickstart` left."""

    folder: Path
    exit_code: int
    printed: str


@pytest.fixture(scope="session")
def quickstart_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The whole quickstart, with a model of a few thousand parameters; tests that change its folder take a copy."""
    folder = tmp_path_factory.mktemp("quickstart") / "quick start"  # a path with a space in it
    whole, printed = quickstart.steps, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        for name in ("fed-synth", "fed-synth-pa"):
            patch.setitem(SOURCES, name, replace(SOURCES[name], read=made_hostile(SOURCES[name].read)))
        patch.setattr(
            quickstart, "steps", lambda out, seed: [(what, shrink(does)) for what, does in whole(out, seed=seed)]
        )
        patch.setattr(tiny, "TinyConfig", lambda num_steps: replace(tiny.TOY, num_steps=num_steps))
        exit_code = quickstart.main(["--out", str(folder), "--seed", str(SEED)])
    return Finished(folder, exit_code, printed.getvalue())


@pytest.fixture
def finished(quickstart_run: Finished) -> Path:
    """The folder, to be read."""
    return quickstart_run.folder


def shrink(command: str) -> str:
    for pattern, replacement in SMALLER:
        command = re.sub(pattern, replacement, command)
    return command


def made_hostile(read):
    """A corpus with the same rows, whose names, questions and answers hold tags, quotes and bars."""

    def read_hostile(*given) -> Iterator[SourceRow]:
        for item in read(*given):
            row = dict(item.row)
            if not item.is_public:
                row["client_id"] = f"{HOSTILE} {row['client_id']}"
            for column in ("messages", "prompt", "chosen", "rejected"):
                if column in row:
                    row[column] = [turn | {"content": hostile_text(turn)} for turn in row[column]]
            yield replace(item, row=row)

    return read_hostile


def hostile_text(turn: dict[str, str]) -> str:
    return f"{HOSTILE} {turn['content']}" if turn["role"] == "user" else f"<b>it is {turn['content']}</b>"
