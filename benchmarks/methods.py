"""All methods on one corpus, three seeds, client by client: what helped whom, and what it cost.

    python benchmarks/methods.py fed-synth --data CLIENTS --model BASE --out methods
    python benchmarks/methods.py fed-synth-newer --data CLIENTS --model BASE --out methods
    python benchmarks/methods.py fed-oasst --data CLIENTS --model BASE --out methods
    python benchmarks/methods.py fed-oasst-smollm2 --data CLIENTS --model SMOLLM2 --out methods

Every method trains the same clients for as many rounds, cohorts and local steps, from the same base, once a seed; what
is scored is the held-out loss of each client on its own test rows (with its own adapter, where the method gives it
one) and of clients nobody trained on. Comparisons are paired by client over all seeds and corrected for the number of
methods (`fedllm-eval compare`). A run that is there already is not made again, so the script may be stopped. Results:
`results/methods_<corpus>.json`, the comparisons in `results/methods_<corpus>/`, and `results/methods.md` from all of
them.
"""

import argparse
import json
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from datasets import disable_progress_bars  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig  # noqa: E402
from trl import SFTConfig  # noqa: E402

from fedllm_data.clients import ClientDataset, load_clients  # noqa: E402
from fedllm_eval.compare import compare_results  # noqa: E402
from fedllm_eval.comparing.comparison_files import write_comparison  # noqa: E402
from fedllm_eval.comparing.comparison_verdicts import OF_RUNS  # noqa: E402
from fedllm_eval.per_client import evaluate_policy, sample_positions  # noqa: E402
from fedllm_eval.policy.policies import Policy, load_policy  # noqa: E402
from fedllm_eval.policy.run_folder import personal_folders  # noqa: E402
from fedllm_eval.reporting.results_folder import write_results  # noqa: E402
from fedllm_eval.running.assemble import make_results  # noqa: E402
from fedllm_eval.running.personal_scores import evaluate_personal  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer  # noqa: E402
from fedllm_train.strategies import STRATEGIES, users_of  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
SCORE = "heldout_loss"
SETTINGS: dict[str, dict[str, Any]] = {
    "fed-synth": {
        "num_clients": 30,
        "num_unseen": 30,
        "max_rows": 8,
        "federated": {"num_rounds": 6, "cohort_size": 5, "local_steps": 4, "personal_steps": 4},
        "client": {"learning_rate": 3e-3, "per_device_train_batch_size": 8, "max_length": 128},
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "ranks": "2,4,8",
    },
    "fed-synth-newer": {
        "methods": [
            *("local", "fedavg", "ffa_lora", "fedex_lora", "fed_sb", "ravan", "fedsvd", "fedrot_lora"),
            *("fedmomentum", "fedbiscuit", "language_clusters"),
        ],
        "learning_rates": {"ravan": 3e-2},
        "num_clients": 30,
        "num_unseen": 30,
        "max_rows": 8,
        "federated": {"num_rounds": 6, "cohort_size": 5, "local_steps": 4, "personal_steps": 4},
        "client": {"learning_rate": 3e-3, "per_device_train_batch_size": 8, "max_length": 128},
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "ranks": "2,4,8",
    },
    "fed-oasst": {
        "num_clients": 30,
        "num_unseen": 30,
        "max_rows": 4,
        "federated": {"num_rounds": 6, "cohort_size": 5, "local_steps": 4, "personal_steps": 4},
        "client": {"learning_rate": 3e-3, "per_device_train_batch_size": 4, "max_length": 128},
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "ranks": "2,4,8",
    },
    "fed-oasst-smollm2": {
        "methods": [
            *("local", "centralized", "fedavg", "scaffold", "ffa_lora", "flexlora", "ditto"),
            *("ravan", "fedsvd", "fedrot_lora", "fedmomentum", "fedbiscuit"),
        ],
        "learning_rates": {"ravan": 1e-2},
        "num_clients": 16,
        "num_unseen": 16,
        "max_rows": 2,
        "federated": {"num_rounds": 4, "cohort_size": 3, "local_steps": 2, "personal_steps": 2},
        "client": {"learning_rate": 1e-3, "per_device_train_batch_size": 2, "max_length": 96},
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        "ranks": "2,4,8",
    },
}


