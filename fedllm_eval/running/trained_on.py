"""How much of what is scored was trained on: prompts and clients of a split that are in a run's training data.

Prompts are compared by the digest that the split rule of `fedllm_data` uses (all messages up to the last user message,
case and spacing levelled), so that rows of either format are compared with rows of either. The training data is read
once, from where the run's `config.yaml` says it lies; memory holds the digests of the scored splits alone. Client ids
are compared as far as both sides made them alike: ids under two salts match nobody, which is said. Imports no torch.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import FedLLMError
from fedllm_data.id_facts import ids_difference
from fedllm_data.pipeline.facts import prompt_of
from fedllm_data.wording.catalogue import words
from fedllm_eval.running.origins import Origin, Origins, origins_of

if TYPE_CHECKING:
    from fedllm_eval.results import Results

__all__ = ["Overlap", "ScoredSplits", "TrainedOn", "overlap_with"]

logger = logging.getLogger(__name__)

_BATCH_ROWS = 1_000
_DIGITS = 12
"""Of a revision, where it stands in a sentence."""
_NEW_CLIENTS = "unseen"
"""The split whose clients no run has trained on; those of `test` are training clients by design."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much of one split is in the data of one run."""

    dataset: str
    revision: str | None
    trained_split: str
    num_prompts: int
    """Distinct prompts of the scored split."""
    num_rows: int
    num_clients: int
    num_prompts_trained_on: int | None = None
    """None where the training data could not be read."""
    num_rows_trained_on: int | None = None
    num_clients_trained_on: int | None = None
    """Clients whose id a training client has; None where ids cannot be compared."""
    ids_differ: str | None = None
    """Why ids cannot be compared."""
    problem: str | None = None
    """Why the training data could not be read."""
    has_changed: bool = False
    """Whether the folder that was read has changed since the run."""

    @classmethod
    def unknown(cls, trained: "Origin | ClientDataset", scored: ClientDataset, num_prompts: int) -> "Overlap":
        """Return what is known before the training data are read.

        Args:
            trained: what was trained on.
            scored: the scored split.
            num_prompts: its distinct prompts.
        """
        return cls(
            dataset=trained.name,
            revision=trained.revision,
            trained_split=trained.split,
            num_prompts=num_prompts,
            num_rows=scored.rows.num_rows,
            num_clients=len(scored),
        )

    def warnings(self, split: str) -> list[str]:
        """Return what whoever reads the split's scores must know, one sentence each, without its full stop."""
        told = []
        if self.num_prompts_trained_on:
            told.append(
                words(
                    "{num} of {total} prompts ({number} of {value} rows) are also in split {split} of {dataset}, which"
                    " was trained on: scores on them are no held-out scores",
                    num=f"{self.num_prompts_trained_on:,}",
                    total=f"{self.num_prompts:,}",
                    number=f"{self.num_rows_trained_on:,}",
                    value=f"{self.num_rows:,}",
                    split=self.trained_split,
                    dataset=self.dataset,
                )
            )
        if self.num_clients_trained_on and split == _NEW_CLIENTS:
            told.append(
                words(
                    "{num} of {total} clients have the ids of clients in split {split} of {dataset}, which was trained"
                    " on: they are not new to what is scored",
                    num=f"{self.num_clients_trained_on:,}",
                    total=f"{self.num_clients:,}",
                    split=self.trained_split,
                    dataset=self.dataset,
                )
            )
        if self.ids_differ is not None:
            places = {"split": self.trained_split, "dataset": self.dataset, "reason": self.ids_differ}
            told.append(
                words(
                    "its clients cannot be matched with those in split {split} of {dataset}, which was trained on,"
                    " since {reason}: clients who count as unseen may have been trained on, and personal adapters are"
                    " found for nobody",
                    **places,
                )
                if split == _NEW_CLIENTS
                else words(
                    "its clients cannot be matched with those in split {split} of {dataset}, which was trained on,"
                    " since {reason}: personal adapters are found for nobody",
                    **places,
                )
            )
        return told

    def notes(self, split: str) -> list[str]:
        """Return the warnings, and what could not be found out."""
        told = self.warnings(split)
        if self.problem is not None:
            told.append(words("whether its prompts were trained on is not known: {reason}", reason=self.problem))
        if self.has_changed:
            told.append(
                words(
                    "{dataset} has changed since it was trained on (now another revision than {revision}), and was"
                    " compared as it is now",
                    dataset=self.dataset,
                    revision=str(self.revision)[:_DIGITS],
                )
            )
        return told


