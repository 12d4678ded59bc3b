"""The model card of a finished run, from what its folder holds: config.yaml, rounds.jsonl and scores if there are any.

Instead of rounds.jsonl there may be releases.jsonl, which tells nothing of who took part
(`run_files/publish_run.py`); then neither does the card. The words are in `cards/model.md.jinja`. A base model or
dataset that is a local folder is named by its last part only: a card must not tell the paths of the machine it was
made on.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from fedllm_data.in_place import write_file
from fedllm_eval.policy.run_folder import (
    ADAPTER,
    CARD_FILE,
    MODEL,
    RELEASES_FILE,
    ROUNDS_FILE,
    SCORES,
    read_config,
    read_released_rounds,
)
from fedllm_eval.policy.run_records import RunConfig
from fedllm_eval.texts import whole
from fedllm_train.messages.wire_names import parse_wire
from fedllm_train.messages.wire_words import stages_in_words
from fedllm_train.run_files.former_settings import in_todays_words

__all__ = ["is_hub_id", "write_run_card"]

_TASKS = {
    "sft": "supervised fine-tuning (SFT)",
    "dpo": "preference tuning (DPO)",
    "kto": "preference tuning (KTO)",
}
_COHORTS = {
    "uniform": "drawn uniformly",
    "weighted": "drawn in proportion to their rows",
    "fixed": "the same ones in every round",
    "all": "all of them",
    "poisson": "each drawn on its own (Poisson sampling), the number given on average",
    "fedllm-bench": "drawn as FedLLM-Bench's code draws them",
}
_DIGEST = re.compile("(sha256:)?[0-9a-f]{64}")
"""What a run records as the revision of a folder; on the Hub it is a commit."""
_TEMPLATES = Environment(
    loader=PackageLoader("fedllm_train", "cards"), undefined=StrictUndefined, keep_trailing_newline=True
)


def write_run_card(run: Path, *, repo_id: str | None = None, scores: Path | None = None) -> Path:
    """Write README.md into a run folder and return its path.

    Args:
        run: a finished run.
        repo_id: where the run will be published; the loading example names it.
        scores: Markdown file of the scores to show; by default that in the run's `scores/`.

    Raises:
        ConfigError: if the folder is not a run folder.
    """
    config = read_config(run)
    rounds = read_released_rounds(run)
    scores = scores or run / SCORES / "results.md"
    text = _TEMPLATES.get_template("model.md.jinja").render(
        title=(repo_id or run.name).split("/")[-1],
        scores=scores.read_text(encoding="utf-8") if scores.is_file() else None,
        rounds_file=ROUNDS_FILE if (run / ROUNDS_FILE).is_file() else RELEASES_FILE,
        left_behind=_left_behind(run),
        robustness=_robustness(run),
        **_setting(config, run, repo_id),
        **_course(config, rounds),
    )
    write_file(run / CARD_FILE, whole(text))
    return run / CARD_FILE


def _setting(config: RunConfig, run: Path, repo_id: str | None) -> dict[str, Any]:
    """What was trained on what, and how."""
    from fedllm_train.strategies import strategy_class

    federated, model, data, peft = config["federated"], config["model"], config["data"], config["peft"] or {}
    base, dataset = _public_name(model), _public_name(data)
    traits = strategy_class(federated["strategy"]).traits
    is_lora = peft.get("peft_type", "LORA") == "LORA"
    is_adapter = bool(peft)
    what = {True: "A LoRA adapter" if is_lora else f"An adapter ({peft.get('peft_type')})", False: "A model"}[
        is_adapter
    ]
    return {
        "front_matter": _front_matter(config, base, dataset, is_lora and is_adapter),
        "what": what,
        "is_adapter": is_adapter,
        "lora": {key: peft.get(key, "not stated") for key in ("r", "lora_alpha", "lora_dropout")}
        if is_adapter and is_lora
        else None,
        "peft_type": peft.get("peft_type"),
        "task": config["task"],
        "task_name": _TASKS[config["task"]],
        "is_preference": config["task"] != "sft",
        "travels": traits.travels,
        "personal": traits.personal,
        "method": traits,
        "base": base,
        "base_revision": model["revision"],
        "hub_revision": model["revision"] if _is_on_hub(model) else None,
        "start_adapter": config["start_adapter"],
        "dataset": dataset,
        "dataset_revision": data["revision"],
        "licence": data.get("licence"),
        "split": data["split"],
        "num_clients": data["num_clients"],
        "learning_rate": config["client"]["learning_rate"],
        "local_work": _local_work(federated),
        "cohort_rule": _COHORTS.get(federated.get("cohort_rule", "uniform"), federated.get("cohort_rule")),
        "preset": federated.get("preset"),
        "upload": _upload(federated),
        "download": _download(federated),
        "privacy": config.get("privacy"),
        "secure_sum": federated.get("secure_sum", False),
        "load_best": federated.get("load_best", False),
        "adapter_path": repo_id or f"{run.name}/{ADAPTER if is_adapter else MODEL}",
        "seed": federated.get("seed"),
        **{key: federated[key] for key in ("strategy", "num_rounds", "cohort_size", "min_learning_rate")},
    }


def _course(config: RunConfig, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What happened in the rounds."""
    visits = [visit for record in rounds for visit in record.get("clients", [])]
    losses = [loss for record in rounds if (loss := record.get("train_loss")) is not None]
    errors = [each for record in rounds if (each := record.get("aggregation_error")) is not None]
    monitor = rounds[-1].get("monitor") or next((r["monitor"] for r in reversed(rounds) if "monitor" in r), {})
    default_score = "heldout_loss" if config["task"] == "sft" else "implicit_reward_loss"
    return {
        "rounds_done": len(rounds),
        "clients_seen": len({visit["client_id"] for visit in visits}),
        "num_visits": len(visits),
        "unrendered_rows": sum({v["client_id"]: v.get("num_unrendered_rows", 0) for v in visits}.values()),
        "left_out": sum(len(record.get("left_out", [])) for record in rounds),
        "rounds_without_step": sum(not record.get("server_step", True) for record in rounds),
        "ledger": rounds[-1].get("ledger"),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "aggregation_error": sum(errors) / len(errors) if errors else None,
        "best_round": monitor.get("best_round"),
        "best_value": monitor.get("best_value"),
        "best_score": config["federated"].get("eval_score") or default_score,
        "held_out": _held_out(rounds),
        "epsilon_spent": rounds[-1].get("privacy", {}).get("epsilon"),
    }


