"""What a run must remember in order to resume after a kill at any moment, and how it is written.

A checkpoint is a folder `checkpoints/round-000007/` with

    adapter.safetensors           the global adapter after that round
    server.safetensors            what else the server remembers, if anything
    wire.safetensors              what its end of the wire does, if anything: packed broadcasts that clients may still
                                  need, EF21's estimates
    earlier-000005.safetensors    the state that clients still under way were sent for step 5, if there are any
    state.json                    `CheckpointRecord`
    sha256.json                   the digests of the others: a checkpoint that does not fit them is passed over for the
                                  one before

What clients remember lies beside (`clients/client_memory.py`). A checkpoint is there whole or not at all;
`rounds.jsonl` is appended after it and mended from it on resume.
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any

from fedllm_data.errors import ResumeError
from fedllm_data.in_place import fill_folder, write_file
from fedllm_eval.policy.run_folder import CHECKPOINTS, ROUNDS_FILE
from fedllm_eval.policy.run_records import CheckpointRecord
from fedllm_eval.texts import json_text
from fedllm_train.adapters.arithmetic import Adapter, Parts, load_adapter, load_parts, save_adapter, save_parts
from fedllm_train.engines.engine import NO_STEP
from fedllm_train.engines.simulated import UnderWay
from fedllm_train.messages.wire_state import WireState
from fedllm_train.monitoring.ledger import Ledger
from fedllm_train.run_files.run_writing import may_be_replaced, write_json

__all__ = [
    "RunState",
    "append_record",
    "kept_rounds",
    "load_latest",
    "mend_records",
    "oldest_step_needed",
    "save_checkpoint",
]

logger = logging.getLogger(__name__)

_STATE = "state.json"
_EARLIER = "earlier-"
_ROBUST = "robust.safetensors"
_DIGESTS = "sha256.json"
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
    refused: dict[str, int] = field(default_factory=dict)
    """Client id -> the step of its first update that was refused since one was accepted: what the client kept from
    that step on does not count."""
    wire: WireState = field(default_factory=WireState)
    """What the server's end of the wire remembers."""
    robust: Parts = field(default_factory=dict)
    """What a robust sum remembers (`aggregation/robust.py`)."""
    run_key: str = ""
    """Names this start of the run, under which clients keep what they keep: another start finds nothing of it."""
    clock: float = 0.0
    """Where the simulated clock stands, in seconds since the run's start."""
    under_way: Sequence[UnderWay] = ()
    """Who was asked and has not replied: they are asked again when the run goes on."""
    earlier: Mapping[int, Parts] = field(default_factory=dict)
    """Step -> the server's state that it began from, for the steps that somebody is under way from."""
    privacy: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready: what the server of a private run remembers (`privacy/private_memory.py`)."""

    @property
    def adapter(self) -> Adapter:
        """The global adapter."""
        return self.server["adapter"]


def save_checkpoint(
    run: Path, state: RunState, record: Mapping[str, Any], *, keep: int, keep_every: int | None = None
) -> None:
    """Write the state after a round, then remove all but the newest `keep` checkpoints and every `keep_every`-th."""
    place = run / CHECKPOINTS / f"round-{state.next_round - 1:06d}"
    # A round that is made again takes the place of a checkpoint that was damaged.
    with fill_folder(place, check=may_be_replaced) as folder:
        save_adapter(state.adapter, folder / "adapter.safetensors")
        if beside := {part: tensors for part, tensors in state.server.items() if part != "adapter"}:
            save_parts(beside, folder / "server.safetensors")
        if state.wire.tensors:
            save_parts(state.wire.tensors, folder / "wire.safetensors")
        if state.robust:
            save_parts(state.robust, folder / _ROBUST)
        for step, parts in state.earlier.items():
            save_parts(parts, folder / f"{_EARLIER}{step:06d}.safetensors")
        content: CheckpointRecord = {
            "next_round": state.next_round,
            "ledger": asdict(state.ledger),
            "monitor": state.monitor,
            "refused": state.refused,
            "wire": state.wire.as_record(),
            "run_key": state.run_key,
            "clock": state.clock,
            "under_way": [asdict(each) for each in state.under_way],
            "record": dict(record),
        }
        if state.privacy:
            content["privacy"] = dict(state.privacy)
        write_json(folder / _STATE, content, sync=False)
        write_json(folder / _DIGESTS, _digests(folder), sync=False)
    for old in _checkpoints(run)[:-keep]:
        if keep_every is None or (int(old.name.removeprefix("round-")) + 1) % keep_every:
            shutil.rmtree(old)


def load_latest(run: Path) -> tuple[RunState, dict[str, Any]] | None:
    """Return the newest state that is whole and its round's record, or None if there is no checkpoint.

    Raises:
        ResumeError: if there are checkpoints and none can be used.
    """
    folders = _checkpoints(run)[::-1]
    problems = []
    for folder in folders:
        problem = _damage(folder)
        if problem is None:
            if problems:
                logger.warning("%s; going on from the older checkpoint %s", "; ".join(problems), folder)
            return _load(folder)
        problems.append(f"checkpoint {folder} was damaged on disk ({problem})")
    if problems:
        raise ResumeError(
            f"{problems[0]}, and no older one can be used; start afresh in another output_dir, or remove "
            f"{run / CHECKPOINTS} to begin this run again"
        )
    return None


def _load(folder: Path) -> tuple[RunState, dict[str, Any]]:
    try:
        content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        server = {"adapter": load_adapter(folder / "adapter.safetensors")}
        if (folder / "server.safetensors").exists():
            server |= load_parts(folder / "server.safetensors")
        wire, robust = folder / "wire.safetensors", folder / _ROBUST
        state = RunState(
            next_round=content["next_round"],
            server=server,
            ledger=Ledger(**content["ledger"]),
            monitor=content["monitor"],
            refused=content["refused"],
            wire=WireState(tensors=load_parts(wire) if wire.exists() else {}, **content.get("wire", {})),
            robust=load_parts(robust) if robust.exists() else {},
            run_key=content["run_key"],
            clock=content.get("clock", 0.0),
            under_way=tuple(UnderWay(**each) for each in content.get("under_way", ())),
            privacy=content.get("privacy", {}),
            earlier={
                int(path.stem.removeprefix(_EARLIER)): load_parts(path)
                for path in sorted(folder.glob(f"{_EARLIER}*.safetensors"))
            },
        )
        return state, content["record"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            f"checkpoint {folder} is whole, but this version cannot read it ({error}); resume with the version that "
            "wrote it"
        ) from error


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != _DIGESTS)
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[path.name] = file_digest(file, "sha256").hexdigest()
    return digests


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if they are those that were written."""
    try:
        written = json.loads((folder / _DIGESTS).read_bytes())
    except (OSError, ValueError):
        return f"{_DIGESTS} cannot be read"
    found = _digests(folder)
    if not isinstance(written, dict) or written.keys() != found.keys():
        return f"it does not hold the files that {_DIGESTS} lists"
    changed = [name for name in sorted(found) if written[name] != found[name]]
    return f"{', '.join(changed)} changed" if changed else None


