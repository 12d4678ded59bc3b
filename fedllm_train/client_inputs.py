"""What a Python user passes as clients becomes a `ClientDataset`: TRL's habits are followed if their meaning is plain.

Taken: a `ClientDataset`; a folder or Hub id; a dict from client id to a `datasets.Dataset` or to a list of rows; a
`Dataset`, or a list of rows, with a column `client_id`. Rows are TRL's conversational formats: `messages`;
`prompt` and `completion`; `prompt`, `chosen` and `rejected`; `chosen` and `rejected` that begin with the same prompt.
Plain text is refused: TRL would train on it without a chat template, which nothing here does. Every row that was not
read from a client repo is checked. Imports no torch.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.schema import SCHEMAS, row_problem
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.field_types import kind_of

__all__ = ["ClientInput", "as_clients"]

ClientInput = ClientDataset | SiteClients | str | Path | Mapping[Any, Any] | Dataset | list[Any]
"""What may be passed as clients."""

_TAKEN = (
    "a ClientDataset (load_clients), a folder or Hub id of a client repo, a dict of datasets by client id, or a "
    "Dataset with a client_id column"
)
_FORMATS = "messages, or prompt, chosen and rejected, as lists of {'role', 'content'}"
_OURS = {name for schema in SCHEMAS.values() for name in schema.names}


def as_clients(given: Any, *, name: str = "clients", split: str = "train") -> Any:
    """Return the clients that a caller passed: a `ClientDataset`, or `SiteClients` where their rows are elsewhere.

    Args:
        given: one of the kinds listed above.
        name: the argument's name, for the error.
        split: read from a client repo that is given by name.

    Raises:
        ConfigError: if it is none of these kinds, or a row cannot be trained on.
        SchemaError: if a folder or Hub id is no client repo.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> as_clients({"bob": Dataset.from_list([{"messages": turns}] * 2), "ann": [{"messages": turns}]}).sizes
    {'ann': 1, 'bob': 2}
    """
    if isinstance(given, ClientDataset):
        return given
    if isinstance(given, SiteClients):  # whose rows are elsewhere
        return given
    if isinstance(given, str | Path):
        return load_clients(given, split=split)
    if isinstance(given, DatasetDict | IterableDatasetDict):
        some = next(iter(given), "train")
        raise ConfigError(
            f"{name} is a {type(given).__name__} of the splits {', '.join(map(str, given))}; pass one, such as "
            f"dataset[{some!r}], with a client_id column"
        )
    if isinstance(given, IterableDataset) or type(given).__name__ == "StreamedClients":
        raise ConfigError(f"{name} is streamed ({type(given).__name__}), and a run reads rows again; load it whole")
    if isinstance(given, Mapping):
        rows = list(_rows_of_clients(given, name))
    elif isinstance(given, Dataset):
        rows = list(_rows_of_dataset(given, name))
    elif isinstance(given, list | tuple) and given and all(isinstance(row, Mapping) for row in given):
        rows = list(_rows_of_dataset(list(given), name))
    else:
        raise ConfigError(f"{name} is {kind_of(given)}; pass {_TAKEN}")
    if not rows:
        raise ConfigError(f"{name} holds no rows; pass at least one client with one row")
    return ClientDataset.from_dataset(Dataset.from_list(rows), split=split)


def _rows_of_clients(given: Mapping[Any, Any], name: str) -> Iterator[dict[str, Any]]:
    ids = [str(each) for each in given]
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise ConfigError(f"{name} has two clients that are called {twice!r}; give each an id of its own")
    for key, rows in given.items():
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise ConfigError(f"{name} has {key!r} as a client id, {kind_of(key)}; use text")
        if not isinstance(rows, Dataset | list | tuple):
            raise ConfigError(f"{name}[{key!r}] is {kind_of(rows)}; pass a datasets.Dataset or a list of rows")
        if not len(rows):
            raise ConfigError(f"{name}[{key!r}] holds no rows; leave the client out")
        for index, row in enumerate(rows):
            own = row.get("client_id", str(key)) if isinstance(row, Mapping) else str(key)
            if own != str(key):
                raise ConfigError(f"{name}[{key!r}], row {index}: client_id is {own!r}; give one id or the same twice")
            yield _row(row, str(key), f"{name}[{key!r}], row {index}")


def _rows_of_dataset(given: Any, name: str) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(given):
        if "client_id" not in row:
            raise ConfigError(
                f"{name} has the columns {', '.join(row)[:200]} and no client_id, so nobody knows whose rows these "
                "are; add the column, or pass a dict of datasets by client id"
            )
        yield _row(row, row["client_id"], f"{name}, row {index}")


def _row(row: Any, client_id: Any, place: str) -> dict[str, Any]:
    """One row in the project's format, checked."""
    if not isinstance(row, Mapping):
        raise ConfigError(f"{place} is {kind_of(row)}; a row is a dict with {_FORMATS}")
    made = {name: value for name, value in row.items() if name in _OURS and value is not None}
    if "messages" not in row:
        made |= _from_trl(row, place)
    made |= {"client_id": str(client_id) if isinstance(client_id, int) else client_id}
    task = "sft" if "messages" in made else "preference"
    if problem := row_problem(made, task):
        raise ConfigError(f"{place}: {problem}; mend the row, or make a client repo with fedllm-data import")
    return made


def _from_trl(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Messages, or prompt, chosen and rejected, from TRL's other conversational formats."""
    sides = [row.get(name) for name in ("prompt", "completion", "chosen", "rejected") if name in row]
    if any(isinstance(side, str) for side in sides) or "text" in row:
        raise ConfigError(
            f"{place} is plain text, which TRL trains on without a chat template, and clients are trained with one; "
            f"give {_FORMATS}, or make a client repo with fedllm-data import"
        )
    if {"prompt", "completion", "label"} <= row.keys():
        raise ConfigError(
            f"{place} is unpaired (prompt, completion, label); KTO takes pairs here: prompt, chosen and rejected"
        )
    for name in ("prompt", "completion", "chosen", "rejected"):
        turns = row.get(name, [])
        if not isinstance(turns, list | tuple) or not all(isinstance(turn, Mapping) for turn in turns):
            raise ConfigError(f"{place}: {name} is {kind_of(turns)} and no list of messages; a row needs {_FORMATS}")
    if {"prompt", "completion"} <= row.keys():
        if any(turn.get("role") == "assistant" for turn in row["prompt"]):
            raise ConfigError(
                f"{place} has assistant turns in its prompt, on which TRL would not train and a run with messages "
                "does; pass messages if they are to be trained on, or leave them out"
            )
        return {"messages": [*row["prompt"], *row["completion"]]}
    if {"chosen", "rejected"} <= row.keys():
        chosen, rejected, prompt = list(row["chosen"]), list(row["rejected"]), list(row.get("prompt") or [])
        while not row.get("prompt") and len(chosen) > 1 and len(rejected) > 1 and chosen[0] == rejected[0]:
            prompt, chosen, rejected = [*prompt, chosen[0]], chosen[1:], rejected[1:]
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    raise ConfigError(f"{place} has the columns {', '.join(row)[:200]}; a row needs {_FORMATS}")
