"""Whether two commits train the same adapters, to the bit: every method on a tiny model, compared by SHA-256.

    python benchmarks/same_adapters.py BEFORE AFTER [--cases plain private ...] [--methods fedavg ...]

BEFORE and AFTER are anything that git knows; `.` is the working tree. Both run the same cases from this file, each
with its own packages, and a line says how many of how many are equal: the adapters after every round, the finished
one and those that clients keep. A refusal counts as equal where both refuse. Cases:

plain      three rounds
private    clipped and noisy means, the run's secret being the same in both
packed     topk with error feedback, and int4
variant    settings of single methods, cohort rules, full fine-tuning, KTO
processes  two processes
resumed    killed in the middle of round 1 while a client trains, and resumed
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

CASES = ("plain", "private", "packed", "variant", "processes", "resumed")
SIZES = {"ann": 7, "bob": 3, "cyd": 12, "dan": 5, "eve": 9}
WORDS = ["red", "blue", "green", "one", "two", "three", "cat", "dog", "sun", "rain"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VARIANTS = [
    ("fedavg", {"cohort_rule": "weighted"}),
    ("fedavg", {"cohort_rule": "poisson"}),
    ("fedavg", {"cohort_rule": "all", "local_epochs": 1.0}),
    ("fedavg", {"round_rows": "fedllm-bench", "cohort_rule": "fedllm-bench"}),
    ("fedavg", {"expected_epochs": 2.0, "uniform_weights": True}),
    ("fedavg", {"full_finetuning": True}),
    ("fedavg", {"max_update_norm": 0.05}),
    ("fedavg", {"eval_every": 2, "load_best": True}),
    ("fedprox", {"prox_mu": 0.5}),
    ("fedavgm", {"benchmark_rules": True}),
    ("fedadam", {"benchmark_rules": True, "server_learning_rate": 0.01}),
    ("scaffold", {"uniform_weights": False}),
    ("scaffold", {"max_update_norm": 0.05}),
    ("ditto", {"ditto_lambda": 0.5, "personal_clients": "all"}),
    ("feddpa", {"feddpa_when": "after"}),
    ("fed_sb", {"core_frame": "random"}),
    ("flora", {"client_ranks": "2,4"}),
    ("flexlora", {"client_ranks": "2,4"}),
    ("hetlora", {"client_ranks": "2,4", "hetlora_prune": 0.1}),
    ("lora_fair", {"lora_fair_similarity": "frobenius"}),
    ("ravan", {"ravan_heads": 2}),
    ("fedsvd", {"svd_period": 2}),
    ("fedrot_lora", {"rotation_strength": 1.0}),
    ("fedmomentum", {"residual_energy": 1.0}),
    ("fedbiscuit", {"biscuit_adapters": 2, "personal_clients": "all"}),
    ("local", {"local_client": "cyd"}),
    ("centralized", {"cohort_rule": "all"}),
]


def main() -> int:
    """Compare two commits; return 1 if an adapter differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commits", nargs="*", metavar="COMMIT")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--methods", nargs="+", default=None, help="by default all")
    parser.add_argument("--keep", type=Path, default=None, help="folder for each commit's digests, read where there")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run is not None:
        json.dump(digests(arguments.run, arguments.cases, arguments.methods), sys.stdout)
        return 0
    if len(arguments.commits) != 2:
        parser.error("name two commits")
    before, after = (digests_of(commit, arguments) for commit in arguments.commits)
    different = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    for name in different:
        print(f"{name}: {before.get(name)} -> {after.get(name)}")
    refused = sum(value == "refused" for value in before.values())
    names = before.keys() | after.keys()
    print(
        f"{len(names) - len(different)} of {len(names)} are equal, {refused} of them refused by {arguments.commits[0]}"
    )
    return 1 if different else 0


def digests_of(commit: str, arguments: argparse.Namespace) -> dict[str, str]:
    """Run the cases with the packages of a commit, in a process of its own."""
    root = Path(__file__).parents[1]
    name = sha256(json.dumps([arguments.cases, arguments.methods]).encode()).hexdigest()[:8]
    full = "" if commit == "." else subprocess.check_output(["git", "rev-parse", commit], text=True, cwd=root).strip()
    kept = None if arguments.keep is None or not full else arguments.keep / f"{full[:12]}-{name}.json"
    if kept is not None and kept.exists():
        return json.loads(kept.read_text())
    with tempfile.TemporaryDirectory() as folder:
        tree = root
        if full:
            tree = Path(folder, "tree")
            subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, full], cwd=root, check=True)
        try:
            command = [sys.executable, __file__, "--run", str(Path(folder, "runs")), "--cases", *arguments.cases]
            command += ["--methods", *arguments.methods] if arguments.methods else []
            environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            made = json.loads(subprocess.check_output(command, text=True, env=environment, cwd=folder))
        finally:
            if full:
                subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=root, check=True)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(made, indent=1))
    return made


def digests(folder: Path, cases: list[str], methods: list[str] | None) -> dict[str, str]:
    """Run the cases here; return what was learned, or "refused", by the case's name."""
    import logging
    import secrets
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    secrets.token_bytes = lambda count=32: b"\x07" * count  # the secret of private runs
    folder.mkdir(parents=True)
    kit = Kit(folder)
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()
    from fedllm_train.strategies import STRATEGIES

    methods = methods or list(STRATEGIES)
    made = {}
    for task in ("sft", "dpo"):
        for method in methods:
            for case, name, settings in cases_of(cases):
                made[f"{task} {method} {name}"] = kit.digest(task, method, case, settings)
                print(f"{task} {method} {name}", file=sys.stderr, flush=True)
        if "variant" in cases:
            for number, (method, settings) in enumerate(VARIANTS):
                if method in methods:
                    made[f"{task} {method} variant {number}"] = kit.digest(task, method, "plain", settings)
    if "variant" in cases and "fedavg" in methods:
        made["kto fedavg"] = kit.digest("kto", "fedavg", "plain", {})
    return made


