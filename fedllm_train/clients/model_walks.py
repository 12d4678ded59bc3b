"""What walking a model's modules finds, found once: TRL's trainer asks a dozen times a visit and in every step.

Inside a fit no module comes or goes, so the answers are lists that are kept. They are the model's own, in its own
order, and a question with arguments still goes to the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["ModelWalks"]


class ModelWalks:
    """Parameters and modules of one model, as long as its structure stays as it is."""

    def __init__(self, model: torch.nn.Module) -> None:
        """Walk the model."""
        self._model = model
        self._named = list(model.named_parameters())
        self._parameters = [parameter for _, parameter in self._named]
        self._modules = list(model.modules())
        self.decay_names: frozenset[str] | None = None
        """Names of the parameters that weight decay applies to; None until the trainer has asked."""
        self._has_trained = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the model answer from the lists inside the block, and switch to training once, not in every step.

        >>> model = torch.nn.Linear(1, 1).eval()
        >>> with ModelWalks(model).held():
        ...     _ = model.train().train()
        ...     [parameter is model.bias for parameter in model.parameters()]
        [False, True]
        >>> "parameters" in model.__dict__
        False
        """
        model, kind = self._model, type(self._model)
        is_training = False

        def parameters(*args: Any, **kwargs: Any) -> Any:
            return kind.parameters(model, *args, **kwargs) if args or kwargs else iter(self._parameters)

        def named_parameters(*args: Any, **kwargs: Any) -> Any:
            return kind.named_parameters(model, *args, **kwargs) if args or kwargs else iter(self._named)

        def modules() -> Any:
            return iter(self._modules)

        def train(mode: bool = True) -> Any:
            nonlocal is_training
            # Switching sets every module's flag, which costs more than looking at all of them.
            is_set = is_training or (self._has_trained and all(module.training for module in self._modules))
            if not (mode and is_set):
                kind.train(model, mode)
            is_training, self._has_trained = mode, True
            return model

        ours = {"parameters": parameters, "named_parameters": named_parameters, "modules": modules, "train": train}
        model.__dict__.update(ours)
        try:
            yield
        finally:
            for name in ours:
                del model.__dict__[name]