class ScoredSplits:
    """The splits that are scored, and what in them was trained on."""

    def __init__(self, splits: Sequence[ClientDataset]) -> None:
        """Take splits of one dataset; nothing is read before it is asked for."""
        self._splits = splits

    @cached_property
    def _prompts(self) -> list[Counter[bytes]]:
        """Digest of a prompt -> rows that have it, split by split."""
        return [Counter(_digests(clients)) for clients in self._splits]

    def overlaps(self, origin: Origin) -> list[Overlap]:
        """Compare every split with what one run was trained on; what cannot be read is said in `Overlap.problem`."""
        if self._is_elsewhere_in_commit(origin):
            return [
                replace(each, num_prompts_trained_on=0, num_rows_trained_on=0, problem=None)
                for each in self._unread(origin, "")
            ]
        try:
            trained, has_changed = self._open(origin)
        except _errors() as error:
            reason = " ".join(str(error).split())[:200]
            return self._unread(
                origin,
                words(
                    "{dataset}, which was trained on, cannot be read ({reason})", dataset=origin.name, reason=reason
                ),
            )
        if trained is None:
            return self._unread(
                origin, words("{dataset}, which was trained on, has no revision to find it by", dataset=origin.name)
            )
        if origin.only_client is not None:
            present = [client_id for client_id in (origin.only_client,) if client_id in trained]
            trained = trained.select(present)
        facts = origin.id_facts or trained.id_facts
        try:
            found = overlap_with(self._splits, trained, self._prompts)
        except _errors() as error:
            reason = " ".join(str(error).split())[:200]
            return self._unread(
                origin,
                words(
                    "{dataset}, which was trained on, cannot be read ({reason})", dataset=origin.name, reason=reason
                ),
            )
        return [
            replace(
                _without_clients(each, self._ids_differ(clients, origin, facts)),
                dataset=origin.name,
                revision=origin.revision,
                has_changed=has_changed,
            )
            for each, clients in zip(found, self._splits, strict=True)
        ]

    def _open(self, origin: Origin) -> tuple[ClientDataset | None, bool]:
        """Return the rows that were trained on, and whether they have changed since; None if nothing identifies them.

        A folder that was moved since is found where it is scored.
        """
        if origin.revision is None:
            return None, False
        for clients in self._splits:
            if clients.revision == origin.revision:
                is_folder = Path(clients.name).is_dir()
                return load_clients(clients.name, origin.split, None if is_folder else origin.revision), False
        if Path(origin.name).is_dir():
            found = load_clients(origin.name, origin.split)
            return found, found.revision != origin.revision
        return load_clients(origin.name, origin.split, origin.revision), False

    def _is_elsewhere_in_commit(self, origin: Origin) -> bool:
        """Whether training data and scored splits are different splits of one commit on the Hub.

        `fedllm-data publish` has then checked that they share no prompt: scoring fetches no training rows.
        """
        return origin.revision is not None and all(
            clients.revision == origin.revision and clients.split != origin.split and not Path(clients.name).is_dir()
            for clients in self._splits
        )

    def _ids_differ(self, clients: ClientDataset, origin: Origin, facts: Mapping[str, Any] | None) -> str | None:
        if origin.revision is not None and clients.revision == origin.revision:
            return None
        return ids_difference(clients.id_facts, facts)

    def _unread(self, origin: Origin, problem: str) -> list[Overlap]:
        return [
            replace(
                Overlap.unknown(origin, clients, len(prompts)),
                ids_differ=self._ids_differ(clients, origin, origin.id_facts),
                problem=problem,
            )
            for clients, prompts in zip(self._splits, self._prompts, strict=True)
        ]

    def trained_on(self, origins: Origins) -> dict[str, list[Overlap]]:
        """Return the overlaps of every split, by its name, with everything that is known to have been trained on."""
        found: dict[str, list[Overlap]] = {clients.split: [] for clients in self._splits}
        for origin in origins.known:
            for clients, overlap in zip(self._splits, self.overlaps(origin), strict=True):
                found[clients.split].append(overlap)
        return found


