"""Runs under chat templates: one for every client, kept at the end; rows it cannot render are left out and counted.

What a client is trained on is compared with rows encoded by hand, with a run whose tokenizer had the template from the
beginning, and with TRL's own trainer.
"""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import trl
from datasets import Dataset
from transformers import AutoTokenizer
from trl import KTOConfig, SFTTrainer

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError, ResumeError
from fedllm_eval.policy.chat import encode_messages
from fedllm_eval.policy.models import message_losses, pair_logps
from fedllm_eval.policy.policies import load_policy
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.models.tokenizer import prepared_tokenizer, tokenizer_record

OTHER_TEMPLATE = (
    "{% for m in messages %}<|system|>{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|system|>assistant: {% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM = {"role": "system", "content": "be kind"}


def train(kit, run, *, args=None, clients=None, template=None, resume=False, callbacks=(), **changes):
    settings = {"num_rounds": 2, "cohort_size": 2, "local_steps": 1, "seed": 3, **changes}
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(run), **settings),
        clients or kit.make_clients(sizes={"ann": 3, "bob": 3}),
        args or kit.trl_args("sft"),
        kit.lora(),
        tokenizer=kit.make_tokenizer(template or kit.PLAIN_TEMPLATE),
        callbacks=callbacks,
    )
    return trainer, trainer.train(resume=resume)


def with_system(kit, task, rows_with):
    """Two clients of four rows; those at the positions given begin with a system message, ann's alone."""
    make = kit.sft_rows if task == "sft" else kit.preference_rows
    rows = make("ann", 4) + make("bob", 4)
    for position in rows_with:
        column = "messages" if task == "sft" else "prompt"
        rows[position][column] = [SYSTEM, *rows[position][column]]
    return ClientDataset.from_dataset(Dataset.from_list(rows))


def tokens_on_disk(run):
    files = sorted((run / ".work" / "tokens").glob("*.arrow"))
    return sorted(
        tuple(ids) for path in files for ids in pa.ipc.open_stream(str(path)).read_all()["input_ids"].to_pylist()
    )


class Stop(Exception):
    pass


def stop(record):
    raise Stop


def as_file(tmp_path, text):
    (tmp_path / "other.jinja").write_text(text, encoding="utf-8")
    return str(tmp_path / "other.jinja")


def as_folder(kit, tmp_path, text):
    kit.make_tokenizer(text).save_pretrained(tmp_path / "source")
    return str(tmp_path / "source")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_every_client_is_trained_under_the_template_that_is_asked_for(kit, tmp_path, kind):
    path = as_file(tmp_path, OTHER_TEMPLATE) if kind == "file" else as_folder(kit, tmp_path, OTHER_TEMPLATE)
    with pytest.raises(Stop):
        train(kit, tmp_path / "run", args=kit.trl_args("sft", chat_template_path=path), callbacks=[stop])
    tokenizer = kit.make_tokenizer(OTHER_TEMPLATE)
    clients = kit.make_clients(sizes={"ann": 3, "bob": 3})
    by_hand = sorted(tuple(encode_messages(tokenizer, row["messages"])["input_ids"]) for row in clients.rows)
    assert tokens_on_disk(tmp_path / "run") == by_hand


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_template_by_path_is_the_template_of_the_tokenizer_to_the_bit(kit, tmp_path, kind):
    path = as_file(tmp_path, OTHER_TEMPLATE) if kind == "file" else as_folder(kit, tmp_path, OTHER_TEMPLATE)
    by_path, state = train(kit, tmp_path / "a", args=kit.trl_args("sft", chat_template_path=path))
    _, other = train(kit, tmp_path / "b", template=OTHER_TEMPLATE)
    assert adapter_sha256(state.adapter) == adapter_sha256(other.adapter)
    # The model keeps its vocabulary: TRL would have rounded it up to a multiple of 64.
    assert by_path.model.get_input_embeddings().weight.shape[0] == 300


