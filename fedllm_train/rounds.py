"""The federated loop, from top to bottom: ask clients, take what they answer, step, remember.

Reads like the algorithm it is (McMahan et al. 2017, Algorithm 1). Whatever could vary stands behind a contract: who
takes part (`participation/`), where clients are (`engines/`), what the server sees of their updates (`aggregation/`),
how that becomes the next state (`strategies/`), who looks on (`monitoring/`). `round_plan.py` says what is remembered,
and how a killed run goes on.
"""

from fedllm_train.round_plan import RoundPlan
from fedllm_train.run_files.checkpoint import RunState

__all__ = ["run_rounds"]


def run_rounds(plan: RoundPlan, state: RunState) -> RunState:
    """Run the rounds that are left, with a checkpoint after each.

    Args:
        plan: what stays the same over the rounds.
        state: where to begin; a fresh run begins at round 0.

    Returns:
        The state after the last round, or after the one in which early stopping ended the run.
    """
    plan.ask_again(state)
    while not plan.is_done(state):
        aggregation = plan.open_aggregation(state)
        for reply in plan.participation.replies(plan.engine, state.next_round, plan.task_for(state)):
            plan.note(reply, aggregation.add(reply) if reply.reason is None else reply.reason)
        if aggregation.is_enough():
            server = plan.strategy.server_step(state.server, aggregation.sums(), state.next_round)
        else:
            server = state.server
        state = plan.remember(state, server, aggregation)
    return state
