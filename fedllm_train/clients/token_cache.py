"""A client's rows as token ids, made at the client's first visit and read back from disk at every later one.

The files lie in the run's workspace, one Arrow file a client, named by a hash of the client id (an id never becomes a
path) and memory-mapped: neither time nor memory is spent again. A file ends in its own digest, and one that was
damaged is made again. Only the assistant's tokens carry labels (`fedllm_eval.policy.chat`); truncation and the rows
dropped by it follow TRL 1.16's `_prepare_dataset`. A row that the chat template cannot render is left out and counted.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from trl import KTOConfig, SFTConfig
from trl.data_utils import pack_dataset

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ChatTemplateError
from fedllm_eval.policy.chat import encode_conversation, encode_messages, encode_pair
from fedllm_train.clients.arrow_rows import read_rows
from fedllm_train.clients.objectives import ClientArgs
from fedllm_train.run_files.sealed import is_whole, seal
from fedllm_train.strategy import POOLED

__all__ = ["NUM_OPEN", "ClientTokens", "TokenCache", "encoder_for", "rows_of_row"]

NUM_OPEN = 64
"""Files of the clients that were asked for last stay mapped: few clients are then opened once, many take no more."""
Encoded = dict[str, Any]
Encoder = Callable[[dict[str, Any]], list[Encoded | None]]


@dataclass(frozen=True)
class ClientTokens:
    """What a trainer gets for one client."""

    rows: Dataset
    """`input_ids, labels` for SFT; `prompt_ids, chosen_ids, rejected_ids` for DPO; `prompt_ids, completion_ids, label`
    for KTO."""
    num_rows: int
    """The client's rows that are trained on, two a pair for KTO: the client's weight in the average."""
    num_dropped_rows: int
    """Rows that hold no trained token within `max_length`."""
    unrendered: dict[str, int] = field(default_factory=dict)
    """Reason -> rows that the chat template cannot render, two a pair for KTO."""

    @property
    def num_unrendered_rows(self) -> int:
        """How many rows the chat template cannot render."""
        return sum(self.unrendered.values())

    @property
    def num_all(self) -> int:
        """All of the client's rows, also those that are not trained on; two a pair for KTO."""
        return self.num_rows + self.num_dropped_rows + self.num_unrendered_rows

    def why_empty(self) -> str:
        """Return why none of the client's rows is trained on."""
        reasons = [f"the chat template cannot render {count} ({why})" for why, count in self.unrendered.items()]
        if self.num_dropped_rows or not reasons:
            reasons.insert(0, f"none of its {self.num_dropped_rows} rows holds a trained token within max_length")
        return "; ".join(reasons)


def encoder_for(args: ClientArgs, tokenizer: Any, *, loss_on: str = "assistant") -> Encoder:
    """Return the function from a row of the dataset to the rows of a trainer: two for KTO, else one.

    None stands for a row that truncation leaves without a trained token. The function raises `ChatTemplateError` for a
    row that the chat template cannot render, or in which the assistant's tokens cannot be found.
    """
    keep_start = isinstance(args, KTOConfig) or args.truncation_mode == "keep_start"

    def too_long(encoded: Encoded) -> bool:
        # The collator truncates prompt + completion; a prompt that fills max_length alone leaves nothing to train on.
        return args.max_length is not None and keep_start and len(encoded["prompt_ids"]) >= args.max_length

    def encode_sft(row: dict[str, Any]) -> list[Encoded | None]:
        if loss_on == "all":
            ids = encode_conversation(tokenizer, row["messages"])
            mask = [1] * len(ids)
        else:
            encoded = encode_messages(tokenizer, row["messages"])
            ids, mask = encoded["input_ids"], encoded["assistant_masks"]
        labels = [token if kept else -100 for token, kept in zip(ids, mask, strict=True)]
        # Packing that splits long rows trains on all of them; other packing cuts them where truncation does.
        if args.max_length is not None and not (args.packing and args.packing_strategy != "bfd"):
            window = slice(None, args.max_length) if keep_start else slice(-args.max_length, None)
            ids, labels = ids[window], labels[window]
        # Nothing comes before the first token that it could be predicted from.
        return [{"input_ids": ids, "labels": labels} if any(label != -100 for label in labels[1:]) else None]

    def encode_preference(row: dict[str, Any]) -> list[Encoded | None]:
        encoded = encode_pair(tokenizer, row["prompt"], row["chosen"], row["rejected"])
        return [None if too_long(encoded) else encoded]

    def encode_unpaired(row: dict[str, Any]) -> list[Encoded | None]:
        rows: list[Encoded | None] = []
        for side in ("chosen", "rejected"):
            # KTOTrainer cuts each completion from the prompt on its own, a pair from its likeness so too.
            encoded = encode_pair(tokenizer, row["prompt"], row[side], row[side])
            completion = {"prompt_ids": encoded["prompt_ids"], "completion_ids": encoded["chosen_ids"]}
            rows.append(None if too_long(encoded) else completion | {"label": side == "chosen"})
        return rows

    if isinstance(args, KTOConfig):
        return encode_unpaired
    return encode_sft if isinstance(args, SFTConfig) else encode_preference


