"""How the shipped base model is made, step by step, and what it scores; run it to make the folder again.

    python -m fedllm_train.models.base_recipe [--out FOLDER]

Builds the corpus, trains by `tiny.py` (a minute or two on one core), rounds the weights to bfloat16 and writes
`RECIPE.json`. The same versions on the same kind of processor give the same files, whatever the number of threads.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.in_place import fill_folder
from fedllm_data.sources import SOURCES
from fedllm_train.models.shipped_base import BASE_SEED, RECIPE_FILE, SHIPPED_BASE
from fedllm_train.models.tiny import train_tiny
from fedllm_train.run_files.open_run import package_versions

__all__ = ["CORPUS", "make_base", "mean_loss", "rows_digest"]

CORPUS = "fed-synth"
NUM_SCORED_ROWS = 200
COMMANDS = (
    f"fedllm-data build {CORPUS} --seed {BASE_SEED} --out corpus",
    f"fedllm-train tiny --data corpus --out base --seed {BASE_SEED}",
)


def make_base(out: Path, public: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Train the base model, write its folder and return its recipe.

    Args:
        out: folder to write; an earlier model there is replaced.
        public: the public rows of the corpus, in their order.

    >>> import tempfile
    >>> turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_base(Path(folder) / "base", [])
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no rows: training data of the tiny model; ...
    """
    with tempfile.TemporaryDirectory() as place:
        made = train_tiny(public, Path(place) / "base", seed=BASE_SEED)
        weights = {name: tensor.bfloat16() for name, tensor in load_file(made.path / "model.safetensors").items()}
        # The configuration keeps saying float32, and that is what the weights are loaded as.
        save_file(weights, made.path / "model.safetensors", metadata={"format": "pt"})
        recipe = {
            "commands": [*COMMANDS, "the weights rounded to bfloat16"],
            "made_by": "python -m fedllm_train.models.base_recipe",
            "seed": BASE_SEED,
            "corpus": {"name": CORPUS, "split": "public", "num_rows": len(public), "sha256": rows_digest(public)},
            "num_parameters": made.num_parameters,
            "num_steps": made.num_steps,
            "train_loss": {"first": round(made.first_loss, 3), "last": round(made.last_loss, 3)},
            "score": {"num_rows": NUM_SCORED_ROWS, "mean_loss": round(mean_loss(made.path, public), 4)},
            "versions": package_versions(),
            "files": {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(made.path.iterdir())},
        }
        with fill_folder(out, mark="config.json") as folder:
            for path in made.path.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            (folder / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return recipe


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of what rows say, in their order.

    >>> rows_digest([{"messages": []}])[:8]
    '37517e5f'
    """
    digest = sha256()
    for row in rows:
        digest.update(json.dumps(row["messages"], ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


@torch.no_grad()
def mean_loss(folder: Path, rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean over the first rows of the loss of a whole conversation, in nats a token.

    Args:
        folder: a base model.
        rows: rows with a `messages` column; the first 200 are scored.

    >>> mean_loss(SHIPPED_BASE, [{"messages": [{"role": "user", "content": "2 + 2?"}]}]) > 0
    True
    """
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    losses = []
    for index in range(min(NUM_SCORED_ROWS, len(rows))):
        text = tokenizer.apply_chat_template(rows[index]["messages"], tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        losses.append(model(input_ids=ids, labels=ids, use_cache=False).loss.item())
    return sum(losses) / len(losses)


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED_BASE, help="folder to write (default: the package's own)")
    out = parser.parse_args().out
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as place:
        build(SOURCES[CORPUS], Path(place) / CORPUS, seed=BASE_SEED)
        print(json.dumps(make_base(out, load_clients(Path(place) / CORPUS, "public").rows), indent=2))


if __name__ == "__main__":
    main()
