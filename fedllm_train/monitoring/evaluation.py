"""Scores of a finished run: its adapter on the held-out rows of the dataset it was trained on, into its folder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import SCORES
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.inputs import check_options
from fedllm_train.run_files.run_card import write_run_card

if TYPE_CHECKING:
    from fedllm_eval.results import Results

__all__ = ["score_finished_run"]


def score_finished_run(run: Path, clients: ClientDataset | SiteClients, **options: Any) -> "Results":
    """Score a finished run per client and write `scores/` and the card.

    Args:
        run: the run folder.
        clients: the training clients; their repo's held-out splits are scored.
        options: `settings`, `others`, `beside` and `progress` as in `fedllm_eval.run.score_run`.

    Raises:
        ConfigError: if the clients come from no client repo, their rows are at sites, or the run is not finished.
    """
    from fedllm_eval.run import score_run
    from fedllm_eval.score_settings import ScoreSettings

    check_options("evaluate", score_run, options)
    if isinstance(clients, SiteClients):
        raise ConfigError(
            "held-out rows and personal adapters are not here but at their sites "
            f"({', '.join(sorted(clients.facts))}); what the sites scored when the run ended is in {run / SCORES}; "
            "fedllm_eval.run.score_run scores the run on rows that are here"
        )
    if clients.revision is None:
        raise ConfigError(
            "the clients were made in memory and have no held-out splits; score with fedllm_eval.evaluate_policy on "
            "clients of your own"
        )
    settings = options.pop("settings", None) or ScoreSettings()
    if settings.data_revision is None and not Path(clients.name).is_dir():
        settings = replace(settings, data_revision=clients.revision)
    results = score_run(run, clients.name, run / SCORES, settings=settings, **options)
    write_run_card(run)
    return results
