"""Where a run begins: at its newest checkpoint, or afresh with nothing left of an earlier start."""

import logging
import re
import secrets
import shutil
from pathlib import Path

from fedllm_data.in_place import restore_folder, write_file
from fedllm_eval.policy.run_folder import ADAPTER, BEST, MODEL, ROUNDS_FILE, START_ADAPTER, WORK
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.monitoring.held_out import forget_best
from fedllm_train.monitoring.ledger import Ledger
from fedllm_train.run_files.checkpoint import RunState, load_latest, mend_records

__all__ = ["empty_spool", "first_state", "restore_folders"]

logger = logging.getLogger(__name__)

_KEY_FILE = "run_key"


def first_state(run: Path, start: Parts) -> RunState:
    """Return the state that a run goes on from.

    Args:
        run: the run folder.
        start: the server's state before round 0.

    Raises:
        ResumeError: if the newest checkpoint cannot be read.
    """
    if latest := load_latest(run):
        state, record = latest
        mend_records(run, record)
        logger.info("resuming %s at round %d", run, state.next_round)
        return state
    run_key = _first_key(run)
    (run / ROUNDS_FILE).unlink(missing_ok=True)
    forget_best(run)
    return RunState(next_round=0, server=start, ledger=Ledger(), run_key=run_key)


def _first_key(run: Path) -> str:
    """Return the key of a start: that of the one before, if it made no round; sites may have approved it by now."""
    path = run / WORK / _KEY_FILE
    if path.is_file() and not (run / ROUNDS_FILE).exists():
        if re.fullmatch("[0-9a-f]{16}", kept := path.read_text(encoding="utf-8", errors="replace")):
            return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, drawn := secrets.token_hex(8))
    return drawn


def restore_folders(run: Path) -> None:
    """Put back the folders that a run had made and was replacing when it was killed.

    Not checkpoints: one that is made again replaces one that was damaged, which nobody needs back.
    """
    for name in (ADAPTER, MODEL, BEST, START_ADAPTER):
        restore_folder(run / name)


def empty_spool(run: Path) -> Path:
    """Return an empty folder for updates that come early."""
    spool = run / WORK / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir(parents=True)
    return spool
