"""Where a worker keeps what belongs to runs: a folder each, named by the run's key, and who approved which."""

import logging
import shutil
from hashlib import sha256
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import write_file
from fedllm_eval.policy.run_folder import LOCK_FILE, PERSONAL
from fedllm_eval.texts import json_text
from fedllm_train.engines.remote.messages import Begin

__all__ = ["RunFolders"]

logger = logging.getLogger(__name__)

_ASKED, _APPROVED = "asked.json", "approved"


class RunFolders:
    """The folders of runs below a worker's own."""

    def __init__(self, folder: Path) -> None:
        """Use the worker's folder."""
        self._runs = folder / "runs"

    def hold(self) -> BaseFileLock:
        """Hold the worker's folder, so that no other worker mixes its runs and approvals with the ones here.

        Returns:
            A lock of the operating system, which goes with the process that holds it.

        Raises:
            ConfigError: if another worker holds it.
        """
        lock = FileLock(self._runs.parent / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"--folder {self._runs.parent} is used by another worker; give each worker a folder of its own"
            ) from None
        except NotImplementedError:  # a file system without locks
            logger.warning("%s lies on a file system without locks; see that no other worker uses it", lock.lock_file)
        return lock

    def of(self, key: str) -> Path:
        """Return the folder of a run, which is made; nobody else on the machine may look into it."""
        self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._runs / key
        folder.mkdir(exist_ok=True)
        return folder

    def ask(self, begin: Begin) -> None:
        """Note what a server wants, for the person who decides."""
        write_file(self.of(begin.run) / _ASKED, json_text(begin.header()) + "\n")

    def is_approved(self, begin: Begin) -> bool:
        """Return whether somebody approved exactly this run: a change of its settings asks again."""
        path = self._runs / begin.run / _APPROVED
        return path.is_file() and path.read_text(encoding="utf-8") == _digest(begin)

    def approve(self, key: str) -> Begin:
        """Approve a run that asked.

        Args:
            key: the run's, or the beginning of it.

        Raises:
            ConfigError: if no run, or more than one, has asked under that key.
        """
        asked = self.waiting()
        found = [begin for begin in asked if begin.run.startswith(key)]
        if len(found) != 1:
            known = ", ".join(begin.run for begin in asked) or "none"
            raise ConfigError(f"{len(found)} runs that ask for approval begin with {key!r}; those that ask: {known}")
        write_file(self._runs / found[0].run / _APPROVED, _digest(found[0]))
        return found[0]

    def waiting(self) -> list[Begin]:
        """Return the runs that ask for approval and have none.

        Raises:
            ConfigError: naming a request that was damaged, or written by another version.
        """
        asked = [_read(path) for path in self._runs.glob(f"*/{_ASKED}")]
        return sorted((begin for begin in asked if not self.is_approved(begin)), key=lambda begin: begin.run)

    def forget(self, key: str) -> None:
        """Remove what a finished run kept here, but for its clients' own adapters."""
        folder = self._runs / key
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name == PERSONAL:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def forget_named(self, key: str) -> str:
        """Forget a run by the beginning of its key; return the whole.

        Raises:
            ConfigError: if no run here, or more than one, begins so.
        """
        found = [path.name for path in self._runs.glob("*") if path.name.startswith(key)]
        if len(found) != 1:
            raise ConfigError(f"{len(found)} runs in {self._runs} begin with {key!r}; name one of them")
        self.forget(found[0])
        return found[0]


def _read(path: Path) -> Begin:
    try:
        return Begin.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(
            f"{path} is no request of this version; remove it with fedllm-train worker forget {path.parent.name}, and "
            "let the run ask again"
        ) from None


def _digest(begin: Begin) -> str:
    """What an approval is for: everything but how long to wait."""
    asked = begin.model_copy(update={"wait_seconds": 0.0})
    return sha256(json_text(asked.header()).encode()).hexdigest()
