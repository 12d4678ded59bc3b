"""From names to a results folder: the whole of `fedllm-eval run` as one call."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.repo import FolderRepo, open_repo, split_of_file
from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.results import FILES, Results, check_out, make_results, write_results

__all__ = ["score_run"]

DEFAULT_SPLITS = ("test", "unseen")
DEFAULT_BETA = 0.1
"""TRL's default."""


def score_run(
    run_or_model: str | Path,
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    reference: str | Path | None = None,
    splits: Sequence[str] | None = None,
    beta: float | None = None,
    max_clients: int | None = None,
    max_rows_per_client: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    data_revision: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Results:
    """Score a run, an adapter or a model on each client of a client repo.

    Args:
        run_or_model: what is scored: run folder, adapter or plain model; folder or Hub id.
        repo_or_dir: client repo: folder or Hub id.
        out: results folder to write; None writes nothing.
        reference: what implicit rewards are measured against; by default what the run or adapter started from. A
            plain model has no such thing, and its implicit rewards are left out.
        splits: by default `test` and `unseen`, as far as the repo has them.
        beta: DPO's beta; by default the run's own, else 0.1.
        max_clients: score at most so many clients of each split.
        max_rows_per_client: score at most so many rows of each client.
        batch_size: sequences a batch holds at most.
        max_length: tokens a sequence keeps; by default 1,024 or as many as the model holds.
        seed: of the samples and of the bootstrap.
        revision: of `run_or_model` on the Hub.
        data_revision: of `repo_or_dir` on the Hub.
        progress: told (split and policy, sequences done, sequences in all) after every batch.

    Raises:
        ConfigError: if the policy, the reference or a setting cannot be used; before anything is scored.
        SchemaError: if the repo is no client repo or has no such split.
        HubError: if something cannot be fetched.
        MetricError: if no client has a row that can be scored.

    >>> score_run("no/such/folder", "no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    if out is not None:
        check_out(out, FILES)
    all_clients = _load_splits(repo_or_dir, splits, data_revision)

    from fedllm_eval.models import load_policy, load_reference

    policy = load_policy(run_or_model, revision)
    against = None
    if all_clients[0].task == "preference":
        if reference is not None:
            against = load_policy(reference, share=policy)
        elif policy.adapter is not None:
            against = load_reference(policy)
    own_beta = policy.location.beta if policy.location else None
    scores = [
        evaluate_policy(
            policy,
            clients,
            reference=against,
            beta=beta if beta is not None else own_beta if own_beta is not None else DEFAULT_BETA,
            batch_size=batch_size,
            max_length=max_length,
            max_clients=max_clients,
            max_rows_per_client=max_rows_per_client,
            seed=seed,
            progress=_told(progress, clients.split),
        )
        for clients in all_clients
    ]
    results = make_results(scores, seed=seed)
    if out is not None:
        write_results(results, out)
    return results


def _load_splits(repo_or_dir: str | Path, splits: Sequence[str] | None, revision: str | None) -> list[ClientDataset]:
    repo = open_repo(repo_or_dir, revision)
    if splits is None:
        present = {split_of_file(path) for path in repo.files()}
        splits = [split for split in DEFAULT_SPLITS if split in present]
        if not splits:
            raise ConfigError(
                f"{repo_or_dir} has neither a test nor an unseen split; name what to score by --splits, for instance "
                "--splits train"
            )
    # All splits come from the commit that `revision` stood for when the repo was opened.
    pinned = None if isinstance(repo, FolderRepo) else repo.revision
    return [load_clients(repo_or_dir, split, pinned) for split in dict.fromkeys(splits)]


def _told(progress: Callable[[str, int, int], None] | None, split: str) -> Callable[[str, int, int], None] | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{split}, {what}", done, total)
