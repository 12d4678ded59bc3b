"""An adapter in a resident model: its trained tensors loaded and read in place, no module built or replaced."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import PeftModel, PeftType, get_peft_model_state_dict

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter

__all__ = ["LiveAdapter"]


class LiveAdapter:
    """The trained tensors of a resident model, loaded and read in place: no module is built or replaced.

    These are its adapter's tensors or, in a model without an adapter, all parameters; tied weights count once.
    """

    def __init__(self, model: PeftModel | torch.nn.Module, adapter_name: str = "default") -> None:
        """Find the tensors in the model.

        Raises:
            ConfigError: if PEFT saves something else for this kind of adapter than what is trained, so that a mean of
                what is saved would mean nothing.
        """
        if isinstance(model, PeftModel):
            self.parameters = _adapter_parameters(model, adapter_name)
        else:
            self.parameters = dict(model.named_parameters())
        """The parameters themselves, by the adapter's names."""

    @torch.no_grad()
    def load(self, adapter: Mapping[str, torch.Tensor]) -> None:
        """Copy an adapter of the same names and shapes into the model."""
        if adapter.keys() != self.parameters.keys():
            odd = sorted(adapter.keys() ^ self.parameters.keys())[:3]
            raise ConfigError(
                f"the adapter does not fit the model: {odd} stand on one side only; use the adapter's own LoraConfig"
            )
        for name, tensor in self.parameters.items():
            if adapter[name].shape != tensor.shape:
                raise ConfigError(
                    f"the adapter does not fit the model: {name} has shape {tuple(adapter[name].shape)}, the model's "
                    f"is {tuple(tensor.shape)}; use the same rank and target modules"
                )
            tensor.copy_(adapter[name])

    @contextmanager
    def training_only(self, trains: Callable[[str], bool] | None) -> Iterator[dict[str, torch.nn.Parameter]]:
        """Train only the tensors of some names inside the block; yield those that are trained, by name."""
        before = {name: parameter.requires_grad for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.requires_grad_(before[name] and (trains is None or trains(name)))
            yield {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        finally:
            for name, parameter in self.parameters.items():
                parameter.requires_grad_(before[name])
                parameter.grad = None

    @torch.no_grad()
    def read(self) -> Adapter:
        """Return a copy of the adapter on the CPU, in its own precision."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.parameters.items()}


def _adapter_parameters(model: PeftModel, adapter_name: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of an adapter by the names under which PEFT saves them."""
    config = model.peft_config[adapter_name]
    # "auto" would ask the Hub whether the base's vocabulary was changed; trained embeddings belong in LoRA's
    # modules_to_save, which is always included.
    tensors = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    projects = getattr(config, "prefix_projection", False)
    if config.peft_type in (PeftType.PROMPT_TUNING, PeftType.PREFIX_TUNING) and not projects:
        # PEFT looks the virtual tokens up, one after the other, and saves what it finds: the table itself.
        tensors["prompt_embeddings"] = model.prompt_encoder[adapter_name].embedding.weight
    places = {parameter.data_ptr(): parameter for parameter in model.parameters()}
    odd = [name for name, tensor in tensors.items() if tensor.data_ptr() not in places]
    found = {name: places[tensor.data_ptr()] for name, tensor in tensors.items() if name not in odd}
    known = {id(parameter) for parameter in found.values()}
    if "ref" not in model.peft_config:  # beside it, a frozen copy may be marked as trained
        odd += [name for name, each in model.named_parameters() if each.requires_grad and id(each) not in known]
    if odd or not found or config.peft_type == PeftType.ADALORA:
        reason = (
            "its ranks change while it trains"
            if config.peft_type == PeftType.ADALORA
            else f"what PEFT saves of it is not what is trained (such as {odd[0]})"
            if odd
            else "it has no tensors of its own"
        )
        raise ConfigError(
            f"{type(config).__name__} cannot be averaged over clients: {reason}; use LoraConfig, IA3Config, "
            "LNTuningConfig, PromptTuningConfig or PrefixTuningConfig without prefix_projection"
        )
    return found