def rows_of_row(args: ClientArgs) -> int:
    """Return how many rows a trainer gets of one row of the dataset.

    >>> rows_of_row(SFTConfig(bf16=False)), rows_of_row(KTOConfig(bf16=False))
    (1, 2)
    """
    return 2 if isinstance(args, KTOConfig) else 1


class TokenCache:
    """Token ids of clients, by client id."""

    def __init__(
        self, clients: ClientDataset, args: ClientArgs, tokenizer: Any, folder: Path, *, loss_on: str
    ) -> None:
        """Prepare an empty cache in `folder`, which belongs to one run with one tokenizer and one set of arguments."""
        self._clients = clients
        self._args = args
        self._encode = encoder_for(args, tokenizer, loss_on=loss_on)
        self._folder = folder
        self._whole: set[str] = set()
        self._open: OrderedDict[str, ClientTokens] = OrderedDict()
        folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, client_id: str) -> ClientTokens:
        """Return a client's token ids, encoding the rows at the first call for that client."""
        if client_id in self._open:
            self._open.move_to_end(client_id)
            return self._open[client_id]
        path = self._folder / f"{sha256(client_id.encode()).hexdigest()[:32]}.arrow"
        # Looked at once a process: what this one found whole or wrote is not read through again at every visit.
        if client_id not in self._whole and not is_whole(path):
            self._write(client_id, path)
        self._whole.add(client_id)
        with pa.memory_map(str(path)) as file:
            facts = pa.ipc.open_stream(file).schema.metadata  # `datasets` does not keep what it does not know
        rows = read_rows(path)
        unrendered = json.loads(facts[b"unrendered"])
        tokens = ClientTokens(rows, int(facts[b"num_rows"]), int(facts[b"num_dropped_rows"]), unrendered)
        self._open[client_id] = tokens
        if len(self._open) > NUM_OPEN:
            self._open.popitem(last=False)
        return tokens

    def example(self) -> Dataset:
        """Return one encoded row: a trainer wants to see its data when it is built.

        Clients are tried in order until one has a row to train on.
        """
        for client_id in self._clients:
            rows = self[client_id].rows
            if rows.num_rows:
                return rows.select([0])
        return Dataset.from_dict({})

    def _write(self, client_id: str, path: Path) -> None:
        rows = self._clients.rows if client_id == POOLED else self._clients[client_id]
        encoded: list[Encoded | None] = []
        unrendered: Counter[str] = Counter()
        for row in rows:
            try:
                encoded += self._encode(row)
            except ChatTemplateError as error:
                unrendered[error.reason] += rows_of_row(self._args)
        kept = [row for row in encoded if row is not None]
        columns = list(kept[0]) if kept else []
        kinds = {name: pa.bool_() if name == "label" else pa.list_(pa.int32()) for name in columns}
        table = pa.table({name: pa.array([row[name] for row in kept], kind) for name, kind in kinds.items()})
        if kept and isinstance(self._args, SFTConfig) and self._args.packing:
            packed = pack_dataset(Dataset(table), self._args.max_length, self._args.packing_strategy)
            table = packed.data.table.combine_chunks()
        facts = {"num_rows": str(len(kept)), "num_dropped_rows": str(len(encoded) - len(kept))}
        facts["unrendered"] = json.dumps(unrendered)

        def fill(temporary: Path) -> None:
            with (
                pa.OSFile(str(temporary), "wb") as file,
                pa.ipc.new_stream(file, table.schema.with_metadata(facts)) as out,
            ):
                out.write_table(table.replace_schema_metadata(facts))

        seal(path, fill)
