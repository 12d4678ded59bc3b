"""The adapters that clients end with, for methods that personalise: made after the last round, one PEFT folder each.

`personal/clients.json` maps client ids to folders below `personal/`; each is a plain PEFT adapter on the run's base.
Nothing of it travels in a real federation: a client makes its adapter where its rows are and keeps it there. A run
that is killed here goes on with the clients that are missing, and their adapters are the same to the bit.
"""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.clients.client_memory import client_folder_name
from fedllm_train.engines.engine import ClientTask, ClientUpdate
from fedllm_train.messages import codec
from fedllm_train.messages.broadcast import Broadcast
from fedllm_train.rounds import RunPlan
from fedllm_train.run_files.checkpoint import RunState
from fedllm_train.run_files.files import write_folder, write_json
from fedllm_train.seeds import stream_seed

__all__ = ["make_personal_adapters"]

logger = logging.getLogger(__name__)


def make_personal_adapters(plan: RunPlan, state: RunState, save: Callable[[Adapter, Path], None]) -> dict[str, Any]:
    """Let every client make its own adapter from the finished run.

    Args:
        plan: of the run.
        state: after the last round.
        save: writes an adapter into a folder as PEFT does.

    Returns:
        Client id -> {"folder", "num_steps"}, or {"left_out": reason}; also written to `personal/clients.json`.
    """
    folder, num_rounds = plan.run / "personal", plan.config.num_rounds
    folder.mkdir(exist_ok=True)
    entries: dict[str, Any] = {}
    missing = []
    for client_id in plan.client_ids:
        made = folder / client_folder_name(client_id) / "made.json"
        if made.exists():
            entries[client_id] = json.loads(made.read_text())
        else:
            missing.append(client_id)
    broadcast = Broadcast(plan.strategy, state.server, num_rounds)

    def tasks() -> Iterator[ClientTask]:
        for client_id in missing:
            yield ClientTask(
                round_index=num_rounds,
                client_id=client_id,
                message=broadcast.to(client_id),
                learning_rate=plan.min_learning_rate,
                seed=stream_seed(plan.config.seed, "personal", client_id=client_id),
                personal=True,
            )

    for result in plan.engine.run(tasks()):
        if isinstance(result, ClientUpdate):
            name = client_folder_name(result.client_id)
            entry = {"folder": name, "num_steps": result.num_steps}
            adapter = codec.decode(result.message)["adapter"]

            def fill(path: Path, adapter: Adapter = adapter, entry: dict[str, Any] = entry) -> None:
                save(adapter, path)
                write_json(path / "made.json", entry)

            write_folder(folder / name, fill)
        else:
            entry = {"left_out": result.reason}
        entries[result.client_id] = entry
        logger.info("personal adapter %d of %d", len(entries), len(plan.client_ids))
    ordered = {client_id: entries[client_id] for client_id in plan.client_ids}
    write_json(folder / "clients.json", ordered)
    return ordered
