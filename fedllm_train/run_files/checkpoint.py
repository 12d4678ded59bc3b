"""What a run must remember to go on after being killed at any moment, and how it is written.

A checkpoint is a folder `checkpoints/round-000007/` with `adapter.safetensors` (the global adapter after that round),
`server.safetensors` (what else the server remembers, if anything) and `state.json` (the ledger and the round's
record). What clients remember lies beside (`clients/client_memory.py`). It is written beside its place and renamed, so
it is there whole or not at all; `rounds.jsonl` is appended after it and mended from it on resume.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedllm_data.errors import ResumeError
from fedllm_eval.texts import json_lines, json_text
from fedllm_train.adapters.arithmetic import Adapter, Parts, load_adapter, load_parts, save_adapter, save_parts
from fedllm_train.messages.ledger import Ledger
from fedllm_train.run_files.files import write_bytes, write_folder, write_json

__all__ = ["RunState", "append_record", "kept_rounds", "load_latest", "mend_records", "save_checkpoint"]

_NAME = re.compile(r"round-(\d{6})")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The server's state between two rounds."""

    next_round: int
    server: Parts
    """The strategy's state; its part "adapter" is the global adapter."""
    ledger: Ledger
    monitor: dict[str, Any] = field(default_factory=dict)
    """JSON-ready: what early stopping and the keeping of the best adapter remember."""

    @property
    def adapter(self) -> Adapter:
        """The global adapter."""
        return self.server["adapter"]


def save_checkpoint(
    run: Path, state: RunState, record: Mapping[str, Any], *, keep: int, keep_every: int | None = None
) -> None:
    """Write the state after a round, then remove all but the newest `keep` checkpoints and every `keep_every`-th."""

    def fill(folder: Path) -> None:
        save_adapter(state.adapter, folder / "adapter.safetensors")
        if beside := {part: tensors for part, tensors in state.server.items() if part != "adapter"}:
            save_parts(beside, folder / "server.safetensors")
        content = {
            "next_round": state.next_round,
            "ledger": asdict(state.ledger),
            "monitor": state.monitor,
            "record": dict(record),
        }
        write_json(folder / "state.json", content)

    write_folder(run / "checkpoints" / f"round-{state.next_round - 1:06d}", fill)
    for old in _checkpoints(run)[:-keep]:
        if keep_every is None or (int(old.name.removeprefix("round-")) + 1) % keep_every:
            shutil.rmtree(old)


def load_latest(run: Path) -> tuple[RunState, dict[str, Any]] | None:
    """Return the newest state and its round's record, or None where there is no checkpoint.

    Raises:
        ResumeError: if the checkpoint cannot be read.
    """
    folders = _checkpoints(run)
    if not folders:
        return None
    newest = folders[-1]
    try:
        content = json.loads((newest / "state.json").read_text())
        server = {"adapter": load_adapter(newest / "adapter.safetensors")}
        if (newest / "server.safetensors").exists():
            server |= load_parts(newest / "server.safetensors")
        state = RunState(
            next_round=content["next_round"],
            server=server,
            ledger=Ledger(**content["ledger"]),
            monitor=content["monitor"],
        )
        return state, content["record"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            f"checkpoint {newest} cannot be read ({error}); delete that folder to resume from the one before"
        ) from error


def kept_rounds(run: Path) -> list[int]:
    """Return the rounds that have a checkpoint, oldest first."""
    return [int(path.name.removeprefix("round-")) for path in _checkpoints(run)]


def append_record(run: Path, record: Mapping[str, Any]) -> None:
    """Append one round to `rounds.jsonl`."""
    with (run / "rounds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json_text(record) + "\n")


def mend_records(run: Path, record: Mapping[str, Any]) -> None:
    """Make `rounds.jsonl` end with the record of the newest checkpoint: drop what came after or was cut short."""
    path = run / "rounds.jsonl"
    lines = json_lines(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = []
    for line in lines:
        try:
            earlier = json.loads(line)
        except ValueError:  # the line that was being written when the process died
            continue
        if earlier["round_index"] < record["round_index"]:
            kept.append(line)
    kept.append(json_text(record))
    write_bytes(path, ("\n".join(kept) + "\n").encode())


def _checkpoints(run: Path) -> list[Path]:
    folder = run / "checkpoints"
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
