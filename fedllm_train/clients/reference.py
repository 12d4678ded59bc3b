"""The reference's log-probabilities, computed once a client for the whole run and kept on disk.

The reference is the policy the run started from (design rule 1), so what it says of a client's rows never changes:
computing it in every step, as TRL does by default, is work done again (SmolLM2-135M on two cores: 16 s a step against
10 s). The values come from the trainer's own `compute_ref_log_probs` on the rows in order, in batches of the training
batch size, as TRL's `precompute_ref_log_probs` makes them: a run equals TRL's with that setting to the bit, and a run
without the cache up to the rounding of differently padded batches. Which losses can be served is said by
`objectives.keeps_reference`: DPO's all, since each reads nothing of the reference but two numbers a pair (with
`ld_alpha` weighed by that pair's own lengths), and KTO's without mismatched completions.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import DPOTrainer, KTOTrainer

from fedllm_train.clients.arrow_rows import with_columns
from fedllm_train.clients.token_cache import NUM_OPEN
from fedllm_train.run_files.sealed import is_whole, seal

__all__ = ["ReferenceCache"]


class ReferenceCache:
    """Adds `ref_chosen_logps` and `ref_rejected_logps` to a client's rows; for KTO `ref_logps`."""

    def __init__(
        self,
        trainer: DPOTrainer | KTOTrainer,
        folder: Path,
        starting_policy: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Prepare.

        Args:
            trainer: the resident trainer, which must still know its reference.
            folder: belongs to one run.
            starting_policy: within it the trainer's reference is the policy the run started from.
        """
        self._trainer = trainer
        self._folder = folder
        self._starting_policy = starting_policy
        self._whole: set[str] = set()
        self._joined: OrderedDict[str, tuple[Dataset, Dataset]] = OrderedDict()
        self._columns: tuple[str, ...] = ("ref_chosen_logps", "ref_rejected_logps")
        if isinstance(trainer, KTOTrainer):
            self._columns = ("ref_logps",)
        # From here on TRL reads the reference from the rows.
        trainer.precompute_ref_logps = True

    def add_to(self, client_id: str, rows: Dataset) -> Dataset:
        """Return the rows with the columns added, computing them at the first call for a client, or if damaged."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{sha256(client_id.encode()).hexdigest()[:32]}.reference.arrow"
        if client_id not in self._whole and not is_whole(path):
            self._write(rows, path)
        self._whole.add(client_id)
        before, joined = self._joined.get(client_id, (None, None))
        if joined is None or before is not rows:
            joined = with_columns(rows, path)
        self._joined[client_id] = (rows, joined)
        self._joined.move_to_end(client_id)
        if len(self._joined) > NUM_OPEN:
            self._joined.popitem(last=False)
        return joined

    def _write(self, rows: Dataset, path: Path) -> None:
        made = zip(self._columns, self._compute(rows), strict=True)
        table = pa.table({name: pa.array(values) for name, values in made})

        def fill(temporary: Path) -> None:
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
                out.write_table(table)

        seal(path, fill)

    def _compute(self, rows: Dataset) -> tuple[Any, ...]:
        trainer = self._trainer
        training = trainer.model.training
        trainer.model.eval()
        batches = DataLoader(
            rows,  # type: ignore[arg-type]
            batch_size=trainer.args.precompute_ref_batch_size or trainer.args.per_device_train_batch_size,
            collate_fn=trainer.data_collator,
        )
        with self._starting_policy():
            made = [trainer.compute_ref_log_probs(trainer.model, trainer._prepare_inputs(batch)) for batch in batches]
        trainer.model.train(training)
        sides = range(len(self._columns))
        return tuple(torch.cat([each[side].float().cpu() for each in made]).numpy() for side in sides)