def _left_behind(run: Path) -> str | None:
    """The groups of clients with what they gave and how they are served; None where that is not told."""
    from fedllm_eval.plain_json import without_nan
    from fedllm_eval.reporting.all_sections import markdown_lines
    from fedllm_eval.reporting.left_behind_section import left_behind_section
    from fedllm_eval.running.run_left_behind import clients_table_of, left_behind_of_run

    found = left_behind_of_run(run, clients_table_of(run))
    section = left_behind_section({"left_behind": without_nan(found)})
    return None if section is None else "\n".join(markdown_lines(section)).strip()


def _robustness(run: Path) -> str | None:
    """Who attacked, and what the robust sum did to whom; None for a run with neither."""
    from fedllm_eval.reporting.robustness_section import robustness_lines
    from fedllm_eval.running.run_left_behind import clients_table_of
    from fedllm_eval.running.run_robustness import robustness_of_run

    return "\n".join(robustness_lines(robustness_of_run(run, clients_table_of(run)))).strip() or None


def _held_out(rounds: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The scores during the run as a table; at most its newest ten rows."""
    scored = [(record["round_index"], record["eval"]) for record in rounds if "eval" in record]
    names = sorted({name for _, scores in scored for name, value in scores.items() if isinstance(value, dict)})
    if not names:
        return None
    rows = [[str(index), *(_with_interval(scores.get(name)) for name in names)] for index, scores in scored[-10:]]
    num_clients = max(scores[name]["num_clients"] for _, scores in scored for name in names if name in scores)
    return {"split": scored[-1][1]["split"], "names": names, "rows": rows, "num_clients": num_clients}


def _with_interval(score: dict[str, Any] | None) -> str:
    if score is None:
        return "n/a"
    low, high = ("n/a" if score[end] is None else f"{score[end]:.4f}" for end in ("ci_low", "ci_high"))
    return f"{score['mean']:.4f} [{low}, {high}]"


def _local_work(federated: dict[str, Any]) -> str:
    if (epochs := federated.get("local_epochs")) is not None:
        work = f"{epochs:g} local epochs per client"
    elif (epochs := federated.get("expected_epochs")) is not None:
        work = f"as many local steps as make {epochs:g} expected epochs in the whole run"
    else:
        work = f"{federated['local_steps']} local steps per client"
    return work + (" on rows drawn for the round" if federated.get("round_rows", "all") != "all" else "")


def _upload(federated: dict[str, Any]) -> str | None:
    """How updates were packed; None if they were not."""
    federated = in_todays_words(federated)
    wire = federated.get("wire", "none")
    if (stages := parse_wire(wire)) is None:
        return None
    kept = {
        "ef14": ", what is not sent kept and sent later",
        "ef21": ", as corrections of what was sent before",
    }.get(federated.get("error_feedback", "none"), "")
    return f"{stages_in_words(stages)} (`{wire}`){kept}"


def _download(federated: dict[str, Any]) -> str | None:
    """How what the server sends was packed; None if it was not."""
    wire = federated.get("download_wire", "none")
    if (stages := parse_wire(wire, "download_wire")) is None:
        return None
    of = {
        "previous": "changes since the broadcast before",
        "start": "changes since the starting adapter",
        "zero": "the adapter's values",
    }[federated.get("download_base", "previous")]
    return f"{of}: {stages_in_words(stages, 'all values')} (`{wire}`)"


def _front_matter(config: RunConfig, base: str, dataset: str, is_lora: bool) -> str:
    tags = ["federated-learning", config["task"], *(["lora"] if is_lora else []), "trl", "fedllm-commons"]
    card = ModelCardData(
        base_model=base if _is_on_hub(config["model"]) else None,
        datasets=[dataset] if _is_on_hub(config["data"]) else None,
        library_name="peft" if config["peft"] else "transformers",
        pipeline_tag="text-generation",
        tags=tags,
    )
    return str(card.to_yaml())


def _public_name(named: Mapping[str, Any]) -> str:
    name = named["name"]
    return "a model made in memory" if name is None else name if _is_on_hub(named) else Path(name).name


def _is_on_hub(named: Mapping[str, Any]) -> bool:
    return is_hub_id(named["name"], named.get("revision"))


def is_hub_id(name: str | None, revision: str | None = None) -> bool:
    """Return whether a model or dataset was named by its Hub id, not by a folder.

    Args:
        name: as it was given.
        revision: as the run recorded it: a commit on the Hub, or a digest of what the folder held. Where it is
            unknown, a name that is a folder here and now is taken for one.

    >>> is_hub_id("org/fed-oasst", "0" * 40), is_hub_id("data/fed-oasst", "0" * 64), is_hub_id("/data/fed-oasst")
    (True, False, False)
    """
    if name is None or name.count("/") != 1 or name.startswith((".", "/")):
        return False
    if revision is not None:
        return _DIGEST.fullmatch(revision) is None
    return not Path(name).exists()
