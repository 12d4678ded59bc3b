"""What clients keep between rounds (control variates, personal adapters), on their host's disk, one folder a client.

A file is named after the step that wrote it, `client_memory/<hash of the id>/round-000007.safetensors`. The server
says with each task which of them count (`Task.kept_step`): a visit reads the newest that does and drops those after
it, which belong to an update that was refused, or to a round that was never finished. So a run killed in the middle of
a round, after some of its clients wrote theirs, reads what it read the first time (design rule 6). It also says how
far back it may go (`Task.oldest_step`): what only an earlier step could need is removed. A file ends in its own digest
(`run_files/sealed.py`): what was remembered cannot be made again, so a run does not go on with a client's memory that
was damaged.
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
    """Parts kept by clients, by client id and step."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that belongs to one run; it is made when a client first keeps something."""
        self.folder = folder
        """The run's, with a folder for every client."""

    def load(self, client_id: str, *, kept_step: int, oldest_step: int) -> Parts:
        """Return what the client kept last and still counts; empty if nothing does. Remove what no visit will need.

        Args:
            client_id: the client.
            kept_step: the newest step whose memory counts.
            oldest_step: no later visit will name an earlier `kept_step`.

        Raises:
            ResumeError: if the file was damaged.
        """
        files = {_step_of(path): path for path in self._files(client_id)}
        for step in [step for step in files if step > kept_step]:
            files.pop(step).unlink()
        for step in [step for step in files if step <= oldest_step][:-1]:
            files.pop(step).unlink()
        if not files:
            return {}
        newest = files[max(files)]
        content = read_sealed(newest)
        if content is None:
            raise ResumeError(
                f"{newest}, what client {client_id!r} remembers, was damaged on disk and cannot be made again; "
                "remove the checkpoints after an earlier round to go on from there (keep_every keeps some), or start "
                "afresh in another output_dir"
            )
        return codec.decode(content)

    def save(self, client_id: str, step: int, parts: Parts) -> None:
        """Keep something; it counts from this step on."""
        folder = self.folder / client_folder_name(client_id)
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / f"round-{step:06d}.safetensors", codec.encode(parts))

    def _files(self, client_id: str) -> list[Path]:
        folder = self.folder / client_folder_name(client_id)
        return sorted(folder.glob("round-*.safetensors"))


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))
