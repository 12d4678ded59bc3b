"""A model's parameters and modules, kept for a fit: the same objects in the same order, and nothing left behind."""

import pytest
import torch

from fedllm_train.clients.model_walks import ModelWalks
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer


@pytest.fixture
def model(kit):
    return kit.make_model()


def test_held_the_model_answers_with_the_same_objects_in_the_same_order(model):
    def asked():
        return [
            [id(each) for each in model.parameters()],
            [(name, id(each)) for name, each in model.named_parameters()],
            [id(each) for each in model.modules()],
            [id(each) for each in model.parameters(recurse=False)],
            [name for name, _ in model.named_parameters(prefix="p")],
        ]

    before = asked()
    with ModelWalks(model).held():
        assert asked() == before
        assert asked() == before  # a list, not an iterator that is used up
    assert asked() == before
    assert not {"parameters", "named_parameters", "modules", "train"} & model.__dict__.keys()


def test_it_lets_go_when_a_fit_fails(model):
    with pytest.raises(RuntimeError, match="out of memory"), ModelWalks(model).held():
        raise RuntimeError("out of memory")
    assert "parameters" not in model.__dict__


def test_every_module_is_in_training_again_after_a_look_at_it_in_evaluation(model):
    walks = ModelWalks(model)
    for _ in range(2):  # what the last fit left counts for nothing
        for module in model.modules():
            module.eval()
        with walks.held():
            model.train()
            assert all(module.training for module in model.modules())
            model.eval()
            assert not any(module.training for module in model.modules())
            model.train()
            assert all(module.training for module in model.modules())


def test_the_trainer_decays_the_parameters_that_trl_would(kit, tmp_path):
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), num_rounds=1, cohort_size=1, local_steps=1),
        kit.make_clients(),
        kit.trl_args("sft", weight_decay=0.1),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
    )
    trainer.train()
    inner = trainer.loaded.host.resident.trainer
    found, inner.walks = inner.walks.decay_names, None
    assert found == set(inner.get_decay_parameter_names(inner.model))
    groups = inner.optimizer.param_groups
    trained = {id(each) for each in trainer.loaded.host.resident.live_adapter.parameters.values()}
    assert {id(each) for group in groups for each in group["params"]} == trained
    assert [group["weight_decay"] for group in groups if group["params"]] == [0.1]


def test_a_visit_draws_what_the_seed_of_transformers_draws(kit, tmp_path):
    import random

    import numpy as np
    from transformers import set_seed

    from fedllm_train.clients.resident import seed_visit

    def drawn():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]

    set_seed(11)
    expected = drawn()
    seed_visit(11, torch.device("cpu"))
    assert drawn() == expected
