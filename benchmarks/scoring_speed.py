"""How fast rows are scored, against a plain batched loop, and that memory does not grow with the number of rows.

Speed: SmolLM2-135M on rows of clients of fed-oasst that trained nothing, the answers' log-likelihood. The plain loop
is what a reader would write first: rows in the order of the file, the same number a batch, padded to the longest, the
cross-entropy of all logits. Both read the same token ids and must give the same losses; seconds are CPU seconds of
this process, medians over repeats that take turns. Memory: the peak of a fresh process that scores 500, 5,000 or
50,000 rows of one length distribution with a tiny model made on the spot, mapped files left out. Linux only.

Pairs: a run scored against what it started from, in three ways that take turns. `plain` is the loop above on both
answers of each pair, once for the policy and once for the reference, each with tokens of its own and LoRA beside the
weights; `apart` is the same with this project's batches (and is how pairs were scored before prompts were shared,
adapters merged and tokens made once); `ours` is `evaluate_policy`; `known` is `evaluate_policy` where an earlier
evaluation has left what the reference says.

    python benchmarks/scoring_speed.py --model DIR --data DIR [--rows 48] [--repeats 3]
    python benchmarks/scoring_speed.py --run RUN --pairs DIR [--num-pairs 400] [--repeats 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import memory_bytes, watched, write_result

MEMORY_ROWS = (500, 5_000, 50_000)
WORDS = ("river", "mill", "old", "bread", "light", "stone", "walk", "green", "letter", "evening", "quiet", "seven")


def plain_loop(model: Any, sequences: list[tuple[list[int], list[int]]], batch_size: int) -> np.ndarray:
    """Sums of log-probabilities of the masked tokens, a row each."""
    import torch

    found = []
    with torch.inference_mode():
        for begin in range(0, len(sequences), batch_size):
            batch = sequences[begin : begin + batch_size]
            width = max(len(ids) for ids, _ in batch)
            input_ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
            attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
            mask = torch.tensor([own + [0] * (width - len(own)) for _, own in batch])
            logits = model(input_ids=input_ids, attention_mask=attention).logits[:, :-1].float()
            targets = input_ids[:, 1:].flatten()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
            found += (-(loss.reshape(len(batch), -1) * mask[:, 1:]).sum(-1)).tolist()
    return np.array(found)


def speed(
    model_name: str, data: str, *, num_rows: int, max_length: int, batch_size: int, repeats: int
) -> dict[str, Any]:
    """Tokens per CPU second of both."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.policy.chat import encode_messages
    from fedllm_eval.policy.models import sequence_logps
    from fedllm_eval.policy.policies import load_policy

    policy = load_policy(model_name)
    rows = load_clients(data, "unseen").rows
    chosen = np.random.default_rng(0).choice(rows.num_rows, min(num_rows, rows.num_rows), replace=False)
    sequences = []
    for row in rows.select(chosen):
        encoded = encode_messages(policy.tokenizer, row["messages"])
        sequences.append((encoded["input_ids"][:max_length], encoded["assistant_masks"][:max_length]))
    sequences = [(ids, mask) for ids, mask in sequences if any(mask[1:])]
    num_tokens = sum(len(ids) for ids, _ in sequences)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    largest = 0.0
    with policy.active() as model:
        plain_loop(model, sequences[:1], batch_size)
        for _ in range(repeats):
            begin = time.process_time()
            ours, _ = sequence_logps(model, sequences, batch_size)
            middle = time.process_time()
            plain = plain_loop(model, sequences, batch_size)
            seconds["ours"].append(middle - begin)
            seconds["plain"].append(time.process_time() - middle)
            largest = max(largest, float(np.abs(ours / plain - 1).max()))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "num_rows": len(sequences),
        "num_tokens": num_tokens,
        "batch_size": batch_size,
        "max_length": max_length,
        "repeats": repeats,
        "cpu_seconds": seconds,
        "tokens_per_cpu_second": {name: num_tokens / median for name, median in medians.items()},
        "ratio_to_plain": medians["plain"] / medians["ours"],
        "largest_relative_difference": largest,
    }


