"""What `config.yaml` says about a run: every resolved setting, versions, revisions. A resume compares them."""

import json
from typing import Any

from peft import PeftModel

from fedllm_data.clients import ClientDataset
from fedllm_eval.policy.run_folder import RUN_FORMAT
from fedllm_eval.policy.run_records import RunConfig
from fedllm_train.adapters.arithmetic import Adapter, adapter_sha256
from fedllm_train.clients.objectives import ClientArgs, objective_of
from fedllm_train.given import flat_fields
from fedllm_train.models.policy import StartingPolicy
from fedllm_train.models.tokenizer import tokenizer_record
from fedllm_train.prepare import RunPlan
from fedllm_train.run_files.open_run import package_versions

__all__ = ["resolved_settings"]

_OF_THE_MACHINE = ("output_dir", "run_name", "logging_dir", "hub_token")


def resolved_settings(
    plan: RunPlan, args: ClientArgs, policy: StartingPolicy, clients: ClientDataset, start_adapter: Adapter
) -> RunConfig:
    """Return the resolved settings, JSON-ready.

    Args:
        plan: the run's plan.
        args: TRL's settings for a visit.
        policy: what the run starts from.
        clients: the training clients.
        start_adapter: the adapter the run starts from.
    """
    config = plan.config
    federated = {each.name: getattr(config, each.name) for each in flat_fields(config)}
    federated |= {"min_learning_rate": plan.min_learning_rate, "cohort_size": plan.cohort_size}
    federated.pop("output_dir")
    client = json.loads(args.to_json_string()) | {"learning_rate": plan.learning_rate}
    for name in _OF_THE_MACHINE:
        client.pop(name, None)
    return {
        "format": RUN_FORMAT,
        "task": objective_of(args).name,
        "model": {"name": policy.base_name, "revision": policy.base_revision, "weights": policy.base_weights},
        "tokenizer": tokenizer_record(policy.tokenizer),
        "start_adapter": None if policy.is_base else adapter_sha256(start_adapter),
        "data": {
            "name": clients.name,
            "revision": clients.revision,
            "licence": clients.licence,
            "split": clients.split,
            "num_clients": len(clients),
            "client_ids": clients.id_facts,
        },
        "federated": federated,
        "client": client,
        "peft": _peft_settings(policy.model),
        "versions": package_versions(),
    }


def _peft_settings(model: Any) -> dict[str, Any] | None:
    """The adapter's settings; None if all weights are trained, without an adapter."""
    if not isinstance(model, PeftModel):
        return None
    peft = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in model.peft_config["default"].to_dict().items()
        if isinstance(value, set | list | str | int | float | bool | dict | None)
    }
    peft.pop("inference_mode", None)
    return json.loads(json.dumps(peft, default=str))
