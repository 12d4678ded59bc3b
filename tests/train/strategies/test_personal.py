"""Methods whose clients end with adapters of their own, and what is written of them."""

import json

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model, set_peft_model_state_dict

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import personal_folders
from fedllm_train.adapters.arithmetic import adapter_sha256, distance, load_adapter
from fedllm_train.adapters.lora import factor_names
from fedllm_train.strategies.language_clusters import groups_of

PERSONAL = ("local", "fedavg_ft", "ditto", "feddpa", "language_clusters")


def personal_adapters(run):
    entries = json.loads((run / "personal" / "clients.json").read_text())
    return {c: load_adapter(run / "personal" / e["folder"] / "adapter_model.safetensors") for c, e in entries.items()}


def quadratic(optimum):
    def fit(start, options):
        w = {name: tensor.clone() for name, tensor in start.items()}
        for _ in range(options["num_steps"] or 3):
            gradient = {name: tensor - optimum for name, tensor in w.items()}
            if options["correct"] is not None:
                options["correct"](gradient, w)
            w = {name: tensor - 0.1 * gradient[name] for name, tensor in w.items()}
        return w

    return fit


def test_ditto_trains_the_own_adapter_on_the_proximal_loss(rules):
    strategy = rules.make("ditto", ditto_lambda=0.5)
    centre = {"w": torch.tensor([1.0], dtype=torch.float64)}
    own = {"w": torch.tensor([4.0], dtype=torch.float64)}
    visit = rules.visit({"adapter": centre}, quadratic(3.0), memory={"adapter": own})
    update = strategy.client_update(visit)
    v = 4.0
    for _ in range(3):
        v -= 0.1 * ((v - 3.0) + 0.5 * (v - 1.0))
    assert float(visit.memory["adapter"]["w"]) == pytest.approx(v, abs=1e-12)
    w = 1.0
    for _ in range(3):  # the global adapter is trained without the pull
        w -= 0.1 * (w - 3.0)
    assert float(update["adapter"]["w"]) == pytest.approx(w, abs=1e-12)


def test_a_stronger_pull_keeps_dittos_adapters_closer(kit, tmp_path):
    spread = []
    for pull in (0.0, 100.0):
        run = tmp_path / str(pull)
        state = kit.make_trainer(run, strategy="ditto", ditto_lambda=pull, num_rounds=2).train()
        spread.append(sum(distance(own, state.adapter) for own in personal_adapters(run).values()))
    assert spread[1] < spread[0]


def test_fine_tuning_starts_from_the_final_global_adapter(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "plain", num_rounds=2).train()
    state = kit.make_trainer(
        tmp_path / "run", strategy="fedavg_ft", num_rounds=2, personal_steps=1, personal_clients="all"
    ).train()
    assert adapter_sha256(state.adapter) == adapter_sha256(plain.adapter)
    own = personal_adapters(tmp_path / "run")
    assert set(own) == set(kit.SIZES)
    assert len({adapter_sha256(each) for each in own.values()}) == len(own)
    assert all(0 < distance(each, state.adapter) < distance(each, kit.zeros(each)) for each in own.values())


def test_every_client_alone_is_that_client_trained_by_itself(kit, tmp_path):
    together = kit.make_trainer(tmp_path / "all", strategy="local", cohort_size=5, num_rounds=2)
    state = together.train()
    assert adapter_sha256(state.adapter) == adapter_sha256(together.start_adapter)
    assert state.ledger.download_bytes == state.ledger.upload_bytes == 0
    named = kit.make_trainer(tmp_path / "cyd", strategy="local", local_client="cyd", num_rounds=2).train()
    assert adapter_sha256(personal_adapters(tmp_path / "all")["cyd"]) == adapter_sha256(named.adapter)


def test_groups_by_hand():
    languages = {"a": "en", "b": "en", "c": "fr", "d": "fr", "e": "de", "f": "und", "g": "und"}
    assert groups_of(languages, languages, 2) == {
        **dict.fromkeys("ab", "en"),
        **dict.fromkeys("cd", "fr"),
        **dict.fromkeys("efg", "others"),
    }


