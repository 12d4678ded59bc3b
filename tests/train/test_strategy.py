"""What every method owes both ends: one anchor, and updates of the shapes that the server expects."""

import pytest
import torch

from fedllm_train.adapters.arithmetic import adapter_sha256, shapes_of
from fedllm_train.clients.resident import ResidentTrainer
from fedllm_train.strategies import STRATEGIES, settings_class
from fedllm_train.strategies.fedavg import FedAvg

SETTINGS = {"client_ranks": "2,4", "personal_steps": 1, "hetlora_prune": 0.1, "walk_seeds": 16}


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_anchor_is_one_at_both_ends_and_updates_have_the_expected_shapes(kit, tmp_path, monkeypatch, name):
    chosen = STRATEGIES[name]
    own = {each: value for each, value in SETTINGS.items() if each in settings_class(name).__dataclass_fields__}
    trainer = kit.make_trainer(tmp_path / "run", strategy=name, num_rounds=3, local_steps=1, **own)
    anchors, sent, expected, begun = {"server": {}, "client": {}}, {}, {}, {}
    anchor, update, expects, fit = chosen.anchor, chosen.client_update, chosen.expects, ResidentTrainer.fit
    visiting = []

    def noted_anchor(strategy, received, start, client_id, round_index):
        found = anchor(strategy, received, start, client_id, round_index)
        end = "server" if strategy is trainer.plan.strategy else "client"
        anchors[end][client_id, round_index] = found
        return found

    def noted_update(strategy, visit):
        visiting[:] = [(visit.client_id, visit.round_index)]
        made = update(strategy, visit)
        sent[visiting.pop()] = shapes_of(strategy.opened(made))
        return made

    def noted_expects(strategy, state, client_id, round_index):
        expected[client_id, round_index] = expects(strategy, state, client_id, round_index)
        return expected[client_id, round_index]

    def noted_fit(resident, start, rows, **options):
        if visiting:  # the first fit of a visit
            begun.setdefault(visiting[0], start)
        return fit(resident, start, rows, **options)

    monkeypatch.setattr(chosen, "anchor", noted_anchor)
    monkeypatch.setattr(chosen, "client_update", noted_update)
    monkeypatch.setattr(chosen, "expects", noted_expects)
    monkeypatch.setattr(ResidentTrainer, "fit", noted_fit)
    trainer.train()

    assert anchors["client"].keys() == anchors["server"].keys() == sent.keys()
    assert {step for _, step in sent} == {0, 1, 2}
    for place, at_client in anchors["client"].items():
        at_server = anchors["server"][place]
        assert at_client.keys() == at_server.keys()
        assert all(torch.equal(tensor, at_server[tensor_name]) for tensor_name, tensor in at_client.items())
        assert sent[place] == expected[place]
        # What is packed, clipped and bounded is measured from it, so it covers the adapter that is sent ...
        wanted = expected[place].get("adapter", {})
        assert all(tuple(at_server[tensor_name].shape) == shape for tensor_name, shape in wanted.items())
        # ... and training does start there: in its first rows and columns where it is of a lower rank.
        if chosen.traits.travels and place in begun and name != "hetlora":
            for tensor_name in wanted.keys() & begun[place].keys():  # Fed-SB has no core in the round of its frame
                window = tuple(slice(size) for size in wanted[tensor_name])
                assert torch.equal(begun[place][tensor_name][window], at_client[tensor_name])


class OwnNames(FedAvg):
    """Names its parameters as it likes, as a class that follows a Protocol may."""

    def anchor(self, received, start, client, index):
        return received["adapter"]


def test_a_method_may_name_the_parameters_of_its_anchor_as_it_likes(kit, tmp_path):
    settings = {"wire": "int8", "num_rounds": 1}
    own = kit.make_trainer(tmp_path / "own", strategy=OwnNames, **settings).train()
    plain = kit.make_trainer(tmp_path / "plain", strategy="fedavg", **settings).train()
    assert adapter_sha256(own.adapter) == adapter_sha256(plain.adapter)
