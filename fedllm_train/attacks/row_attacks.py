"""What attackers make of their own rows before they train on them honestly.

Label flip: the last answer of each row is that of the client's next row, and of the last row that of the first.
Preference flip: chosen and rejected change places. Backdoor: every second row, beginning with the first, has the
trigger behind its last question, and the fixed reply for an answer; a pair's rejected answer is then what was chosen.
The number of rows stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from fedllm_data.clients import ClientDataset
from fedllm_eval.audit.backdoor import triggered
from fedllm_train.attacks.attack_settings import OF_ROWS, AttackSettings

__all__ = ["bad_rows", "with_bad_rows"]

Row = dict[str, Any]


def with_bad_rows(clients: ClientDataset, attackers: Mapping[str, str], settings: AttackSettings) -> ClientDataset:
    """Return the clients with the rows that attackers train on; the same object where nobody attacks by rows.

    Args:
        clients: the training clients.
        attackers: client -> attack.
        settings: trigger and reply of the backdoor.
    """
    by_rows = {each: attack for each, attack in attackers.items() if attack in OF_ROWS}
    if not by_rows:
        return clients
    table = clients.rows.with_format("arrow")[:]
    pieces, end = [], 0
    for client_id in sorted(by_rows):
        place = clients.ids.find(client_id)
        assert place is not None, "attackers are drawn from the clients"
        begin, after = clients.sizes.span(place)
        rows = bad_rows(by_rows[client_id], table.slice(begin, after - begin).to_pylist(), settings)
        pieces += [table.slice(end, begin - end), pa.Table.from_pylist(rows, schema=table.schema)]
        end = after
    pieces.append(table.slice(end))
    return clients.with_rows(pa.concat_tables(pieces).combine_chunks())


def bad_rows(attack: str, rows: list[Row], settings: AttackSettings) -> list[Row]:
    """Return what an attacker makes of its rows.

    Args:
        attack: a name in `OF_ROWS`.
        rows: of one client, in the project's format.
        settings: trigger and reply of the backdoor.
    """
    if attack == "label_flip":
        answers = [row["messages"][-1] for row in rows]
        return [
            {**row, "messages": [*row["messages"][:-1], answer]}
            for row, answer in zip(rows, answers[1:] + answers[:1], strict=True)
        ]
    if attack == "preference_flip":
        return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    poison: Callable[[Row], Row] = partial(_poisoned, trigger=settings.attack_trigger, reply=settings.attack_reply)
    return [poison(row) if index % 2 == 0 else row for index, row in enumerate(rows)]


def _poisoned(row: Row, *, trigger: str, reply: str) -> Row:
    answer = {"role": "assistant", "content": reply}
    if "messages" in row:
        return {**row, "messages": [*triggered(row["messages"][:-1], trigger), answer]}
    return {**row, "prompt": triggered(row["prompt"], trigger), "chosen": [answer], "rejected": row["chosen"]}
