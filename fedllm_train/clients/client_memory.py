"""What clients keep between rounds: control variates, personal adapters. On disk, one folder a client.

A file is named after the round that wrote it, `client_memory/<hash of the id>/round-000007.safetensors`, and a visit
in round t reads the newest one from before round t. So a run killed in the middle of a round, after some of its
clients wrote theirs, reads what it read the first time (design rule 6). Files that no kept checkpoint can need are
removed. A file ends in its own digest (`run_files/sealed.py`): what was remembered cannot be made again, so a run
does not go on with a client's memory that was damaged.
"""

from hashlib import sha256
from pathlib import Path

from fedllm_data.errors import ResumeError
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.messages import codec
from fedllm_train.run_files.sealed import read_sealed, write_sealed

__all__ = ["ClientMemory", "client_folder_name"]


def client_folder_name(client_id: str) -> str:
    """Return a name for a client's files; an id never becomes a path.

    >>> client_folder_name("../ann")
    '2a8c40f72d4a407ac9aa8efcf1d1cbfd'
    """
    return sha256(client_id.encode()).hexdigest()[:32]


class ClientMemory:
    """Parts kept by clients, by client id and round."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made when a client first keeps something."""
        self._folder = folder

    def load(self, client_id: str, before_round: int) -> Parts:
        """Return what the client kept last before a round; empty if nothing.

        Raises:
            ResumeError: if the file was damaged.
        """
        earlier = [path for path in self._files(client_id) if _round_of(path) < before_round]
        if not earlier:
            return {}
        content = read_sealed(earlier[-1])
        if content is None:
            raise ResumeError(
                f"{earlier[-1]}, what client {client_id!r} remembers, was damaged on disk and cannot be made again; "
                "remove the checkpoints after an earlier round to go on from there (keep_every keeps some), or start "
                "afresh in another output_dir"
            )
        return codec.decode(content)

    def save(self, client_id: str, round_index: int, parts: Parts) -> None:
        """Keep something from a round on."""
        folder = self._folder / client_folder_name(client_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / f"round-{round_index:06d}.safetensors", codec.encode(parts))

    def forget(self, client_id: str, round_index: int) -> None:
        """Remove what the client kept in a round whose update was refused: it goes on from what it had before."""
        (self._folder / client_folder_name(client_id) / f"round-{round_index:06d}.safetensors").unlink(missing_ok=True)

    def prune(self, client_id: str, oldest_round: int) -> None:
        """Remove what no run that resumes after `oldest_round` or later can need."""
        for path in [path for path in self._files(client_id) if _round_of(path) <= oldest_round][:-1]:
            path.unlink()

    def _files(self, client_id: str) -> list[Path]:
        folder = self._folder / client_folder_name(client_id)
        return sorted(folder.glob("round-*.safetensors"))


def _round_of(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))