def overlap_with(
    splits: Sequence[ClientDataset], trained: ClientDataset, prompts: Sequence[Counter[bytes]] | None = None
) -> list[Overlap]:
    """Compare splits with rows that were trained on, in one pass over these.

    Args:
        splits: what is scored.
        trained: what was trained on, of either row format.
        prompts: digest of a prompt -> rows that have it, for every split; read from the splits if not given.

    Returns:
        One item per split; ids are compared as they stand.

    >>> from datasets import Dataset
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = ClientDataset.from_dataset(Dataset.from_list([{"client_id": "ann", "messages": turns}]))
    >>> overlap_with([rows], rows)[0].num_prompts_trained_on
    1
    """
    scored = [Counter(_digests(clients)) for clients in splits] if prompts is None else prompts
    shared: list[set[bytes]] = [set() for _ in scored]
    for digest in _digests(trained):
        for found, of_split in zip(shared, scored, strict=True):
            if digest in of_split:
                found.add(digest)
    return [
        replace(
            Overlap.unknown(trained, clients, len(of_split)),
            num_prompts_trained_on=len(found),
            num_rows_trained_on=sum(of_split[digest] for digest in found),
            num_clients_trained_on=sum(client_id in trained for client_id in clients),
        )
        for clients, of_split, found in zip(splits, scored, shared, strict=True)
    ]


class TrainedOn:
    """How much of the scored splits each policy of an evaluation was trained on."""

    def __init__(self, splits: Sequence[ClientDataset], folders: Mapping[str, Path]) -> None:
        """Compare the splits with the training data of every policy, and warn of what both hold.

        Args:
            splits: what is scored.
            folders: label of a policy -> its folder.
        """
        scored = ScoredSplits(splits)
        self._of_label: dict[str, tuple[dict[str, list[Overlap]], bool]] = {}
        of_folder: dict[Path, tuple[dict[str, list[Overlap]], bool]] = {}
        for label, folder in folders.items():
            if (origins := origins_of(folder)) is None:
                continue
            if folder not in of_folder:
                of_folder[folder] = scored.trained_on(origins), origins.is_complete
                for split, overlaps in of_folder[folder][0].items():
                    for sentence in (each for overlap in overlaps for each in overlap.warnings(split)):
                        logger.warning("%s, split %s: %s", label, split, sentence)
            self._of_label[label] = of_folder[folder]

    def noted(self, label: str, results: "Results") -> "Results":
        """Return a policy's results with counts of what was trained on (`trained_on`), and notes in words."""
        overlaps, is_complete = self._of_label.get(label, ({}, True))
        return _noted(results, overlaps, is_complete=is_complete)


def _noted(results: "Results", overlaps: Mapping[str, Sequence[Overlap]], *, is_complete: bool) -> "Results":
    splits = {}
    for split, part in results.summary["splits"].items():
        found = overlaps.get(split, ())
        notes = [note for overlap in found for note in overlap.notes(split)]
        if not is_complete:
            notes.append(
                words(
                    "what the adapter or model that the run started from was trained on is not known, nor whether its"
                    " prompts were among it"
                )
            )
        splits[split] = {**part, "notes": [*part["notes"], *notes]}
        if found:
            splits[split]["trained_on"] = [asdict(overlap) for overlap in found]
    return replace(results, summary={**results.summary, "splits": splits})


def _without_clients(overlap: Overlap, ids_differ: str | None) -> Overlap:
    if ids_differ is None:
        return overlap
    return replace(overlap, num_clients_trained_on=None, ids_differ=ids_differ)


def _digests(clients: ClientDataset) -> Iterator[bytes]:
    """Yield the digest of every row's prompt, a batch of rows in memory at a time."""
    column = "messages" if clients.task == "sft" else "prompt"
    if clients.rows.num_rows == 0:
        return
    batches: Any = clients.rows.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH_ROWS)
    for batch in batches:
        for row in batch.to_pylist():
            # Rows of a hand-made repo may lack a user message, and so have no prompt.
            if any(message["role"] == "user" for message in row[column]):
                yield blake2b(prompt_of(row, clients.task).encode(), digest_size=16).digest()


def _errors() -> tuple[type[Exception], ...]:
    """What opening and reading a dataset raises where it is not there or broken."""
    from datasets.exceptions import DatasetsError

    return (FedLLMError, OSError, pa.ArrowException, DatasetsError)
