"""Runs whose clients' rows lie at two sites and not at the server: the same bits, and no row is needed there."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
import yaml
from datasets import Dataset

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError, ResumeError
from fedllm_data.roster import Roster, roster_of
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.host import ClientHost
from fedllm_train.engines.engine import InProcessEngine
from fedllm_train.messages import codec
from fedllm_train.run_files.personal import visited_clients
from fedllm_train.without_rows import roster_sha256


class Sites:
    """Visits each client on the host that has its rows; personal adapters stay there."""

    def __init__(self, hosts, *, keeps=True):
        self._hosts, self._keeps = hosts, keeps

    def visit(self, task):
        reply = next(host for ids, host in self._hosts if task.client_id in ids).visit(task)
        if task.purpose == "personal" and self._keeps and reply.message is not None:
            sha256 = adapter_sha256(codec.decode(reply.message)["adapter"])
            reply = replace(reply, message=None, facts={**reply.facts, "sha256": sha256})
        return reply


def at_sites(clients, folder, *, keeps=True):
    """An `engine=` of two sites, each with some of the clients and a model of its own."""

    @contextmanager
    def make(spec, make_host):
        with pytest.raises(ConfigError, match="are not here"):
            make_host()
        ids = list(clients.ids)
        hosts = []
        for number, own in enumerate((ids[::2], ids[1::2])):
            hosts.append((own, ClientHost.load(spec, clients.select(own), folder / f"site-{number}")))
        yield InProcessEngine(Sites(hosts, keeps=keeps))

    return make


def without_rows(clients):
    """The roster of clients, whose table is held and whose rows are not."""
    table, sizes = clients.table, dict(clients.sizes)
    return Roster(name="sites", split="train", task=clients.task, revision=None, sizes=sizes, load_table=lambda: table)


@pytest.fixture(scope="module")
def base(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    kit.make_model().save_pretrained(folder)
    kit.make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def trainer(kit, base, tmp_path):
    def make(name, clients, task="sft", *, engine=None, eval_dataset=None, callbacks=(), **changes):
        method = {"strategy": "fedavg", "num_rounds": 2, "seed": 5, "cohort_size": 3, "local_steps": 2} | changes
        start, model = method.pop("adapter", None), method.pop("base", base)
        return FederatedTrainer(
            model,
            FederatedConfig(output_dir=str(tmp_path / name), **method),
            clients,
            kit.trl_args(task),
            None if start else kit.lora(),
            adapter=start,
            engine=engine,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
        )

    return make


@pytest.mark.parametrize(
    "method",
    [
        {"strategy": "fedavg"},
        {"strategy": "scaffold"},
        {"strategy": "fedavg", "wire": "int4", "error_feedback": "ef14"},
        pytest.param({"strategy": "flexlora", "client_ranks": "2,4"}, marks=pytest.mark.slow),
        pytest.param({"strategy": "fed_sb"}, marks=pytest.mark.slow),
        pytest.param({"strategy": "fedavg", "wire": "drive"}, marks=pytest.mark.slow),
    ],
    ids=lambda method: "-".join(method.values()),
)
def test_a_run_without_rows_ends_in_the_same_bits(kit, trainer, tmp_path, method):
    clients = kit.make_clients()
    here = trainer("here", clients, **method).train()
    there = trainer("there", without_rows(clients), engine=at_sites(clients, tmp_path), **method).train()
    assert adapter_sha256(there.adapter) == adapter_sha256(here.adapter)
    visits = [
        [(each["client_id"], each["num_rows"], each["train_loss"]) for each in record["clients"]]
        for record in kit.records_of(tmp_path / "there")
    ]
    assert visits == [
        [(each["client_id"], each["num_rows"], each["train_loss"]) for each in record["clients"]]
        for record in kit.records_of(tmp_path / "here")
    ]
    data = yaml.safe_load((tmp_path / "there" / "config.yaml").read_text())["data"]
    assert data["roster"] == roster_sha256(roster_of(clients))
    assert data["num_clients"] == len(clients)


def test_dpo_from_an_adapter_ends_in_the_same_bits_and_says_what_is_not_known(kit, trainer, tmp_path, caplog):
    trainer("sft", kit.make_clients(), num_rounds=1).train()
    clients = kit.make_clients("preference")
    start = {"adapter": str(tmp_path / "sft")}
    here = trainer("here", clients, "dpo", **start).train()
    caplog.clear()
    there = trainer("there", without_rows(clients), "dpo", engine=at_sites(clients, tmp_path), **start).train()
    assert adapter_sha256(there.adapter) == adapter_sha256(here.adapter)
    assert "whether they are new to it is not known" in caplog.text


def test_personal_adapters_stay_at_the_sites_and_are_those_of_one_machine(kit, trainer, tmp_path):
    clients, method = kit.make_clients(), {"strategy": "ditto"}
    here = trainer("here", clients, **method).train()
    there = trainer("there", without_rows(clients), engine=at_sites(clients, tmp_path), **method).train()
    assert adapter_sha256(there.adapter) == adapter_sha256(here.adapter)
    at_site, own = (
        json.loads((tmp_path / run / "personal" / "clients.json").read_text()) for run in ("there", "here")
    )
    assert at_site.keys() == own.keys() == visited_clients(tmp_path / "there" / "rounds.jsonl")
    for client_id, entry in at_site.items():
        assert entry["at_site"] is True
        assert entry["sha256"].startswith(own[client_id]["folder"])
        assert entry["num_steps"] == own[client_id]["num_steps"]
    assert not [each for each in (tmp_path / "there" / "personal").iterdir() if each.is_dir()]


def test_a_personal_adapter_that_is_sent_is_dropped_unread(kit, trainer, tmp_path):
    clients = kit.make_clients()
    engine = at_sites(clients, tmp_path, keeps=False)
    trainer("there", without_rows(clients), engine=engine, strategy="ditto", num_rounds=1).train()
    entries = json.loads((tmp_path / "there" / "personal" / "clients.json").read_text())
    assert entries
    assert all("dropped unread" in entry["left_out"] for entry in entries.values())
    assert not [each for each in (tmp_path / "there" / "personal").iterdir() if each.is_dir()]


def test_a_run_without_rows_resumes_to_the_same_bits_and_refuses_another_roster(kit, trainer, tmp_path):
    clients = kit.make_clients()
    whole = trainer("whole", clients, strategy="scaffold").train()

    def stop(record):
        raise kit.Stop

    def again(roster, callbacks=()):
        engine = at_sites(clients, tmp_path)
        return trainer("run", roster, engine=engine, strategy="scaffold", callbacks=callbacks)

    roster = without_rows(clients)
    with pytest.raises(kit.Stop):
        again(roster, [stop]).train()
    other = replace(roster, sizes={**roster.sizes, "ann": roster.sizes["ann"] + 1})
    with pytest.raises(ResumeError, match=r"data\.roster"):
        again(other).train(resume=True)
    assert adapter_sha256(again(roster).train(resume=True).adapter) == adapter_sha256(whole.adapter)


def test_rows_that_a_site_cannot_render_are_recorded_as_its_host_counts_them(kit, trainer, tmp_path):
    rows = [*kit.sft_rows("ann", 4), *kit.sft_rows("bob", 4)]
    rows[0] = {**rows[0], "messages": [{"role": "system", "content": "Be kind."}, *rows[0]["messages"]]}
    tokenizer = kit.make_tokenizer()
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    kit.make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    clients = ClientDataset.from_dataset(Dataset.from_list(rows))
    settings = {"base": str(tmp_path / "base"), "cohort_size": 2, "num_rounds": 1}
    trainer("here", clients, **settings).train()
    trainer("there", without_rows(clients), engine=at_sites(clients, tmp_path), **settings).train()
    here, there = (json.loads((tmp_path / run / "unrendered_rows.json").read_text()) for run in ("here", "there"))
    assert list(here["clients"]) == ["ann"]
    assert there["clients"] == {"ann": {"the client's host said so": 1}}
    assert there["num_rows"] == here["num_rows"] == 8
    assert there["num_unrendered_rows"] == here["num_unrendered_rows"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "centralized"}, "is a baseline"),
        ({"strategy": "local"}, "is a baseline"),
        ({"num_processes": 2}, "num_processes is 2"),
        ({"eval_every": 1}, "eval_every scores held-out rows at the server"),
        ({"strategy": "language_clusters"}, "main languages"),
    ],
)
def test_what_needs_rows_at_the_server_is_refused_by_name(kit, trainer, monkeypatch, tmp_path, changes, words):
    clients = kit.make_clients()
    roster = without_rows(clients)
    bare = replace(roster, load_table=lambda: clients.table.select(["client_id"]))

    def load(*arguments, **named):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("fedllm_train.loaded_run.load_starting_policy", load)
    with pytest.raises(ConfigError, match=words):
        trainer("there", bare, engine=at_sites(clients, tmp_path), **changes)


def test_a_roster_needs_an_engine_a_named_model_and_no_code_of_others(kit, trainer, base, tmp_path):
    clients = kit.make_clients()
    with pytest.raises(ConfigError, match="no engine reaches them"):
        trainer("there", without_rows(clients))
    args = FederatedConfig(output_dir=str(tmp_path / "there"), num_rounds=1, cohort_size=2, local_steps=1)
    engine = at_sites(clients, tmp_path)
    with pytest.raises(ConfigError, match="loaded by the caller"):
        FederatedTrainer(
            kit.make_model(),
            args,
            without_rows(clients),
            kit.trl_args("sft"),
            tokenizer=kit.make_tokenizer(),
            engine=engine,
        )
    with pytest.raises(ConfigError, match="trust_remote_code is on"):
        FederatedTrainer(base, args, without_rows(clients), kit.trl_args("sft"), trust_remote_code=True, engine=engine)


def test_rows_that_the_server_may_hold_score_the_run_and_evaluate_says_where_the_others_are(
    kit, trainer, tmp_path, caplog
):
    clients, public = kit.make_clients(), kit.make_clients(sizes={"pub": 4})
    run = trainer(
        "there",
        without_rows(clients),
        engine=at_sites(clients, tmp_path),
        eval_every=1,
        eval_dataset=public,
        num_rounds=1,
    )
    assert "whether they hold prompts of it is not known" in caplog.text
    run.train()
    assert kit.records_of(run.run)[0]["eval"]["heldout_loss"]["num_clients"] == 1
    with pytest.raises(ConfigError, match="lie at the clients' sites"):
        run.evaluate()
