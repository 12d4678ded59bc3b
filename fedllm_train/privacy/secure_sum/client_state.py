"""What a client keeps of secure sums, in its own folder, on the disk before anything that follows from it is said.

`identity.json`     the key that signs its round keys, and the secret of its noise; for one run
`peers.json`        the identities of peers, pinned at their first use
`steps.json`        step -> attempts that were begun, the vector that was masked, and of whom the sum was opened
`round.json`        the secrets of the newest attempt; its private keys go when the sum has been opened

All are readable by their owner alone, and written whole or not at all. Imports no torch.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fedllm_data.errors import ResumeError
from fedllm_data.in_place import write_file
from fedllm_train.privacy.secure_sum.masks import new_secret

__all__ = ["ClientState", "Identity", "RoundSecrets", "StepNotes"]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A client's lasting secrets, in hexadecimal."""

    signing_key: str
    noise_secret: str


@dataclass(kw_only=True)
class StepNotes:
    """What of a step counts whatever attempt is made."""

    attempts: list[str] = field(default_factory=list)
    vector: str | None = None
    """SHA-256 of the vector before masks and noise, once one was masked."""
    opened_for: str | None = None
    """SHA-256 of the names whose sum this client helped to open; no other sum of this step is opened, ever."""


@dataclass(kw_only=True)
class RoundSecrets:
    """One attempt of one round; bytes in hexadecimal."""

    step: int
    attempt: str
    mask_key: str | None
    """Private, as the next two; None once the sum has been opened."""
    share_key: str | None
    seed: str | None
    public: str
    """The signed keys as they were sent."""
    asked_shares: str | None = None
    """SHA-256 of the request that was answered with shares."""
    shares: str | None = None
    """That answer."""
    keys: dict[str, list[str]] = field(default_factory=dict)
    """Client id -> its public mask and share key."""
    own_shares: list[str] = field(default_factory=list)
    """The client's own share of its seed and of its key."""
    summed: list[str] | None = None
    vector: str | None = None
    """SHA-256 of the vector that was masked."""
    asked_unmask: str | None = None
    opened: str | None = None
    """The answer to the request of that digest."""


class ClientState:
    """The folder of one client in one run."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made when something is first kept."""
        self._folder = folder

    def identity(self) -> Identity:
        """Return the client's lasting secrets, drawn at the first call."""
        kept = self._read("identity")
        if kept is None:
            kept = asdict(Identity(signing_key=new_secret().hex(), noise_secret=new_secret().hex()))
            self._write("identity", kept)
        return Identity(**kept)

    def peers(self) -> dict[str, str]:
        """Return the pinned identities of peers."""
        return self._read("peers") or {}

    def pin(self, peers: dict[str, str]) -> None:
        """Keep them."""
        self._write("peers", peers)

    def notes(self, step: int) -> StepNotes:
        """Return what counts of a step."""
        kept = (self._read("steps") or {}).get(str(step))
        return StepNotes() if kept is None else StepNotes(**kept)

    def note(self, step: int, notes: StepNotes) -> None:
        """Keep what counts of a step."""
        self._write("steps", {**(self._read("steps") or {}), str(step): asdict(notes)})

    def num_steps_masked(self) -> int:
        """Return for how many steps a vector was masked."""
        return sum(each["vector"] is not None for each in (self._read("steps") or {}).values())

    def round(self) -> RoundSecrets | None:
        """Return the newest attempt; None before the first."""
        kept = self._read("round")
        return None if kept is None else RoundSecrets(**{each.name: kept[each.name] for each in fields(RoundSecrets)})

    def keep(self, secrets: RoundSecrets) -> None:
        """Keep an attempt, in place of the one before."""
        self._write("round", asdict(secrets))

    def _read(self, name: str) -> Any:
        path = self._folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResumeError(
                f"{path}, what a client keeps of secure sums, was damaged on disk ({type(error).__name__}); start "
                "afresh in another output_dir"
            ) from None

    def _write(self, name: str, content: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(self._folder / f"{name}.json", json.dumps(content), mode=0o600)
