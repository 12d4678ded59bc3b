"""The model card of a finished run, from what its folder holds: config.yaml, rounds.jsonl and scores if there are any.

The words are in `cards/model.md.jinja`. A base model or dataset that is a local folder is named by its last part only:
a card must not tell the paths of the machine it was made on.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from fedllm_train.files import write_bytes
from fedllm_train.run_folder import read_config

__all__ = ["write_run_card"]


def write_run_card(run: Path, *, repo_id: str | None = None) -> Path:
    """Write README.md into a run folder and return its path.

    Args:
        run: a finished run.
        repo_id: where the run will be published; the loading example names it.

    Raises:
        ConfigError: if the folder is not a run folder.
    """
    config = read_config(run)
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    visits = [visit for record in rounds for visit in record["clients"]]
    base, dataset = _public_name(config["model"]["name"]), _public_name(config["data"]["name"])
    scores = run / "scores" / "results.md"
    losses = [record["train_loss"] for record in rounds if record["train_loss"] is not None] or [float("nan")]
    environment = Environment(
        loader=PackageLoader("fedllm_train", "cards"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = environment.get_template("model.md.jinja").render(
        front_matter=_front_matter(config, base, dataset),
        title=(repo_id or run.name).split("/")[-1],
        task_name={"sft": "supervised fine-tuning (SFT)", "dpo": "preference tuning (DPO)"}[config["task"]],
        is_dpo=config["task"] == "dpo",
        num_clients=config["data"]["num_clients"],
        base=base,
        base_revision=config["model"]["revision"],
        start_adapter=config["start_adapter"],
        dataset=dataset,
        dataset_revision=config["data"]["revision"],
        split=config["data"]["split"],
        learning_rate=config["client"]["learning_rate"],
        peft={key: config["peft"].get(key, "not stated") for key in ("r", "lora_alpha", "lora_dropout")},
        clients_seen=len({visit["client_id"] for visit in visits}),
        num_visits=len(visits),
        left_out=sum(len(record["left_out"]) for record in rounds),
        ledger=rounds[-1]["ledger"],
        first_loss=losses[0],
        last_loss=losses[-1],
        scores=scores.read_text(encoding="utf-8") if scores.is_file() else None,
        adapter_path=repo_id or f"{run.name}/adapter",
        **{
            key: config["federated"][key]
            for key in ("strategy", "num_rounds", "cohort_size", "local_steps", "min_learning_rate", "seed")
        },
    )
    write_bytes(run / "README.md", text.encode())
    return run / "README.md"


def _front_matter(config: dict[str, Any], base: str, dataset: str) -> str:
    card = ModelCardData(
        base_model=base if _is_hub_id(config["model"]["name"]) else None,
        datasets=[dataset] if _is_hub_id(config["data"]["name"]) else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["federated-learning", config["task"], "lora", "trl", "fedllm-commons"],
    )
    return str(card.to_yaml())


def _public_name(name: str | None) -> str:
    return "a model made in memory" if name is None else name if _is_hub_id(name) else Path(name).name


def _is_hub_id(name: str | None) -> bool:
    return name is not None and name.count("/") == 1 and not name.startswith((".", "/")) and not Path(name).exists()
