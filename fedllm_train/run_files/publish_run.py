"""Publish a finished run as a model repo: the adapter at the root, as PEFT users expect, and the run's own files.

adapter_config.json  adapter_model.safetensors  README.md  config.yaml  rounds.jsonl  [start_adapter/]  [scores/]
tokenizer.json  tokenizer_config.json  chat_template.jinja

A run with full fine-tuning has its model at the root instead, as transformers' users expect. Nobody is named unasked:
clients have running numbers in rounds.jsonl (`privacy/pseudonyms.py`), only scores without a line per client are
pushed, and places on this machine are named by their last part. A run with differential privacy is published as far as
its guarantee goes (`privacy/covered.py`): releases.jsonl instead of rounds.jsonl, config.yaml without the seed, no
scores unless asked for, and a card made from that alone; the secret that its noise was drawn from
(`privacy/secret.py`) is in no list of what is pushed. A run on a local dataset becomes a private repo unless it is to
be public.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.hub.local_paths import hide_paths, local_paths
from fedllm_data.hub.push import PushResult, check_repo_id, push_folder
from fedllm_data.in_place import write_file
from fedllm_data.rehearsal import end_of_checks
from fedllm_eval.policy.run_folder import (
    ADAPTER,
    CARD_FILE,
    CONFIG_FILE,
    MODEL,
    RELEASES_FILE,
    ROUNDS_FILE,
    SCORES,
    START_ADAPTER,
    WORK,
    is_private,
    read_config,
    read_released_rounds,
)
from fedllm_eval.policy.run_records import RunConfig
from fedllm_eval.reporting.unnamed import copy_unnamed
from fedllm_eval.texts import yaml_text
from fedllm_train.privacy.covered import LEAST_SECRET_SEED, covered_config, covered_round
from fedllm_train.privacy.pseudonyms import without_names
from fedllm_train.run_files.run_card import is_hub_id, write_run_card

__all__ = ["new_is_private", "publish_run"]

_NAMES_PLACES = ("*.md", "*.yaml", "*.jsonl", "adapter_config.json", "config.json", "tokenizer_config.json")
"""Files at the root in which a path of this machine may stand; everything under scores/ besides."""


def publish_run(
    run: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    include_clients: bool = False,
    include_scores: bool = False,
    token: str | None = None,
) -> PushResult:
    """Push a finished run to the Hub in one commit.

    Args:
        run: a finished run folder.
        repo_id: `namespace/name`; the repo is made if it does not exist.
        private: make a new repo private or public; None makes it private where the dataset is a local folder, and as
            the Hub does by default otherwise.
        include_clients: also push what names single clients: their ids, row counts and losses in rounds.jsonl, and the
            tables of scores per client and row. Refused for a run with differential privacy.
        include_scores: also push the scores of a run with differential privacy, though they come from clients' rows
            without noise; other runs' scores are always pushed.
        token: access token; by default the one of `hf auth login` or HF_TOKEN.

    Returns:
        Where the run is now; its notes say what was not pushed.

    Raises:
        ConfigError: if the run has no adapter yet, or clients of a private run are asked for.
        HubError: if the Hub cannot be reached or refuses.

    >>> publish_run(Path("no-such-run"), "org/name")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no-such-run has no adapter/ yet; finish the run first, with --resume if it stopped
    """
    check_repo_id(repo_id)
    made = run / ADAPTER if (run / ADAPTER / "adapter_config.json").is_file() else run / MODEL
    if not made.is_dir():
        raise ConfigError(f"{run} has no adapter/ yet; finish the run first, with --resume if it stopped")
    config = read_config(run)
    covered_only = is_private(config)
    if covered_only and include_clients:
        raise ConfigError(
            f"{run} has a guarantee of differential privacy, which covers nothing that speaks of single clients; "
            "leave out --include-clients"
        )
    end_of_checks()
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        shutil.copytree(made, staged, dirs_exist_ok=True)
        if (run / START_ADAPTER).is_dir():
            shutil.copytree(run / START_ADAPTER, staged / START_ADAPTER)
        if include_scores or not covered_only:
            _stage_scores(run, staged, include_clients=include_clients)
        if covered_only:
            _stage_covered(run, config, staged)
            # Made from what is pushed, so that it cannot tell more; the run folder keeps its own.
            write_run_card(staged, repo_id=repo_id)
        else:
            for name in (CONFIG_FILE, ROUNDS_FILE):
                shutil.copy(run / name, staged / name)
            # Its words count from the whole run; its scores are those that are pushed.
            write_run_card(run, repo_id=repo_id, scores=staged / SCORES / "results.md")
            shutil.copy(run / CARD_FILE, staged / CARD_FILE)
            if not include_clients:
                _write_rounds(staged / ROUNDS_FILE, without_names(read_released_rounds(run)))
        _hide_places(staged, config, run)
        result = push_folder(
            staged,
            repo_id,
            repo_type="model",
            private=new_is_private(config, private),
            token=token,
        )
    notes = _notes(run, config, include_scores) if covered_only else [] if include_clients else [_named_nobody(run)]
    if private is None and new_is_private(config):
        notes.append("a new repo is private, since the dataset is not one on the Hub; --public makes it public")
    return replace(result, notes=(*result.notes, *notes))


def new_is_private(config: Mapping[str, Any], private: bool | None = None) -> bool | None:
    """Return whether a new repo for a run is made private; None leaves it to the Hub.

    Args:
        config: the run's `config.yaml`.
        private: what was asked for.

    >>> new_is_private({"data": {"name": "tickets"}}), new_is_private({"data": {"name": "tickets"}}, private=False)
    (True, False)
    """
    if private is None and not is_hub_id(config["data"]["name"], config["data"].get("revision")):
        return True
    return private


def _stage_scores(run: Path, staged: Path, *, include_clients: bool) -> None:
    """Copy the scores, without what speaks of single clients unless it is asked for."""
    scores, place = run / SCORES, staged / SCORES
    if not scores.is_dir():
        return
    if include_clients:
        shutil.copytree(scores, place, ignore=shutil.ignore_patterns(WORK))
    else:
        copy_unnamed(scores, place)
    if (place / ".eval_results").is_dir():
        # At the root of the repo, where the Hub looks for it.
        shutil.copytree(place / ".eval_results", staged / ".eval_results")


def _stage_covered(run: Path, config: RunConfig, staged: Path) -> None:
    """Write settings and rounds, as far as the guarantee covers them."""
    covered = covered_config(
        config, dataset_is_public=is_hub_id(config["data"]["name"], config["data"].get("revision"))
    )
    write_file(staged / CONFIG_FILE, yaml_text(covered), sync=False)
    _write_rounds(staged / RELEASES_FILE, [covered_round(record) for record in read_released_rounds(run)])


def _write_rounds(path: Path, records: list[dict[str, Any]]) -> None:
    write_file(path, "".join(json.dumps(record) + "\n" for record in records), sync=False)


def _hide_places(staged: Path, config: Mapping[str, Any], run: Path) -> None:
    """Name places on this machine by their last part, in every file that may name one."""
    files = [path for pattern in _NAMES_PLACES for path in staged.glob(pattern)]
    files += [path for path in staged.glob(f"{START_ADAPTER}/*.json") if path.name == "adapter_config.json"]
    files += [path for path in staged.glob(f"{SCORES}/**/*") if path.suffix in (".json", ".md", ".html", ".yaml")]
    places = local_paths(config)
    for path in files:
        if path.suffix == ".json":
            places |= local_paths(json.loads(path.read_text(encoding="utf-8")))
    # Not home or the working folder where they are the root of the file system: a slash stands everywhere.
    places |= {str(place) for place in (run.resolve(), Path.cwd(), Path.home()) if len(place.parts) > 1}
    for path in files:
        text = path.read_text(encoding="utf-8")
        if (hidden := hide_paths(text, places)) != text:
            write_file(path, hidden, sync=False)


def _named_nobody(run: Path) -> str:
    tables = " and scores/ has no tables per client" if (run / SCORES).is_dir() else ""
    return f"nobody is named: rounds.jsonl numbers the clients{tables}; --include-clients pushes ids and losses, too"


def _notes(run: Path, config: RunConfig, include_scores: bool) -> list[str]:
    """What whoever publishes a private run should know."""
    what = f"{ROUNDS_FILE} ({RELEASES_FILE} replaces it), the seed"
    notes = [f"not pushed, since the guarantee does not cover it: {what}"]
    if (run / SCORES).is_dir():
        if include_scores:
            notes.append("pushed, though the guarantee does not cover them: scores")
        else:
            notes[0] += ", scores"
    if config["privacy"].get("randomness") is None and config["federated"]["seed"] < LEAST_SECRET_SEED:
        notes.append(
            "noise and cohorts of this run follow from its seed, which is small enough to be found by trying; train "
            "again what is published, with noise that is drawn from a secret"
        )
    return notes