def test_groups_average_inside_and_the_global_adapter_over_groups(rules):
    languages = {"a": "en", "b": "en", "c": "fr", "d": "fr"}
    strategy = rules.make("language_clusters", languages=languages)
    state = strategy.start(rules.one(w=[0.0]))
    sent = [strategy.broadcast(state, client_id, 0)["group"]["index"] for client_id in "ac"]
    assert [int(index) for index in sent] == [0, 1]
    updates = [({"adapter": rules.one(w=[2.0]), "group": {"index": torch.tensor(0)}}, 1)]
    updates += [({"adapter": rules.one(w=[5.0]), "group": {"index": torch.tensor(0)}}, 2)]
    state = rules.step(strategy, state, updates)
    # en: (1*2 + 2*5) / 3 = 4; fr was not visited; both groups hold two rows: (2*4 + 2*0) / 4 = 2
    assert [state[part]["w"].tolist() for part in ("group en", "group fr", "adapter")] == [[4.0], [0.0], [2.0]]


def test_a_group_that_nobody_has_visited_yet_survives_a_checkpoint(kit, tmp_path):
    rows = [
        {**row, "language": language}
        for client_id, language in (("a", "en"), ("b", "en"), ("c", "fr"), ("d", "fr"))
        for row in kit.sft_rows(client_id, 3)
    ]
    clients = ClientDataset.from_dataset(Dataset.from_list(rows))
    settings = {"strategy": "language_clusters", "clients": clients, "num_rounds": 3, "cohort_size": 1}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "cut", after_round=0, **settings)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    for part in ("adapter", "group en", "group fr"):
        assert adapter_sha256(whole.server[part]) == adapter_sha256(resumed.server[part])


def test_one_language_is_fedavg(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "a", num_rounds=2).train()
    grouped = kit.make_trainer(tmp_path / "b", strategy="language_clusters", num_rounds=2).train()
    assert adapter_sha256(plain.adapter) == adapter_sha256(grouped.adapter)


@pytest.mark.parametrize(("name", "task"), [*((name, "sft") for name in PERSONAL), ("ditto", "dpo")])
def test_a_run_that_stops_anywhere_ends_with_the_same_adapters(kit, tmp_path, name, task):
    settings = {"strategy": name, "num_rounds": 2, "cohort_size": 2, "local_steps": 1, "personal_clients": "all"}
    kit.make_trainer(tmp_path / "whole", task, **settings, keep_checkpoints=2).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=0)
    kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    # Stopped again while personal adapters were made: one is missing, and a line was being written.
    made = tmp_path / "cut" / "personal" / "made.jsonl"
    kept = [line for line in made.read_text().splitlines() if '"bob"' not in line]
    made.write_text("\n".join(kept) + '\n{"client_id": "bob", "fol')
    kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    whole, cut = personal_adapters(tmp_path / "whole"), personal_adapters(tmp_path / "cut")
    assert {c: adapter_sha256(a) for c, a in whole.items()} == {c: adapter_sha256(a) for c, a in cut.items()}


