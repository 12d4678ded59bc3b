"""What a run's start was trained on: kept in its config.yaml, and set against what the run will be scored on.

A run that starts from the adapter of another (`--adapter`), or from the model that another left, hands on which
datasets that one was trained on (`fedllm_eval/running/origins.py`). Clients and prompts of this run's held-out splits
that are among them would make every later score of the run look better than it is, so that is said before round 1.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import SchemaError
from fedllm_eval.running.origins import Origins, origins_in, origins_of_name
from fedllm_eval.running.trained_on import ScoredSplits, overlap_with

__all__ = ["HELD_OUT", "earlier_record", "warn_of_earlier", "warn_of_shared"]

logger = logging.getLogger(__name__)

HELD_OUT = ("test", "unseen")


def earlier_record(adapter: str | Path | None, model: object) -> dict[str, Any] | None:
    """Return the section `earlier` of a run's config.yaml: what its start was trained on; None if it starts afresh.

    Args:
        adapter: what the run starts from, if not from a fresh adapter.
        model: name of the base model, or the model itself, of which nothing is known.

    >>> earlier_record(None, None) is None
    True
    """
    of_model = origins_of_name(model) if isinstance(model, str | Path) and Path(model).is_dir() else None
    if adapter is None:
        return None if of_model is None else of_model.as_record()
    of_adapter = origins_of_name(adapter) or Origins((), is_complete=False)
    if of_model is None:
        return of_adapter.as_record()
    complete = of_adapter.is_complete and of_model.is_complete
    return Origins((*of_adapter.known, *of_model.known), complete).as_record()


def warn_of_earlier(clients: ClientDataset, earlier: Mapping[str, Any] | None) -> None:
    """Warn, with counts, if the start was trained on rows of the held-out splits of a run's dataset.

    Args:
        clients: the training clients; in memory they have no held-out splits.
        earlier: as `earlier_record` gives it.
    """
    if earlier is None or clients.revision is None:
        return
    origins = origins_in(earlier)
    if not origins.is_complete:
        logger.warning(
            "what the run starts from does not say all that it was trained on: whether %s's %s are new to it is not "
            "known",
            clients.name,
            " and ".join(HELD_OUT),
        )
    splits = _held_out_splits(clients)
    if not splits or not origins.known:
        return
    for split, overlaps in ScoredSplits(splits).trained_on(origins).items():
        for sentence in (each for overlap in overlaps for each in overlap.notes(split)):
            logger.warning("split %s of %s, before this run: %s", split, clients.name, sentence)


def warn_of_shared(scored: ClientDataset, clients: ClientDataset) -> None:
    """Warn, with counts, about prompts that a run both trains on and is scored on."""
    for sentence in overlap_with([scored], clients)[0].warnings(scored.split):
        logger.warning("eval_dataset %s, split %s: %s", scored.name, scored.split, sentence)


def _held_out_splits(clients: ClientDataset) -> Sequence[ClientDataset]:
    revision = None if Path(clients.name).is_dir() else clients.revision
    found = []
    for split in HELD_OUT:
        try:
            found.append(load_clients(clients.name, split, revision))
        except SchemaError:
            continue  # a dataset need not have every split
    return found