def cases_of(cases: list[str]) -> list[tuple[str, str, dict]]:
    """Return (case, name, settings) of what every method is run with."""
    private = {"dp_clip": 0.5, "dp_noise_multiplier": 1.0, "dp_delta": 1e-3, "cohort_rule": "poisson"}
    every = [
        ("plain", "plain", {}),
        ("private", "private", private),
        ("packed", "topk", {"wire": "topk:0.2", "error_feedback": "ef14"}),
        ("packed", "int4", {"wire": "int4"}),
        ("processes", "processes", {"num_processes": 2}),
        ("resumed", "resumed", {}),
    ]
    return [each for each in every if each[0] in cases]


class Kit:
    """A model of a few thousand weights, its tokenizer and five clients; what runs on them."""

    def __init__(self, folder: Path) -> None:
        """Write the model into a folder."""
        import torch

        torch.set_num_threads(1)
        self._folder, self._number = folder, 0
        self._base = folder / "base"
        make_tokenizer().save_pretrained(self._base)
        make_model().save_pretrained(self._base)

    def digest(self, task: str, method: str, case: str, settings: dict) -> str:
        """Make one run; return a digest of what it learned, or "refused"."""
        from fedllm_data.errors import FedLLMError

        self._number += 1
        run = self._folder / f"run-{self._number}"
        try:
            if case == "resumed":
                # Round 0 is over after two clients; the third that trains does not come to its end.
                child = os.fork()
                if not child:
                    exit_in_fit(number=4 if method == "ditto" else 3)
                    self._trainer(run, task, method, settings).train()
                    os._exit(3)
                if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 9:
                    return "was not killed"
            self._trainer(run, task, method, settings).train(resume=case == "resumed")
        except FedLLMError as error:
            if os.environ.get("SAME_ADAPTERS_REASONS"):
                print(f"{task} {method} {case}: {error}", file=sys.stderr)
            return "refused"
        return learned(run)

    def _trainer(self, run: Path, task: str, method: str, settings: dict):
        from peft import LoraConfig
        from trl import DPOConfig, KTOConfig, SFTConfig

        from fedllm_train import FederatedConfig, FederatedTrainer

        settings = {"num_rounds": 3, "seed": 5, **settings}
        if not hasattr(FederatedConfig, "wire") and (wire := settings.pop("wire", None)):  # an earlier version
            codec, _, fraction = wire.partition(":")
            if "error_feedback" in settings:
                settings["error_feedback"] = settings["error_feedback"] == "ef14"
            settings |= {"upload_codec": codec, **({"topk_fraction": float(fraction)} if fraction else {})}
        if settings.get("cohort_rule") != "all":
            settings.setdefault("cohort_size", 2)
        if not {"local_epochs", "expected_epochs"} & settings.keys():
            settings.setdefault("local_steps", 2)
        evaluated = {"eval_dataset": clients_of(task)} if "eval_every" in settings else {}
        client_args = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig}[task](
            bf16=False,
            use_cpu=True,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            max_length=64,
        )
        lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
        return FederatedTrainer(
            str(self._base),
            FederatedConfig(output_dir=str(run), strategy=method, **settings),
            clients_of(task),
            client_args,
            None if settings.get("full_finetuning") else lora,
            **evaluated,
        )


def exit_in_fit(*, number: int) -> None:
    """Let the process die when TRL's trainer has trained for the `number`-th time."""
    from transformers import Trainer

    train, count = Trainer.train, [0]

    def counted(self, *args, **kwargs):
        result = train(self, *args, **kwargs)
        count[0] += 1
        if count[0] == number:
            os._exit(9)
        return result

    Trainer.train = counted


def learned(run: Path) -> str:
    """Return a digest of what a run's rounds, its finished adapter and its clients' adapters are."""
    rounds = [json.loads(line)["adapter_sha256"] for line in (run / "rounds.jsonl").read_text().splitlines()]
    names = ("adapter/adapter_model.safetensors", "model/model.safetensors")
    finished = [sha256((run / name).read_bytes()).hexdigest() for name in names if (run / name).exists()]
    personal = run / "personal" / "clients.json"
    kept = {c: e.get("folder") for c, e in json.loads(personal.read_text()).items()} if personal.exists() else None
    return sha256(json.dumps([rounds, finished, kept], sort_keys=True).encode()).hexdigest()[:16]


def make_tokenizer():
    """Return a tokenizer of bytes with a plain chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model():
    """Return a model of random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def clients_of(task: str):
    """Return five clients with a few rows each, in two languages."""
    from datasets import Dataset

    from fedllm_data.clients import ClientDataset

    rows = []
    for place, (client_id, count) in enumerate(SIZES.items()):
        language = ("en", "fr")[place % 2]
        for i in range(count):
            word = [WORDS[(i + 2 * place + j) % 10] for j in range(5)]
            asked = [{"role": "user", "content": f"say {word[0]}"}]
            answers = [[{"role": "assistant", "content": " ".join(word[:n])}] for n in (1 + i % 4, 2 + i % 3)]
            row = {"client_id": client_id, "row_id": f"{client_id}-{i}", "language": language}
            if task == "sft":
                row["messages"] = [*asked, *answers[0]]
            else:
                models = {"chosen_model": None, "rejected_model": None}
                row |= {"prompt": asked, "chosen": answers[0], "rejected": answers[1], **models}
            rows.append(row)
    return ClientDataset.from_dataset(Dataset.from_list(rows))


if __name__ == "__main__":
    sys.exit(main())
