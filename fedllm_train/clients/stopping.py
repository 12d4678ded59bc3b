"""A visit that ends before its last step: the organisation, or the run, wants the machine back.

The trainer is asked after every optimizer step and leaves its loop as it does after the last one, so that nothing of
the visit is left behind. What was half done is not sent and not kept.
"""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from fedllm_data.errors import FedLLMError

__all__ = ["StopBetweenSteps", "VisitStopped"]


class VisitStopped(FedLLMError):
    """A visit was ended between two of its steps."""


class StopBetweenSteps(TrainerCallback):  # type: ignore[misc]
    """Lets a trainer leave its loop after the step in which somebody says so."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        """Take what is asked after every step."""
        self._is_stopped = is_stopped

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Leave the loop if the visit is to end."""
        if self._is_stopped():
            control.should_training_stop = True