def kept_rounds(run: Path) -> list[int]:
    """Return the rounds that have a checkpoint, oldest first."""
    return [int(path.name.removeprefix("round-")) for path in _checkpoints(run)]


def oldest_step_needed(run: Path) -> int:
    """Return the earliest step that the run could go on from, or ask a client for again; `NO_STEP` for none.

    Its oldest checkpoint decides: whoever was under way then had been asked for that step or an earlier one, and in
    later checkpoints nobody was asked earlier.
    """
    if (oldest := next(iter(_checkpoints(run)), None)) is None:
        return NO_STEP
    step = int(oldest.name.removeprefix("round-"))
    try:
        content = json.loads((oldest / _STATE).read_text(encoding="utf-8"))
        return min([step, *(each["step"] - 1 for each in content.get("under_way", ()))])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: the run cannot go on from it
        return step


def append_record(run: Path, record: Mapping[str, Any]) -> None:
    """Append one round to `rounds.jsonl`."""
    with (run / ROUNDS_FILE).open("a", encoding="utf-8") as file:
        file.write(json_text(record) + "\n")


def mend_records(run: Path, record: Mapping[str, Any]) -> None:
    """Make `rounds.jsonl` end with the record of the newest checkpoint: drop what came after or was cut short."""
    path = run / ROUNDS_FILE
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    kept, lost = [], []
    for number, line in enumerate(lines, start=1):
        try:
            if json.loads(line)["round_index"] < record["round_index"]:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            lost.append(number)
    # The last lines are cut short where the process died while it wrote; what was there is written again.
    if odd := [number for number in lost if number <= len(kept)]:
        logger.warning("%s: line %d was damaged on disk and is lost; no adapter depends on it", path, odd[0])
    kept.append(json_text(record).encode())
    write_file(path, b"\n".join(kept) + b"\n")


def _checkpoints(run: Path) -> list[Path]:
    folder = run / CHECKPOINTS
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