def test_the_callers_tokenizer_stays_as_it_was(kit, tmp_path):
    tokenizer = kit.make_tokenizer()
    args = kit.trl_args("sft", chat_template_path=as_file(tmp_path, OTHER_TEMPLATE), eos_token="<|user|>")
    prepared = prepared_tokenizer(tokenizer, args)
    assert (tokenizer.chat_template, tokenizer.eos_token) == (kit.PLAIN_TEMPLATE, "<|end|>")
    assert (prepared.chat_template, prepared.eos_token) == (OTHER_TEMPLATE, "<|user|>")


def test_another_end_token_is_in_the_rows_from_the_first_client_on(kit, tmp_path):
    with pytest.raises(Stop):
        train(
            kit,
            tmp_path / "run",
            args=kit.trl_args("sft", eos_token="<|system|>"),
            template="{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}",
            callbacks=[stop],
        )
    end = kit.make_tokenizer().convert_tokens_to_ids("<|system|>")
    assert all(ids[-1] == end for ids in tokens_on_disk(tmp_path / "run"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"chat_template_path": "no/such.jinja"}, "cannot be read"),
        ({"chat_template_path": "no/such/folder"}, "neither a .jinja file nor a tokenizer"),
        ({"eos_token": "<|nowhere|>"}, "is no token of"),
    ],
)
def test_a_tokenizer_setting_that_cannot_be_honoured_is_one_clear_line(kit, tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        train(kit, tmp_path / "run", args=kit.trl_args("sft", **setting))
    args = kit.trl_args("sft")
    args.pad_token = "<|nowhere|>"  # which TRL has marked as deprecated, and still takes
    with pytest.raises(ConfigError, match="pad_token"):
        train(kit, tmp_path / "run", args=args)
    assert not (tmp_path / "run").exists()


def test_a_template_whose_tokens_the_base_lacks_is_refused(kit, tmp_path):
    source = kit.make_tokenizer(OTHER_TEMPLATE)
    source.add_tokens(["<|new|>"])
    source.save_pretrained(tmp_path / "source")
    with pytest.raises(ConfigError, match=r"brings 1 tokens .*'<\|new\|>'"):
        train(kit, tmp_path / "run", args=kit.trl_args("sft", chat_template_path=str(tmp_path / "source")))


def test_a_base_without_a_template_may_be_given_one(kit, tmp_path):
    args = kit.trl_args("sft", chat_template_path=as_file(tmp_path, OTHER_TEMPLATE))
    kit.make_model().save_pretrained(tmp_path / "base")
    tokenizer = kit.make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")

    def trainer(args):
        clients = kit.make_clients(sizes={"ann": 2})
        config = FederatedConfig(output_dir=str(tmp_path / "run"), num_rounds=1, cohort_size=1, local_steps=1)
        return FederatedTrainer(str(tmp_path / "base"), config, clients, args, kit.lora())

    with pytest.raises(ConfigError, match=r"no chat template; .* chat_template_path"):
        trainer(kit.trl_args("sft"))
    assert trainer(args).tokenizer.chat_template == OTHER_TEMPLATE


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_the_adapters_folder_holds_what_it_was_trained_with(kit, tmp_path, task):
    base = tmp_path / "base"
    kit.make_model().save_pretrained(base)
    kit.make_tokenizer().save_pretrained(base)
    args = kit.trl_args(task)
    if task == "sft":
        args.chat_template_path = as_file(tmp_path, OTHER_TEMPLATE)
    trainer = FederatedTrainer(
        str(base),
        FederatedConfig(output_dir=str(tmp_path / "run"), num_rounds=1, cohort_size=1, local_steps=1),
        kit.make_clients("sft" if task == "sft" else "preference", {"ann": 2}),
        args,
        kit.lora(),
    )
    trainer.train()
    kept = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    expected = OTHER_TEMPLATE if task == "sft" else kit.PLAIN_TEMPLATE
    assert kept.chat_template == expected
    assert tokenizer_record(kept) == tokenizer_record(trainer.tokenizer)
    # What is scored is rendered as it was trained.
    scored = load_policy(tmp_path / "run", device="cpu").tokenizer
    messages = [kit.user("say red"), kit.assistant("red")]
    assert encode_messages(scored, messages) == encode_messages(trainer.tokenizer, messages)


def test_a_run_under_trls_training_template_equals_trls_own_trainer_to_the_bit(kit, tmp_path):
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    turns = [kit.user("red"), kit.assistant("blue"), kit.user("one"), kit.assistant("two cat")]
    rows = Dataset.from_list([{"client_id": "ann", "messages": turns[: 2 + 2 * (i % 2)]} for i in range(4)])
    clients = ClientDataset.from_dataset(rows)
    trainer, state = train(
        kit, tmp_path / "run", clients=clients, template=template, num_rounds=1, cohort_size=1, local_steps=2
    )
    seed = next(iter(_seeds(kit, 3, "ann")))
    args = kit.trl_args(
        "sft",
        assistant_only_loss=True,
        max_steps=2,
        lr_scheduler_type="constant",
        save_strategy="no",
        seed=seed,
        output_dir=str(tmp_path / "trl"),
        disable_tqdm=True,
        logging_strategy="no",
    )
    theirs = SFTTrainer(
        _start(kit, trainer),
        args=args,
        train_dataset=rows.select_columns(["messages"]),
        processing_class=kit.make_tokenizer(template),
    )
    theirs.train()
    from fedllm_train.adapters.live import LiveAdapter

    assert adapter_sha256(LiveAdapter(theirs.model).read()) == adapter_sha256(state.adapter)


def _seeds(kit, run_seed, client_id):
    from fedllm_train.seeds import stream_seed

    yield stream_seed(run_seed, "client", round_index=0, client_id=client_id)


def _start(kit, trainer):
    from peft import get_peft_model

    from fedllm_train.adapters.live import LiveAdapter

    model = get_peft_model(kit.make_model(), kit.lora())
    LiveAdapter(model).load(trainer.start_adapter)
    return model


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_rows_that_cannot_be_rendered_are_left_out_and_counted_by_client(kit, tmp_path, task, caplog):
    args = kit.trl_args("sft" if task == "sft" else "dpo")
    if task == "kto":
        args = KTOConfig(**{name: getattr(args, name) for name in ("bf16", "use_cpu", "max_length")})
        args.activation_checkpointing = False
        args.per_device_train_batch_size = 4
    clients = with_system(kit, "sft" if task == "sft" else "preference", [0, 2])
    trainer, _ = train(kit, tmp_path / "run", args=args, clients=clients, template=NO_SYSTEM)
    line = (
        "2 of 8 rows, from 1 clients, are left out: the chat template cannot render them "
        "(System role not supported (2))"
    )
    assert trainer.unrendered.line() == line
    assert line in caplog.text
    kept = json.loads((tmp_path / "run" / "unrendered_rows.json").read_text())
    assert kept["clients"] == {"ann": {"System role not supported": 2}}
    sides = 2 if task == "kto" else 1
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert f"{2 * sides} of their rows were left out, because the chat template cannot render them" in card
    for record in kit.records_of(tmp_path / "run"):
        counts = {v["client_id"]: (v["num_rows"], v["num_unrendered_rows"]) for v in record["clients"]}
        assert counts == {"ann": (2 * sides, 2 * sides), "bob": (4 * sides, 0)}


def test_what_is_left_is_trained_as_if_the_others_had_not_been_there(kit, tmp_path):
    _, state = train(kit, tmp_path / "a", clients=with_system(kit, "sft", [0, 2]), template=NO_SYSTEM)
    rows = [row for position, row in enumerate(with_system(kit, "sft", []).rows) if position not in (0, 2)]
    clients = ClientDataset.from_dataset(Dataset.from_list(rows))
    _, other = train(kit, tmp_path / "b", clients=clients, template=NO_SYSTEM)
    assert adapter_sha256(state.adapter) == adapter_sha256(other.adapter)


def test_a_client_without_a_row_that_can_be_rendered_is_named(kit, tmp_path):
    train(kit, tmp_path / "run", clients=with_system(kit, "sft", [0, 1, 2, 3]), template=NO_SYSTEM)
    for record in kit.records_of(tmp_path / "run"):
        reason = "the chat template cannot render 4 (System role not supported)"
        (left_out,) = record["left_out"]
        assert (left_out["client_id"], left_out["reason"], left_out["kind"]) == ("ann", reason, "refused")
        assert left_out["upload_bytes"] == 0


@pytest.mark.parametrize("template", [NO_SYSTEM, "{% for m in messages %}{{ m['content'] }"], ids=["role", "syntax"])
def test_where_no_row_is_left_there_is_one_line_and_nothing_is_written(kit, tmp_path, template):
    with pytest.raises(ConfigError, match="renders none of the 8 rows of 'memory'"):
        train(kit, tmp_path / "run", clients=with_system(kit, "sft", range(8)), template=template)
    assert not (tmp_path / "run").exists()


def test_a_row_that_fails_for_what_it_says_is_left_out_at_the_visit(kit, tmp_path):
    template = NO_SYSTEM.replace(
        "messages[0]['role'] == 'system'", "'red' in messages[0]['content']"
    )  # say red is the first row of ann, and of no one else
    trainer, _ = train(kit, tmp_path / "run", clients=with_system(kit, "sft", []), template=template)
    assert trainer.unrendered.num_unrendered == 0  # of its order of roles, others can be rendered
    (first, _) = kit.records_of(tmp_path / "run")
    assert [(visit["num_rows"], visit["num_unrendered_rows"]) for visit in first["clients"]] == [(3, 1), (3, 1)]


@pytest.mark.parametrize("template", [NO_SYSTEM, None])
def test_scoring_leaves_out_the_rows_that_training_leaves_out(kit, template):
    tokenizer = kit.make_tokenizer(template or kit.PLAIN_TEMPLATE)
    left_out = [True, False, True, False] if template else [False] * 4
    rows = with_system(kit, "sft", [0, 2])["ann"]
    losses = message_losses(kit.make_model(), tokenizer, rows)
    assert losses.unrendered_N.tolist() == left_out
    assert (losses.num_tokens_N == 0).tolist() == left_out
    pairs = pair_logps(kit.make_model(), tokenizer, with_system(kit, "dpo", [0, 2])["ann"])
    assert pairs.unrendered_N.tolist() == left_out
    assert (pairs.chosen_tokens_N == 0).tolist() == left_out


def test_a_template_that_teaches_no_end_of_turn_warns(kit, tmp_path, caplog):
    train(kit, tmp_path / "run", template=kit.PLAIN_TEMPLATE)
    assert "not taught to stop" not in caplog.text
    train(kit, tmp_path / "other", template=kit.PLAIN_TEMPLATE.replace("<|end|>", ""))
    assert "not taught to stop" in caplog.text


DATED = "{{ strftime_now('%Y-%m-%d') }}" + NO_SYSTEM


def test_a_run_keeps_the_day_it_began_on(kit, tmp_path):
    with pytest.raises(Stop):
        train(kit, tmp_path / "cut", template=DATED, callbacks=[stop], cohort_size=1)
    config = (tmp_path / "cut" / "config.yaml").read_text(encoding="utf-8")
    today = config.split("template_date: ")[1].split("\n")[0]
    # As if it had begun long ago, and its tokens had been lost meanwhile.
    (tmp_path / "cut" / "config.yaml").write_text(config.replace(today, "'2020-02-29'"), encoding="utf-8")
    for path in (tmp_path / "cut" / ".work" / "tokens").glob("*.arrow"):
        path.unlink()
    seen = []

    def look(record):
        seen.extend(tokens_on_disk(tmp_path / "cut"))

    trainer, _ = train(kit, tmp_path / "cut", template=DATED, resume=True, callbacks=[look], cohort_size=1)
    assert seen
    assert all("2020-02-29" in trainer.tokenizer.decode(ids) for ids in seen)


def test_a_template_date_that_is_none_is_named(kit, tmp_path):
    with pytest.raises(Stop):
        train(kit, tmp_path / "run", template=DATED, callbacks=[stop])
    path = tmp_path / "run" / "config.yaml"
    lines = [
        "template_date: soon" if line.startswith("template_date") else line for line in path.read_text().split("\n")
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(ResumeError, match=r"template_date .* 'soon'"):
        train(kit, tmp_path / "run", template=DATED, resume=True)
