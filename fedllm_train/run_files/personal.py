"""The adapters that clients end with, for methods that personalise: made after the last round, as plain PEFT folders.

`personal/clients.json` maps client ids to folders below `personal/`; each is a plain PEFT adapter on the run's base.
A folder is named by what it holds, so clients with one adapter (a language's, the starting one) share it. Clients that
never took part have learned nothing, and making theirs costs a visit and a folder each: they are left out unless all
are asked for (`personal_clients`).

Nothing of it travels in a real federation: a client makes its adapter where its rows are and keeps it there. A run
that is killed here resumes with the clients that are missing (`made.jsonl`), and their adapters are the same to the
bit.
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from fedllm_data.in_place import fill_folder, write_file
from fedllm_eval.policy.run_folder import PERSONAL, PERSONAL_CLIENTS, ROUNDS_FILE, whole_lines
from fedllm_eval.policy.run_records import PersonalClient, PersonalClients
from fedllm_eval.texts import json_text
from fedllm_train.adapters.arithmetic import Adapter, adapter_sha256
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply, replies_of
from fedllm_train.messages import codec
from fedllm_train.round_plan import RoundPlan
from fedllm_train.run_files.checkpoint import RunState
from fedllm_train.run_files.run_writing import write_json
from fedllm_train.seeds import stream_rng

__all__ = ["made_before", "make_personal_adapters", "visited_clients"]

logger = logging.getLogger(__name__)

_MADE = "made.jsonl"
_NAME_LENGTH = 32
"""Hex digits of an adapter's SHA-256 that its folder is called by."""


def make_personal_adapters(
    plan: RoundPlan,
    state: RunState,
    save: Callable[[Adapter, Path], None],
    *,
    config: FederatedConfig,
    client_ids: Sequence[str],
    stay_at_sites: bool = False,
) -> PersonalClients:
    """Let the clients that are asked for make their own adapters from the finished run.

    Args:
        plan: the plan of the run's rounds.
        state: the state after the last round.
        save: writes an adapter into a folder as PEFT does.
        config: the settings of the federation; `personal_clients` says whose adapters are made.
        client_ids: clients that may take part.
        stay_at_sites: whether the clients' rows are at sites, and their adapters stay with them.

    Returns:
        Client id -> {"folder", "num_steps"}, or {"left_out": reason}; also written to `personal/clients.json`.
    """
    folder = plan.run / PERSONAL
    folder.mkdir(exist_ok=True)
    asked = _asked_for(config, client_ids, plan.run)
    made = made_before(folder)
    entries = {client_id: made[client_id] for client_id in asked if client_id in made}
    missing = [client_id for client_id in asked if client_id not in made]
    ask = plan.task_for(state, purpose="personal", step=plan.num_rounds)

    # Without the line that was being written when the process died, if any.
    write_file(folder / _MADE, "".join(_line(client_id, entry) for client_id, entry in made.items()))
    with (folder / _MADE).open("a", encoding="utf-8") as done:
        plan.engine.submit(ask(client_id) for client_id in missing)
        for reply in replies_of(plan.engine):
            entry: PersonalClient
            if reply.reason is None and stay_at_sites:
                entry = _at_site(reply)
            elif reply.message is not None:
                adapter = codec.decode(reply.message)["adapter"]
                name = adapter_sha256(adapter)[:_NAME_LENGTH]
                if not (folder / name).exists():
                    with fill_folder(folder / name) as own:
                        save(adapter, own)
                entry = {"folder": name, "num_steps": reply.facts["num_steps"]}
            else:
                entry = {"left_out": reply.reason}
            entries[reply.client_id] = entry
            done.write(_line(reply.client_id, entry))
            done.flush()
            logger.info("personal adapter %d of %d", len(entries), len(asked))
    ordered = {client_id: entries[client_id] for client_id in asked}
    write_json(folder / PERSONAL_CLIENTS, ordered)
    return ordered


def _at_site(reply: Reply) -> PersonalClient:
    """What is recorded of an adapter that stays where it was made; a site's word is checked, as all that it sends."""
    if reply.message is not None:
        return {"left_out": "its site sent the adapter, which was to stay there; it was dropped unread"}
    digest, num_steps = reply.facts.get("adapter_sha256"), reply.facts.get("num_steps")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest) or type(num_steps) is not int:
        return {"left_out": "its site did not say which adapter it made (adapter_sha256 and num_steps)"}
    return {"adapter_sha256": digest, "num_steps": num_steps}


def _asked_for(config: FederatedConfig, client_ids: Sequence[str], run: Path) -> list[str]:
    """The clients whose adapters are made, in the order in which they are registered."""
    if config.personal_clients == "all":
        return list(client_ids)
    visited = visited_clients(run / ROUNDS_FILE)
    chosen = [client_id for client_id in client_ids if client_id in visited]
    if config.personal_clients == "visited" or (number := int(config.personal_clients)) >= len(chosen):
        return chosen
    rng = stream_rng(config.seed, "personal_clients")
    return [chosen[position] for position in sorted(rng.choice(len(chosen), size=number, replace=False))]


def visited_clients(rounds: Path) -> set[str]:
    """Return the clients that were asked in any round, whether or not their reply was used.

    Args:
        rounds: `rounds.jsonl`; a damaged line names nobody.
    """
    return {
        each["client_id"]
        for record in whole_lines(rounds)
        for each in (*record.get("clients", ()), *record.get("left_out", ()))
    }


def made_before(folder: Path) -> PersonalClients:
    """Return what was made before the run was stopped, by client; damaged lines and lost folders do not count."""
    made: PersonalClients = {}
    path = folder / _MADE
    for entry in whole_lines(path) if path.is_file() else ():
        if "client_id" not in entry or ("folder" in entry and not (folder / entry["folder"]).is_dir()):
            continue
        made[entry.pop("client_id")] = cast("PersonalClient", entry)
    return made


def _line(client_id: str, entry: PersonalClient) -> str:
    return json_text({"client_id": client_id, **entry}) + "\n"