def main() -> None:
    """Train and score what is missing, then compare and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=SETTINGS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("methods"))
    parser.add_argument("--methods", nargs="+", choices=list(STRATEGIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    given = parser.parse_args()
    given.methods = given.methods or SETTINGS[given.corpus].get("methods", list(STRATEGIES))
    disable_progress_bars()
    out, settings = given.out / given.corpus, SETTINGS[given.corpus]
    train, test, unseen = chosen_clients(given.data, settings)
    base = load_policy(given.model)
    score(base, test, unseen, settings, out / "scores" / "base", out / "scores" / "base-personal")
    for seed in given.seeds:
        for method in given.methods:
            one_run(method, seed, train, test, unseen, base, settings, out)
    tables = {kind: compared(kind, "base", given, out) for kind in ("global", "personal")}
    if "fedavg" in given.methods:
        tables |= {f"{kind}_against_fedavg": compared(kind, "fedavg", given, out) for kind in ("global", "personal")}
    runs = {
        name: json.loads((out / "runs" / name / "facts.json").read_text())
        for method in given.methods
        for name in (f"{method}-{seed}" for seed in given.seeds)
    }
    result = {"settings": settings, "seeds": given.seeds, "clients": len(train), "runs": runs, **tables}
    print(write_result(f"methods_{given.corpus.replace('-', '_')}", result))
    (RESULTS / "methods.md").write_text(report())


def chosen_clients(data: Path, settings: dict[str, Any]) -> tuple[ClientDataset, ClientDataset, ClientDataset]:
    """Clients that have test rows first, then by the size of their training rows; and people nobody trained on."""
    train, test, unseen = (load_clients(data, split) for split in ("train", "test", "unseen"))
    ids = sorted(train, key=lambda client_id: (client_id not in test, -train.sizes[client_id], client_id))
    ids = ids[: settings["num_clients"]]
    people = list(unseen)
    others = [people[position] for position in sample_positions(people, settings["num_unseen"], 0, "clients")]
    return train.select(ids), test.select([client_id for client_id in ids if client_id in test]), unseen.select(others)


def one_run(
    method: str,
    seed: int,
    train: ClientDataset,
    test: ClientDataset,
    unseen: ClientDataset,
    base: Policy,
    settings: dict[str, Any],
    out: Path,
) -> None:
    """Train one method with one seed and score it, unless that was done."""
    name = f"{method}-{seed}"
    run, traits = out / "runs" / name, STRATEGIES[method].traits
    if (run / "facts.json").exists():
        return
    shutil.rmtree(run, ignore_errors=True)
    federated = dict(settings["federated"], strategy=method, seed=seed)
    if method not in users_of("personal_steps"):
        federated.pop("personal_steps")
    if traits.personal:
        federated["personal_clients"] = "all"  # the published tables score every client with its own
    if traits.mixed_ranks:
        federated["client_ranks"] = settings["ranks"]
    client = dict(settings["client"])
    client["learning_rate"] = settings.get("learning_rates", {}).get(method, client["learning_rate"])
    started = time.process_time()
    trainer = FederatedTrainer(
        base.backbone.name,
        FederatedConfig(output_dir=str(run), **federated),
        train,
        SFTConfig(bf16=False, use_cpu=True, activation_checkpointing=False, **client),
        LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings["lora"]),
    )
    state = trainer.train()
    seconds = time.process_time() - started
    policy = load_policy(run, share=base)
    score(policy, test, unseen, settings, out / "scores" / name, out / "scores" / f"{name}-personal")
    policy.backbone.unload_adapter(policy.adapter)
    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    errors = [record["aggregation_error"] for record in records if record.get("aggregation_error") is not None]
    facts = {
        "cpu_seconds": round(seconds, 1),
        "download_bytes": state.ledger.download_bytes,
        "upload_bytes": state.ledger.upload_bytes,
        "num_local_steps": state.ledger.num_local_steps,
        "mean_aggregation_error": sum(errors) / len(errors) if errors else None,
    }
    (run / "facts.json").write_text(json.dumps(facts, indent=2))
    print(name, facts, flush=True)


def score(
    policy: Policy, test: ClientDataset, unseen: ClientDataset, settings: dict[str, Any], out: Path, personal: Path
) -> None:
    """Write the global policy's scores, and beside them those of each client's own adapter where there are any."""
    options = {"max_length": settings["client"]["max_length"], "max_rows_per_client": settings.get("max_rows")}
    on_test = evaluate_policy(policy, test, **options)
    write_results(make_results([on_test, evaluate_policy(policy, unseen, **options)]), out)
    folders = personal_folders(policy.location.folder) if policy.location else {}
    own = evaluate_personal(policy, folders, test, **options) if folders else on_test
    write_results(make_results([own]), personal)


def compared(kind: str, against: str, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Compare all methods with the base or with FedAvg, on global adapters or on what each client ends with."""
    suffix = "" if kind == "global" else "-personal"
    others = [method for method in given.methods if method != against]
    first = ["base"] if against == "base" else [f"{against}-{seed}" for seed in given.seeds]
    places = [f"{against}={out / 'scores' / f'{name}{suffix}'}" for name in first]
    places += [f"{method}={out / 'scores' / f'{method}-{seed}{suffix}'}" for method in others for seed in given.seeds]
    comparison = compare_results(places)
    folder = RESULTS / f"methods_{given.corpus.replace('-', '_')}"
    folder.mkdir(exist_ok=True, parents=True)
    write_comparison(comparison, folder / (kind if against == "base" else f"{kind}-against-{against}"))
    kept = ("other", "split", "difference", "ci_low", "ci_high", "p_holm", "better_fraction", "num_clients", "outcome")
    return {"items": [{key: item.get(key) for key in kept} for item in comparison["comparisons"]]}


