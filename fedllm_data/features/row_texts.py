"""Which text of a row is what: the turns of a role, in Arrow, without a Python object a message.

`sft` rows: the instruction is all the user's messages, the response all the assistant's. `preference` rows: the
instruction is the user's messages of `prompt`, the responses are those of `chosen` and `rejected`. System messages
count for neither.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedllm_data.features.token_counts import Tokenizer, count_tokens
from fedllm_data.schema import Task

__all__ = ["Turns", "instructions", "turns_of"]

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Turns:
    """The messages of one role in N rows."""

    texts: pa.StringArray
    """All of them, row after row."""
    num_turns_N: IntArray

    def tokens(self, tokenizer: Tokenizer) -> IntArray:
        """Return the number of tokens of each row, over all its turns."""
        sums = np.zeros(len(self.num_turns_N), np.int64)
        row_of_turn = np.repeat(np.arange(len(sums)), self.num_turns_N)
        np.add.at(sums, row_of_turn, count_tokens(tokenizer, self.texts))
        return sums

    def joined(self) -> list[str]:
        """Return one text per row: its turns, one per line; empty if the role does not speak."""
        starts = np.concatenate([[0], np.cumsum(self.num_turns_N)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(starts), self.texts)
        texts: list[str] = pc.binary_join(lists, "\n").to_pylist()
        return texts


def turns_of(messages: pa.ChunkedArray, role: str) -> Turns:
    """Return the messages of a role.

    Args:
        messages: a column of lists of `{role, content}`.
        role: "user" or "assistant".

    >>> column = pa.chunked_array([[[{"role": "user", "content": "Hi"}], []]])
    >>> turns_of(column, "user").joined()
    ['Hi', '']
    """
    lists = messages.combine_chunks()
    turns, row_of_turn = pc.list_flatten(lists), pc.list_parent_indices(lists)
    is_role = pc.equal(pc.struct_field(turns, "role"), role)
    rows = np.asarray(row_of_turn.filter(is_role).to_numpy(zero_copy_only=False), np.int64)
    return Turns(pc.struct_field(turns, "content").filter(is_role), np.bincount(rows, minlength=len(lists)))


def instructions(rows: pa.Table, task: Task) -> list[str]:
    """Return what the user said in each row: the text that is embedded.

    Args:
        rows: rows in the format of `fedllm_data.schema`.
        task: which of the two formats.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    >>> instructions(pa.Table.from_pylist([{"messages": turns}]), "sft")
    ['Hi']
    """
    return turns_of(rows["messages" if task == "sft" else "prompt"], "user").joined()
