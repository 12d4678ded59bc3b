"""A small language model trained from scratch in about a minute, for machines without a hub.

A byte-level BPE tokenizer and a Llama of about a million parameters, trained on the messages of the `public` split,
which belong to no client. The result is a plain transformers folder (float32). The same rows, seed and number of
torch threads give the same model. The loop is the whole of causal language modelling: whole conversations are packed
into blocks, every token but the first of a block is predicted, and AdamW follows a warm-up and a cosine.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder
from fedllm_data.rehearsal import end_of_checks
from fedllm_eval.policy.threads import fit_threads

__all__ = ["CHAT_TEMPLATE", "TOY", "TinyConfig", "TinyResult", "model_config", "train_tiny"]

logger = logging.getLogger(__name__)

END, PAD = "<|end|>", "<|pad|>"
_SPECIAL = (END, PAD, "<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Renders a conversation so that every prefix of it, with the generation prompt, is a prefix of the text."""


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Shape of the model and length of its training; the defaults take about a minute on two cores."""

    vocab_size: int = 2048
    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 4
    num_heads: int = 4
    max_length: int = 512
    """Positions the model has; blocks are shorter."""
    block_length: int = 160
    batch_size: int = 10
    num_steps: int = 400
    learning_rate: float = 4e-3
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        """Check what must fit together."""
        if self.hidden_size % (2 * self.num_heads):
            raise ConfigError(
                f"hidden_size {self.hidden_size} with num_heads {self.num_heads}: tiny model; "
                "the size of a head must be whole and even"
            )
        if self.vocab_size < 256 + len(_SPECIAL):
            raise ConfigError(f"vocab_size {self.vocab_size}: tiny model; bytes alone need {256 + len(_SPECIAL)}")
        if self.num_steps < 1 or self.batch_size < 1 or not 2 <= self.block_length <= self.max_length:
            raise ConfigError(
                f"num_steps {self.num_steps}, batch_size {self.batch_size}, block_length {self.block_length}: "
                f"tiny model; steps and batch must be 1 or more, blocks 2 to {self.max_length} tokens"
            )


TOY = TinyConfig(
    vocab_size=320, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, num_steps=5, batch_size=4
)
"""A few thousand parameters and a handful of steps: for tests that need any model at all."""


@dataclass(frozen=True, kw_only=True)
class TinyResult:
    """What was trained, and what it took."""

    path: Path
    num_parameters: int
    num_steps: int
    num_tokens: int
    """Tokens seen in training, repetitions included."""
    first_loss: float
    last_loss: float
    """Nats per token: mean over the first and the last tenth of the steps."""
    train_seconds: float


def train_tiny(
    rows: Iterable[Mapping[str, Any]],
    out: Path,
    *,
    seed: int = 0,
    config: TinyConfig | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    log_every: int = 50,
) -> TinyResult:
    """Train a tokenizer and a small causal language model on conversations and save both.

    Args:
        rows: rows with a `messages` column, as `load_clients(repo, "public").rows` holds them; read twice.
        out: folder to write; an earlier model there is replaced once the new one is complete.
        seed: decides the initial weights and the order of the rows.
        config: shape and length; None takes the defaults, `TOY` is for tests.
        progress: called with (step, number of steps, loss) after every step.
        log_every: steps between two lines of the log.

    Returns:
        Sizes, losses and time; `path` is `out`.

    Raises:
        ConfigError: if there are no rows, or `out` holds something that is no model folder.

    >>> import tempfile
    >>> turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = train_tiny([{"messages": turns}], Path(folder) / "tiny", config=TOY)
    >>> result.num_steps, result.num_parameters < 20_000
    (5, True)
    """
    config = config or TinyConfig()
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file()):
        raise ConfigError(f"{out}: output of the tiny model; holds something else; name a new or empty folder")
    conversations = [row["messages"] for row in rows]
    if not conversations:
        raise ConfigError("no rows: training data of the tiny model; give the public split or the training rows")
    end_of_checks()

    tokenizer = _train_tokenizer(conversations, config)
    rendered = tokenizer.apply_chat_template(conversations, tokenize=False)
    token_ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    # Forking keeps the caller's random state as it was: this function may run in the middle of somebody's session.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(model_config(tokenizer, config))
        fit_threads(model.num_parameters())
        losses, num_tokens, seconds = _train(model, token_ids, config, progress, log_every)
    _save(model, tokenizer, out, config)
    tenth = max(1, len(losses) // 10)
    return TinyResult(
        path=out,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_steps=len(losses),
        num_tokens=num_tokens,
        first_loss=sum(losses[:tenth]) / tenth,
        last_loss=sum(losses[-tenth:]) / tenth,
        train_seconds=seconds,
    )


def _train_tokenizer(conversations: list[list[dict[str, str]]], config: TinyConfig) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (message["content"] for messages in conversations for message in messages)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(_SPECIAL[2:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=config.max_length,
        clean_up_tokenization_spaces=False,
    )


def model_config(tokenizer: PreTrainedTokenizerFast, config: TinyConfig) -> LlamaConfig:
    """Return the shape of the model.

    Args:
        tokenizer: says how many tokens there are, and which end a text and pad it.
        config: sizes of the layers.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        max_position_embeddings=config.max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )


def _train(
    model: LlamaForCausalLM,
    token_ids: list[list[int]],
    config: TinyConfig,
    progress: Callable[[int, int, float], None] | None,
    log_every: int,
) -> tuple[list[float], int, float]:
    """Run the optimizer and return the loss of every step, the tokens seen, and the seconds."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    pad = model.config.pad_token_id
    losses: list[float] = []
    num_tokens = 0
    started = time.perf_counter()
    model.train()
    batches = _batches(token_ids, config)
    for step in range(config.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config)
        blocks = next(batches)
        length = max(map(len, blocks))
        input_ids = torch.tensor([block + [pad] * (length - len(block)) for block in blocks])
        # Padding stands at the end, where causal attention cannot see it; only its labels must be masked.
        loss = model(input_ids=input_ids, labels=input_ids.masked_fill(input_ids == pad, -100), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        num_tokens += sum(map(len, blocks))
        if progress:
            progress(step + 1, config.num_steps, losses[-1])
        if (step + 1) % log_every == 0 or step + 1 == config.num_steps:
            logger.info("tiny model: step %d of %d, loss %.3f", step + 1, config.num_steps, losses[-1])
    model.eval()
    return losses, num_tokens, time.perf_counter() - started


def _schedule(step: int, config: TinyConfig) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    num_warmup = max(1, round(config.warmup_fraction * config.num_steps))
    if step < num_warmup:
        return (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, config.num_steps - num_warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _batches(token_ids: list[list[int]], config: TinyConfig) -> Iterator[list[list[int]]]:
    """Yield batches for ever: whole conversations in a random order, packed into blocks."""
    batch: list[list[int]] = []
    while True:
        block: list[int] = []
        for index in torch.randperm(len(token_ids)).tolist():
            ids = token_ids[index][: config.block_length]
            if block and len(block) + len(ids) > config.block_length:
                batch.append(block)
                block = []
                if len(batch) == config.batch_size:
                    yield batch
                    batch = []
            block = block + ids
        batch.append(block)
        if len(batch) == config.batch_size:
            yield batch
            batch = []


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, config: TinyConfig) -> None:
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=min(64, config.max_length),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with fill_folder(out, mark="config.json") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