def pair_speed(
    run: str, data: str, *, num_rows: int, max_length: int, batch_size: int, repeats: int
) -> dict[str, Any]:
    """CPU seconds of a policy's and its reference's log-probabilities of pairs, in four ways."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.per_client import evaluate_policy
    from fedllm_eval.policy.encoded_rows import encode_pair_rows
    from fedllm_eval.policy.known_logps import KeptLogps, KeptOfOne
    from fedllm_eval.policy.models import sequence_logps
    from fedllm_eval.policy.policies import load_policy, load_reference

    policy = load_policy(run)
    reference = load_reference(policy)
    clients = load_clients(data, "test")
    ids: list[str] = []
    for client_id, size in clients.sizes.items():
        if sum(clients.sizes[each] for each in ids) + size <= num_rows:
            ids.append(client_id)
    clients = clients.select(ids)
    options: dict[str, Any] = {"reference": reference, "batch_size": batch_size, "max_length": max_length}
    kept = KeptLogps()
    evaluate_policy(reference, clients, kept=kept, **options)
    losses: dict[str, Any] = {}

    def by_sequence(score: Any) -> Any:
        found = []
        for one in (policy, reference):
            encoded = encode_pair_rows(one.tokenizer, clients.rows, max_length)
            at = np.flatnonzero(~encoded.dropped_N).tolist()
            with one.active() as model:
                found.append(score(model, [encoded.sequence(i, side) for i in at for side in (0, 1)]))
        own, other = (np.asarray(each).reshape(-1, 2) for each in found)
        # Implicit rewards at beta 0.1.
        return 0.1 * ((own - other) @ [1.0, -1.0])

    def by_client(**more: Any) -> Any:
        rows = evaluate_policy(policy, clients, **options, **more).rows
        return rows["implicit_reward_margin"].drop_null().to_numpy()

    ways = {
        "plain": lambda: by_sequence(lambda model, each: plain_loop(model, each, batch_size)),
        "apart": lambda: by_sequence(lambda model, each: sequence_logps(model, each, batch_size)[0]),
        "ours": by_client,
        "known": lambda: by_client(kept=KeptOfOne(kept, reference)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, score in ways.items():
            begin = time.process_time()
            losses[name] = score()
            seconds[name].append(time.process_time() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "run": Path(run).name,
        "data": Path(data).name,
        "num_pairs": clients.rows.num_rows,
        "batch_size": batch_size,
        "max_length": max_length,
        "repeats": repeats,
        "cpu_seconds": seconds,
        "speed_up_on_apart": {name: medians["apart"] / median for name, median in medians.items()},
        "largest_difference_of_margins_to_plain": {
            name: float(np.abs(losses[name] - losses["plain"]).max()) for name in ways
        },
    }


def tiny_policy() -> Any:
    """A random two-layer Llama with a word tokenizer, in memory."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from fedllm_eval.policy.policies import Backbone, Policy

    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|unk|>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[2:4]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return Policy("tiny", Backbone(LlamaForCausalLM(config).eval(), "tiny"), tokenizer)


def write_rows(folder: Path, num_rows: int) -> None:
    """A client repo of conversations of about 120 words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fedllm_data.schema import SCHEMAS

    rng = np.random.default_rng(0)
    rows = []
    for index in range(num_rows):
        text = " ".join(rng.choice(WORDS, int(rng.integers(40, 200))))
        messages = [{"role": "user", "content": "walk"}, {"role": "assistant", "content": text}]
        rows.append(
            {"client_id": f"c{index // 10:05d}", "row_id": f"r{index}", "language": "en", "messages": messages}
        )
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["sft"]), folder / "data" / "test-00000-of-00001.parquet")


def score_in_this_process(data: str) -> None:
    """Print peaks before and after, and the rows: what the fresh process does."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.per_client import evaluate_policy

    policy, clients = tiny_policy(), load_clients(data, "test")
    evaluate_policy(policy, clients.select(list(clients)[:5]))
    before = memory_bytes("RssAnon")
    with watched() as spent:
        evaluate_policy(policy, clients, batch_size=32)
    print(json.dumps({"num_rows": clients.rows.num_rows, "anonymous_bytes_before": before, **spent}))


def memory_of_rows() -> list[dict[str, Any]]:
    """The peak for each number of rows."""
    from fedllm_data.clients import load_clients

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for num_rows in MEMORY_ROWS:
            place = Path(folder) / str(num_rows)
            write_rows(place, num_rows)
            load_clients(str(place), "test")  # writes the Arrow file that the fresh process maps
            command = [sys.executable, __file__, "--score", str(place)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return found


def main() -> None:
    """Measure both and write `results/scoring_speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", help="a run trained by DPO or SFT with LoRA, to score pairs with")
    parser.add_argument("--pairs", help="a client repo of preference pairs")
    parser.add_argument("--pairs-max-length", type=int, default=128)
    parser.add_argument("--pairs-batch-size", type=int, default=64)
    parser.add_argument("--num-pairs", type=int, default=400)
    parser.add_argument("--score", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.score:
        score_in_this_process(arguments.score)
        return
    if arguments.run:
        result = pair_speed(
            arguments.run,
            arguments.pairs,
            num_rows=arguments.num_pairs,
            max_length=arguments.pairs_max_length,
            batch_size=arguments.pairs_batch_size,
            repeats=arguments.repeats,
        )
        print(json.dumps(result, indent=2))
        print(write_result("pair_scoring", result))
        return
    result = {
        "model": Path(arguments.model).name,
        "data": Path(arguments.data).name,
        "speed": speed(
            arguments.model,
            arguments.data,
            num_rows=arguments.rows,
            max_length=arguments.max_length,
            batch_size=arguments.batch_size,
            repeats=arguments.repeats,
        ),
        "memory": memory_of_rows(),
    }
    print(json.dumps(result, indent=2))
    print(write_result("scoring_speed", result))


if __name__ == "__main__":
    main()