def test_a_personal_adapter_is_a_plain_peft_folder(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", strategy="ditto", num_rounds=1).train()
    entries = json.loads((tmp_path / "run" / "personal" / "clients.json").read_text())
    model = PeftModel.from_pretrained(kit.make_model(), str(tmp_path / "run" / "personal" / entries["eve"]["folder"]))
    assert model.peft_config["default"].r == 4


def test_feddpas_adapter_mixes_the_outputs_of_both(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", strategy="feddpa", feddpa_mix=0.25, num_rounds=2, cohort_size=5)
    state = trainer.train()
    memory = kit.memory_of(tmp_path / "run", "eve", before=2)["local"]
    entry = json.loads((tmp_path / "run" / "personal" / "clients.json").read_text())["eve"]
    model = PeftModel.from_pretrained(kit.make_model(), str(tmp_path / "run" / "personal" / entry["folder"]))
    names = factor_names(state.adapter)
    assert names
    for module, (a, b) in names.items():
        layer = model.get_submodule(module)
        got = layer.get_delta_weight("default")
        # s = alpha / r = 2; the kept local factors hold the share of 1/4 already.
        expected = 2 * (0.75 * state.adapter[b] @ state.adapter[a] + memory[b] @ memory[a])
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_feddpas_global_adapter_is_fedavgs(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "plain", num_rounds=2, uniform_weights=True).train()
    state = kit.make_trainer(tmp_path / "run", strategy="feddpa", num_rounds=2).train()
    assert adapter_sha256(plain.adapter) == adapter_sha256(state.adapter)


def visited(run):
    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return {visit["client_id"] for record in records for visit in (*record["clients"], *record["left_out"])}


def listed(run):
    return json.loads((run / "personal" / "clients.json").read_text())


@pytest.mark.parametrize("name", ["fedavg_ft", "local", "fedsa_lora"])
def test_adapters_are_made_for_those_who_took_part_or_who_are_asked_for(kit, tmp_path, name):
    settings = {"strategy": name, "num_rounds": 1, "cohort_size": 2, "local_steps": 1}
    for asked in ("visited", "all", "1"):
        kit.make_trainer(tmp_path / asked, **settings, personal_clients=asked).train()
    took_part = visited(tmp_path / "visited")
    assert len(took_part) == 2
    assert listed(tmp_path / "visited").keys() == took_part
    assert listed(tmp_path / "all").keys() == set(kit.SIZES)
    (one,) = listed(tmp_path / "1")
    assert one in took_part
    # Whoever is asked beside changes nothing.
    every, some = (
        {c: adapter_sha256(a) for c, a in personal_adapters(tmp_path / asked).items()} for asked in ("all", "visited")
    )
    assert some == {client_id: every[client_id] for client_id in took_part}


def test_more_are_made_by_resuming_a_finished_run(kit, tmp_path):
    settings = {"strategy": "fedavg_ft", "num_rounds": 1, "cohort_size": 2, "local_steps": 1, "personal_steps": 1}
    kit.make_trainer(tmp_path / "all", **settings, personal_clients="all").train()
    kit.make_trainer(tmp_path / "run", **settings).train()
    kit.make_trainer(tmp_path / "run", **settings, personal_clients="all").train(resume=True)
    assert listed(tmp_path / "run") == listed(tmp_path / "all")


def test_clients_with_one_adapter_share_its_folder(kit, tmp_path):
    rows = [
        {**row, "language": language}
        for client_id, language in (("a", "en"), ("b", "en"), ("c", "fr"), ("d", "fr"), ("e", "fr"))
        for row in kit.sft_rows(client_id, 3)
    ]
    clients = ClientDataset.from_dataset(Dataset.from_list(rows))
    run = tmp_path / "run"
    state = kit.make_trainer(run, strategy="language_clusters", clients=clients, cohort_size=5, num_rounds=1).train()
    entries = listed(run)
    folder = {client_id: entry["folder"] for client_id, entry in entries.items()}
    assert folder["a"] == folder["b"] != folder["c"] == folder["d"] == folder["e"]
    assert sorted(path.name for path in (run / "personal").iterdir() if path.is_dir()) == sorted({*folder.values()})
    own = personal_adapters(run)
    for client_id, group in zip("abcde", ("en", "en", "fr", "fr", "fr"), strict=True):
        assert adapter_sha256(own[client_id]) == adapter_sha256(state.server[f"group {group}"])
    assert {client_id: path.name for client_id, path in personal_folders(run).items()} == folder


def test_a_clients_folder_is_what_peft_would_have_written(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", strategy="ditto", num_rounds=1, personal_clients="1")
    trainer.train()
    ((client_id, entry),) = listed(tmp_path / "run").items()
    folder = tmp_path / "run" / "personal" / entry["folder"]
    model = get_peft_model(kit.make_model(), kit.lora())
    set_peft_model_state_dict(model, personal_adapters(tmp_path / "run")[client_id])
    model.save_pretrained(tmp_path / "peft")
    assert {path.name for path in folder.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    assert (folder / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "peft" / "adapter_model.safetensors"
    ).read_bytes()
    ours, pefts = (json.loads((each / "adapter_config.json").read_text()) for each in (folder, tmp_path / "peft"))
    assert {**ours, "target_modules": 0} == {**pefts, "target_modules": 0}
    assert set(ours["target_modules"]) == set(pefts["target_modules"])


@pytest.mark.parametrize("given", ["0", "-1", "some", "1.5", ""])
def test_whose_adapters_is_a_rule_or_a_number(kit, tmp_path, given):
    with pytest.raises(ConfigError, match="it must be visited, all or a number"):
        kit.make_trainer(tmp_path / "run", strategy="ditto", personal_clients=given)


def test_a_method_without_own_adapters_refuses_the_setting(kit, tmp_path):
    with pytest.raises(ConfigError, match="personal_clients is given but strategy 'fedavg' does not use it"):
        kit.make_trainer(tmp_path / "run", personal_clients="all")
