"""What a client's machine is told of a run, and that one with anything else is refused by name."""

from dataclasses import replace

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.clients.host import ClientHost
from fedllm_train.clients.run_spec import check_same, policy_digests
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer


def test_a_spec_names_nobody(kit, tmp_path):
    spec = kit.make_trainer(tmp_path / "run", strategy="language_clusters").loaded.spec()
    assert not any(client_id in repr(spec.federation) for client_id in kit.SIZES)
    assert spec.federation.num_clients == 5
    assert not (tmp_path / "run").exists()


def test_digests_are_those_of_what_the_run_starts_from(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run")
    digests = policy_digests(trainer.loaded.policy, trainer.start_adapter)
    assert digests == trainer.loaded.spec().digests
    assert digests["base model"] is None  # made in memory, so nobody can name it
    assert all(digests[name] for name in ("tokenizer", "chat template", "starting adapter"))
    other = kit.make_trainer(tmp_path / "other", peft_config=kit.lora(r=2)).loaded.spec().digests
    assert {name for name in digests if digests[name] != other[name]} == {"starting adapter"}


def test_a_machine_with_the_same_of_all_passes(kit, tmp_path):
    spec = kit.make_trainer(tmp_path / "run").loaded.spec()
    check_same(spec, dict(spec.digests))


@pytest.mark.parametrize("name", ["base model", "tokenizer", "chat template", "starting adapter", "trl", "torch"])
def test_a_machine_with_another_one_is_refused_in_one_line_that_names_it(kit, tmp_path, name):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer().save_pretrained(tmp_path / "base")
    config = FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2)
    trainer = FederatedTrainer(str(tmp_path / "base"), config, kit.make_clients(), kit.trl_args("sft"), kit.lora())
    spec = trainer.loaded.spec()
    assert all(spec.digests.values())
    changed = "versions" if name in spec.versions else "digests"
    other = replace(spec, **{changed: {**getattr(spec, changed), name: "another"}})
    with pytest.raises(ConfigError, match=f"this machine's {name} is .* and the run's is another, so") as caught:
        check_same(other, dict(spec.digests))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=f"this machine's {name} is "):
        ClientHost.load(other, trainer.clients, tmp_path / "elsewhere")
