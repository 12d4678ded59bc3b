"""The simulated clock of a loaded run: how long each client's machine takes for what the run asks of it.

Steps, FLOPs and the length of an upload follow from settings, model and method alone, and nothing is measured. Nothing
is trained here either, but the model is loaded; `planning/` tells the same times from a model's config.
"""

from functools import lru_cache, partial
from typing import Any

import torch

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.clients.objectives import objective_of
from fedllm_train.clients.planned_work import planned_work
from fedllm_train.engines.engine import Task
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ClientWire
from fedllm_train.models.model_shape import shape_of_model
from fedllm_train.participation.clock import Clock
from fedllm_train.prepare import RunPlan

__all__ = ["run_clock"]

_CLIENTS_HELD = 10_000
"""Clients whose machine and length of upload are kept in memory, of however many."""


def run_clock(plan: RunPlan, model: Any, client_args: Any, start_adapter: Adapter, start_state: Parts) -> Clock:
    """Return the clock of the clients' machines.

    Args:
        plan: the run's plan, with the machines of a client table.
        model: the loaded model, with its adapter.
        client_args: TRL's settings, as they were given.
        start_adapter: the adapter that the run starts from.
        start_state: the server's state before round 0.
    """
    config = plan.config
    assert plan.machines is not None, "a run without client table has no clock"
    work = planned_work(
        shape_of_model(model),
        objective_of(client_args).name,  # type: ignore[arg-type]
        client_args,
        tokens_per_row=config.tokens_per_row,
        keeps_reference=config.reference_cache,
        takes_gradients=getattr(plan.strategy.traits, "takes_gradients", True),
    )
    layers = plan.federation.layers

    @lru_cache(maxsize=_CLIENTS_HELD)
    def upload_bytes(client_id: str) -> int:
        return _likely_upload(plan, start_adapter, start_state, client_id)

    return Clock(
        seed=config.seed,
        machine_of=lru_cache(maxsize=_CLIENTS_HELD)(plan.machines.machine),
        flops_of=lambda client_id, num_steps: work.of_last_layers(layers.get(client_id)).flops(num_steps),
        steps_of=lambda client_id: plan.work.num_steps(plan.roster.sizes[client_id]),
        upload_bytes_of=upload_bytes,
        fits_per_visit=getattr(plan.strategy, "fits_per_visit", 1),
        drop_out=config.drop_out,
        travels=plan.strategy.traits.travels,
    )


def _likely_upload(plan: RunPlan, start_adapter: Adapter, start_state: Parts, client_id: str) -> int:
    """The length of a message like those that a client will send: of random changes, which pack worst."""
    config, strategy, rng = plan.config, plan.strategy, torch.Generator().manual_seed(0)
    layouts = strategy.layouts(plan.work.num_steps(plan.roster.sizes[client_id]))
    if layouts is not None:
        stated = {part: {name: _blank(*each) for name, each in of.items()} for part, of in layouts[1].items()}
        return len(codec.encode(stated))
    received = strategy.broadcast(start_state, client_id, 0)
    anchor = strategy.anchor(received, start_adapter, client_id, 0)
    update: Parts = {}
    for part, shapes in strategy.expects(start_state, client_id, 0).items():
        update[part] = {}
        for name, shape in shapes.items():
            like = anchor.get(name, torch.zeros(0))
            update[part][name] = torch.randn(shape, generator=rng).to(like.dtype)
    wire = ClientWire(config, seed=config.seed, first=partial(strategy.first_download, start_adapter))
    task = Task(run="", step=0, client_id=client_id, seed=0, learning_rate=0.0, message=b"")
    return len(wire.pack_up(update, anchor, {}, task)[0].message)


def _blank(precision: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of a precision as safetensors calls it."""
    return torch.zeros(shape, dtype={"I32": torch.int32, "F32": torch.float32, "F64": torch.float64}[precision])