def report() -> str:
    """The tables of every corpus that has results, and below the marker what somebody wrote about them."""
    before = (RESULTS / "methods.md").read_text() if (RESULTS / "methods.md").exists() else ""
    written = before.split(MARKER, 1)[1] if MARKER in before else "\n"
    parts = [HEAD]
    for corpus in SETTINGS:
        path = RESULTS / f"methods_{corpus.replace('-', '_')}.json"
        if path.exists():
            parts.append(table(corpus, json.loads(path.read_text())))
    return "\n".join(parts) + "\n" + MARKER + written


def table(corpus: str, result: dict[str, Any]) -> str:
    """One corpus as Markdown."""
    cells = {
        (kind, item["other"], item["split"]): item for kind in ("global", "personal") for item in result[kind]["items"]
    }
    methods = list(dict.fromkeys(name.rsplit("-", 1)[0] for name in result["runs"]))
    lines = [
        f"## {corpus}: {result['clients']} clients, {len(result['seeds'])} seeds",
        "",
        "| method | own rows, what the client ends with | better off | people nobody trained on | better off "
        "| sent up, kB a visit | lost in averaging | CPU s a run |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    federated = result["settings"]["federated"]
    visits = federated["num_rounds"] * federated["cohort_size"]
    for method in methods:
        runs = [facts for name, facts in result["runs"].items() if name.rsplit("-", 1)[0] == method]
        errors = [facts["mean_aggregation_error"] for facts in runs if facts["mean_aggregation_error"] is not None]
        row = [method]
        for kind, split in (("personal", "test"), ("global", "unseen")):
            item = cells.get((kind, method, split))
            row += ["–", "–"] if item is None else [_difference(item), f"{item['better_fraction']:.0%}"]
        row.append(f"{sum(facts['upload_bytes'] for facts in runs) / len(runs) / visits / 1000:.1f}")
        row.append(f"{sum(errors) / len(errors):.3f}" if errors else "–")
        row.append(f"{sum(facts['cpu_seconds'] for facts in runs) / len(runs):.0f}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _difference(item: dict[str, Any]) -> str:
    bold = "**" if OF_RUNS.get(item["outcome"], item["outcome"]) == "better" else ""
    return f"{bold}{item['difference']:+.4f}{bold} [{item['ci_low']:+.4f}, {item['ci_high']:+.4f}]"


MARKER = "<!-- written by hand below -->\n"
HEAD = """# Methods, client by client

Made by `python benchmarks/methods.py CORPUS --data CLIENTS --model BASE` (the settings are in
`methods_<corpus>.json`, the comparisons with their pages in `methods_<corpus>/`). Differences of held-out loss from
the base model, in nats a token: lower is better. Mean over clients of the mean over seeds, 95 % interval over clients
and seeds; bold where better than the base after Holm's correction over methods and splits. "Own rows": each client's
test rows under the adapter it ends with, its own where the method personalises, else the global one. Clients of
`flora`, `flexlora` and `hetlora` have ranks 2, 4 and 8 by their number of rows; all others rank 8. `ravan` has ten
times the learning rate of the others: its frozen factors have length 1, so a step of its cores moves the weights less.

The runs of `fed-synth`, `fed-oasst` and `fed-oasst-smollm2` were made before FLoRA, FlexLoRA, LoRA-FAIR and the
weights of `scaffold`, `ffa_lora`, `rolora`, `fedex_lora`, `fed_sb` and `feddpa` followed their sources, and before
`compare` corrected over scores and splits; those rows, and every share better off that rounding had moved, are to be
made again. `fed-synth-newer` has another base, so its rows stand beside its own `fedavg`.
"""


if __name__ == "__main__":
    main()
