"""Which aggregation the steps of a run have, by its settings: from the state before one to what its replies go into.

One of five kinds sees the updates (`aggregation/`); where attackers are simulated, what they send is changed between
the replies and it (`attacks/attacked_aggregation.py`).
"""

from collections.abc import Callable
from functools import partial

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.aggregation.aggregation import Aggregation, Inbox
from fedllm_train.aggregation.estimated import EstimatedAggregation
from fedllm_train.aggregation.plain import PlainAggregation
from fedllm_train.aggregation.private import ClientPrivacy, PrivateAggregation
from fedllm_train.aggregation.robust import RobustAggregation, RobustMemory
from fedllm_train.aggregation.secure_sum import SecureAggregation
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.attacks.attacked_aggregation import AttackedAggregation, AttackedInbox
from fedllm_train.messages.wire import ServerWire
from fedllm_train.monitoring.step_size import AggregationError
from fedllm_train.prepare import RunPlan
from fedllm_train.privacy.secure_sum.round_sums import RoundSums
from fedllm_train.run_files.checkpoint import RunState

__all__ = ["aggregation_of_run"]


def aggregation_of_run(
    plan: RunPlan,
    wire: ServerWire,
    start_adapter: Adapter,
    error: AggregationError,
    *,
    privacy: ClientPrivacy | None,
    sums: RoundSums | None,
    memory: RobustMemory,
) -> Callable[[RunState], Aggregation]:
    """Return what makes the empty aggregation of each step.

    Args:
        plan: the run's plan.
        wire: the server's end of it.
        start_adapter: what the run started from.
        error: is shown the updates where the server rule sees every one.
        privacy: clip, noise and secret of a private run; None for others.
        sums: the run's secure sums; None where the server sees updates.
        memory: what a robust sum remembers.
    """
    config, anybody, min_clients = plan.config, plan.participants[0], plan.config.min_clients
    inbox = Inbox(strategy=plan.strategy, wire=wire, start_adapter=start_adapter, max_norm=config.max_update_norm)
    attacked = None
    if plan.attackers:
        inbox = attacked = AttackedInbox(**vars(inbox), attackers=plan.attackers, settings=config)

    def of_kind(before: RunState) -> Aggregation:
        server, step = before.server, before.next_round
        if sums is not None:
            return SecureAggregation(
                inbox,
                server,
                sums,
                step=step,
                anybody=anybody,
                min_clients=min_clients,
                guarantee=plan.guarantee,
            )
        states = ServerStates(
            step=step, newest=server, earlier=before.earlier, staleness_exponent=config.staleness_exponent
        )
        if privacy is not None:
            return PrivateAggregation(inbox, states, privacy, anybody=anybody)
        if config.error_feedback == "ef21":
            return EstimatedAggregation(inbox, server, step=step, anybody=anybody, min_clients=min_clients)
        if config.robust_sum != "none":
            return RobustAggregation(inbox, server, config, memory, step=step, min_clients=min_clients)
        return PlainAggregation(inbox, states, min_clients=min_clients, watch=partial(error.watch, server))

    def with_attackers(before: RunState) -> Aggregation:
        assert attacked is not None, "there are attackers"
        return AttackedAggregation(of_kind(before), attacked, before.server)

    return of_kind if attacked is None else with_attackers
