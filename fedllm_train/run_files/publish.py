"""Publish a finished run as a model repo: the adapter at the root, as PEFT users expect, and the run's own files.

adapter_config.json  adapter_model.safetensors  README.md  config.yaml  rounds.jsonl  [start_adapter/]  [scores/]
tokenizer.json  tokenizer_config.json  chat_template.jinja

A run with full fine-tuning has its model at the root instead, as transformers' users expect. One with
differential privacy is published as far as its guarantee goes (`privacy/covered.py`): releases.jsonl in the place of
rounds.jsonl, config.yaml without the seed, no scores unless asked for, and a card made from that alone.
"""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from fedllm_data.errors import ConfigError
from fedllm_data.hub.push import PushResult, push_folder
from fedllm_train.privacy.covered import LEAST_SECRET_SEED, covered_config, covered_round, is_private
from fedllm_train.run_files.card import RELEASES, is_hub_id, read_rounds, write_run_card
from fedllm_train.run_files.files import write_bytes
from fedllm_train.run_files.run_folder import read_config

__all__ = ["publish_run"]


def publish_run(
    run: Path, repo_id: str, *, private: bool = False, include_scores: bool = False, token: str | None = None
) -> PushResult:
    """Push a finished run to the Hub in one commit.

    Args:
        run: a finished run folder.
        repo_id: `namespace/name`; the repo is made if it does not exist.
        private: make the repo private.
        include_scores: of a run with differential privacy, push the scores too, though they come from clients' rows
            without noise; those of other runs are always pushed.
        token: access token; by default the one of `hf auth login` or HF_TOKEN.

    Returns:
        Where the run is now; with differential privacy its notes say what was not pushed.

    Raises:
        ConfigError: if the run has no adapter yet.
        HubError: if the Hub cannot be reached or refuses.

    >>> publish_run(Path("no-such-run"), "org/name")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no-such-run has no adapter/ yet; finish the run first, with --resume if it stopped
    """
    made = run / "adapter" if (run / "adapter" / "adapter_config.json").is_file() else run / "model"
    if not made.is_dir():
        raise ConfigError(f"{run} has no adapter/ yet; finish the run first, with --resume if it stopped")
    config = read_config(run)
    covered_only = is_private(config)
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder)
        shutil.copytree(made, staged, dirs_exist_ok=True)
        parts = ["start_adapter"]
        if include_scores or not covered_only:
            parts.append("scores")
        for name in parts:
            if (run / name).is_dir():
                shutil.copytree(run / name, staged / name, ignore=shutil.ignore_patterns(".work"))
        if (staged / "scores" / ".eval_results").is_dir():
            # At the root of the repo, where the Hub looks for it.
            shutil.copytree(staged / "scores" / ".eval_results", staged / ".eval_results")
        if covered_only:
            _stage_covered(run, config, staged)
            # Made from what is pushed, so that it cannot tell more; the run folder keeps its own.
            write_run_card(staged, repo_id=repo_id)
        else:
            write_run_card(run, repo_id=repo_id)
            for name in ("README.md", "config.yaml", "rounds.jsonl"):
                shutil.copy(run / name, staged / name)
        result = push_folder(staged, repo_id, repo_type="model", private=private, token=token)
    return replace(result, notes=(*result.notes, *_notes(run, config, include_scores))) if covered_only else result


def _stage_covered(run: Path, config: dict[str, Any], staged: Path) -> None:
    """Write settings and rounds, as far as the guarantee covers them."""
    covered = covered_config(config, dataset_is_public=is_hub_id(config["data"]["name"]))
    write_bytes(staged / "config.yaml", yaml.safe_dump(covered, sort_keys=False, allow_unicode=True).encode())
    lines = [json.dumps(covered_round(record)) + "\n" for record in read_rounds(run)]
    write_bytes(staged / RELEASES, "".join(lines).encode())


def _notes(run: Path, config: dict[str, Any], include_scores: bool) -> list[str]:
    """What whoever publishes a private run should know."""
    notes = [f"not pushed, since the guarantee does not cover it: rounds.jsonl ({RELEASES} is in its place), the seed"]
    if (run / "scores").is_dir():
        if include_scores:
            notes.append("pushed, though the guarantee does not cover them: scores")
        else:
            notes[0] += ", scores"
    if config["federated"]["seed"] < LEAST_SECRET_SEED:
        notes.append(
            "the seed is small enough to be found by trying, and noise and cohorts follow from it; train what is "
            f"published with a random --seed of {LEAST_SECRET_SEED:,} or more"
        )
    return notes
