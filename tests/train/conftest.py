"""A language model of a few thousand random weights, its tokenizer, and clients with a few rows each."""

import json
import shutil
from contextlib import nullcontext
from functools import cache

import accelerate.utils.imports
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.build import build
from fedllm_data.clients import ClientDataset
from fedllm_data.source import Source, SourceRow
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.clients.client_memory import ClientMemory
from fedllm_train.engines.engine import InProcessEngine, Task
from fedllm_train.messages import codec
from fedllm_train.run_files.checkpoint import load_latest

# Models this small gain nothing from a second thread, and lose much where other processes want the cores.
torch.set_num_threads(1)

# Every visit seeds torch, which keeps the Python stack of each seeding for the day when an accelerator wakes up.
for device in (torch.cuda, torch.xpu, torch.mtia):
    if not device.is_available():
        device.manual_seed_all = lambda seed: None
# Whether a package is installed is looked up on the disk, dozens of times for every trainer.
accelerate.utils.imports._is_package_available = cache(accelerate.utils.imports._is_package_available)

PLAIN_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|end|>{% endgeneration %}{{ '\n' }}{% else %}{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WORDS = ["red", "blue", "green", "one", "two", "three", "cat", "dog", "sun", "rain"]


def make_tokenizer(template: str = PLAIN_TEMPLATE) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = template
    return tokenizer


def make_model() -> LlamaForCausalLM:
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


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def sft_rows(client_id: str, num_rows: int, shift: int = 0) -> list[dict]:
    return [
        {
            "client_id": client_id,
            "row_id": f"{client_id}-{i}",
            "language": "en",
            "messages": [
                user(f"say {WORDS[(i + shift) % 10]}"),
                assistant(" ".join(WORDS[(i + shift + j) % 10] for j in range(1 + i % 4))),
            ],
        }
        for i in range(num_rows)
    ]


def preference_rows(client_id: str, num_rows: int, shift: int = 0) -> list[dict]:
    return [
        {
            "client_id": client_id,
            "row_id": f"{client_id}-{i}",
            "language": "en",
            "prompt": [user(f"say {WORDS[(i + shift) % 10]}")],
            "chosen": [assistant(WORDS[(i + shift) % 10])],
            "rejected": [assistant(" ".join(WORDS[(i + shift + j) % 10] for j in range(2 + i % 3)))],
            "chosen_model": None,
            "rejected_model": None,
        }
        for i in range(num_rows)
    ]


SIZES = {"ann": 7, "bob": 3, "cyd": 12, "dan": 5, "eve": 9}


def make_clients(task: str = "sft", sizes: dict[str, int] = SIZES) -> ClientDataset:
    return _clients(task, tuple(sizes.items()))


@cache  # nobody can change a ClientDataset
def _clients(task: str, sizes: tuple[tuple[str, int], ...]) -> ClientDataset:
    make = sft_rows if task == "sft" else preference_rows
    rows = [row for position, (client_id, n) in enumerate(sizes) for row in make(client_id, n, shift=2 * position)]
    return ClientDataset.from_dataset(Dataset.from_list(rows))


def build_repo(folder, task: str = "sft", sizes: dict[str, int] = SIZES) -> None:
    """A client repo on disk, of the clients of `make_clients`."""
    make = sft_rows if task == "sft" else preference_rows

    def read(path, seed, options):
        for client_id, num_rows in sizes.items():
            for index, row in enumerate(make(client_id, num_rows, shift=len(client_id))):
                yield SourceRow(row, "memory", index)

    source = Source(
        name="words", task=task, summary="words", client="a name", licence="cc0-1.0", licence_url="", attribution="",
        upstream="generated", revision="1", citation="", read=read, options={},
    )  # fmt: skip
    build(source, folder, unfiltered=True)


def trl_args(task: str, **changes):
    settings = {
        "bf16": False,
        "use_cpu": True,
        "activation_checkpointing": False,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "max_length": 64,
    }
    return {"sft": SFTConfig, "kto": KTOConfig}.get(task, DPOConfig)(**{**settings, **changes})


def lora(**changes) -> LoraConfig:
    settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return LoraConfig(**{**settings, **changes})


def make_trainer(
    run,
    task="sft",
    *,
    callbacks=(),
    adapter=None,
    strategy="fedavg",
    clients=None,
    peft_config=None,
    engine=None,
    **changes,
):
    settings = {"num_rounds": 4, "seed": 5, **changes}
    # What stands in their place must not find them given.
    if settings.get("cohort_rule") not in ("fixed", "all"):
        settings.setdefault("cohort_size", 3)
    if not {"local_epochs", "expected_epochs"} & settings.keys():
        settings.setdefault("local_steps", 2)
    return FederatedTrainer(
        make_model(),
        FederatedConfig(output_dir=str(run), strategy=strategy, **settings),
        clients or make_clients("sft" if task == "sft" else "preference"),
        trl_args(task),
        None if adapter else peft_config or lora(),
        adapter=adapter,
        tokenizer=make_tokenizer(),
        callbacks=callbacks,
        engine=engine,
    )


def in_process(change=lambda host: None, engine=InProcessEngine):
    """An `engine=`: this process, after something was done to the host that makes the visits."""

    def make(spec, make_host):
        host = make_host()
        change(host)
        return nullcontext(engine(host))

    return make


def question(client_id, parts, **changes):
    """A task that sends some parts, whole."""
    settings = {"run": "key", "step": 0, "seed": 1, "learning_rate": 1e-2, **changes}
    settings.setdefault("kept_step", settings["step"] - 1)
    return Task(client_id=client_id, message=codec.encode(parts), **settings)


def memory_of(run, client_id, *, before):
    """What a client of a run kept last before a round; later memory is removed by looking."""
    state, _ = load_latest(run)
    memory = ClientMemory(run / "client_memory" / state.run_key)
    return memory.load(client_id, kept_step=before - 1, oldest_step=-1)


def zeros(adapter):
    """Zeros in the place of every tensor."""
    return {name: torch.zeros_like(tensor) for name, tensor in adapter.items()}


class Stop(Exception):
    """Ends a run between two rounds."""


def run_and_stop(run, task="sft", *, after_round, **settings):
    """Begin a run and end it after a round."""

    def callback(record):
        if record["round_index"] == after_round:
            raise Stop

    with pytest.raises(Stop):
        make_trainer(run, task, callbacks=[callback], **settings).train()


def cut_after(run, cut, *, after_round):
    """Copy a finished run and take away what came after a round: killed before it saved the next one.

    The run must have kept all its checkpoints. What clients keep of later rounds is there, as after a kill.
    """
    shutil.copytree(run, cut)
    for checkpoint in sorted((cut / "checkpoints").glob("round-*"))[after_round + 1 :]:
        shutil.rmtree(checkpoint)
    for finished in ("adapter", "personal"):
        shutil.rmtree(cut / finished, ignore_errors=True)


def records_of(run):
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """`make_trainer`'s own run by task, finished with all checkpoints: its folder, to be copied, and its state."""

    @cache
    def run(task="sft"):
        folder = tmp_path_factory.mktemp("whole") / task
        return folder, make_trainer(folder, task, keep_checkpoints=4).train()

    return run


@pytest.fixture(scope="session")
def kit():
    """The makers above, as attributes."""
    import sys

    return sys.modules[__name__]
