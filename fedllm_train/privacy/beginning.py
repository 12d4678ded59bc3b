"""What a private run does before its first round: say what its noise leaves of what it learns, and have its secret."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.aggregation.private import ClientPrivacy
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.few_values import values_by_method
from fedllm_train.privacy.noise_size import first_line, noise_note
from fedllm_train.privacy.private_memory import private_memory
from fedllm_train.privacy.secret import run_secret
from fedllm_train.strategy import Strategy

__all__ = ["begin_privacy", "check_related_parts", "first_line_of", "num_values_sent", "others_by_method"]

logger = logging.getLogger(__name__)


def begin_privacy(
    run: Path,
    guarantee: Guarantee | None,
    strategy: Strategy,
    start: Parts,
    client_ids: Sequence[str],
    *,
    next_round: int,
    lost_rounds: bool,
    remembered: Mapping[str, Any] | None = None,
) -> ClientPrivacy | None:
    """Return what makes the remaining rounds private; None if no rounds are left, or nothing is guaranteed.

    Args:
        run: the run folder.
        guarantee: the run's guarantee.
        strategy: the method.
        start: the server's state before round 0.
        client_ids: clients that may take part.
        next_round: where the run begins or goes on; from 0.
        lost_rounds: whether the run made rounds that it cannot go on from.
        remembered: what the checkpoint holds of `private_memory.py`.

    Raises:
        ResumeError: if the run goes on and its secret is lost.
    """
    if guarantee is None or next_round >= guarantee.num_rounds:
        return None
    logger.info(first_line_of(guarantee, strategy, start, client_ids))
    num_values = num_values_sent(strategy, start, client_ids[0])
    others = others_by_method(start, num_values)
    if note := noise_note(guarantee, num_values=num_values, num_clients=len(client_ids), by_method=others):
        logger.warning(note)
    secret = run_secret(run, next_round=next_round, lost_rounds=lost_rounds) if guarantee.has_noise else None
    return ClientPrivacy(guarantee=guarantee, secret=secret, memory=private_memory(guarantee, remembered or {}))


def check_related_parts(guarantee: Guarantee | None, strategy: Strategy, start: Parts, client_id: str) -> None:
    """Refuse related noise for a method that sends other tensors in every second round: it would never be taken back.

    Args:
        guarantee: the run's guarantee.
        strategy: the method.
        start: the server's state before round 0.
        client_id: a client that may take part.

    Raises:
        ConfigError: if what is sent differs between rounds.
    """
    if guarantee is None or guarantee.related is None:
        return
    first, second = (strategy.expects(start, client_id, index).get("adapter", {}).keys() for index in (0, 1))
    if first != second:
        raise ConfigError(
            f"dp_mechanism relates the noise of rounds, and {strategy.traits.title} sends other values in every "
            "second round, whose noise would not be taken back; use fedavg, ffa_lora or fed_sb, or dp_mechanism "
            "gaussian"
        )


def first_line_of(guarantee: Guarantee, strategy: Strategy, start: Parts, client_ids: Sequence[str]) -> str:
    """Return what is said before the first round: epsilon, and what the noise leaves.

    Args:
        guarantee: the run's guarantee.
        strategy: the method.
        start: the server's state before round 0.
        client_ids: clients that may take part.
    """
    num_values = num_values_sent(strategy, start, client_ids[0])
    others = others_by_method(start, num_values)
    return first_line(guarantee, num_values=num_values, num_clients=len(client_ids), by_method=others)


def others_by_method(start: Parts, num_values: int) -> dict[str, int]:
    """Return the methods that would train fewer values than are sent now, with how many.

    Args:
        start: the server's state before round 0.
        num_values: values that a client sends in a round.
    """
    found = values_by_method({name: tuple(tensor.shape) for name, tensor in start["adapter"].items()})
    return {name: values for name, values in found.items() if values < num_values}


def num_values_sent(strategy: Strategy, start: Parts, client_id: str) -> int:
    """Return how many values of an adapter a client sends in a round; the largest number if that differs by round."""
    sent = [strategy.expects(start, client_id, round_index).get("adapter", {}) for round_index in (0, 1)]
    return max(sum(math.prod(shape) for shape in shapes.values()) for shapes in sent)
