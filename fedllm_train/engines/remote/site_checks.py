"""What a run cannot ask of clients whose rows are at sites; refused before a model is loaded."""

from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.strategies import strategy_class

__all__ = ["check_at_sites"]


def check_at_sites(inputs: Any, config: Any) -> None:
    """Refuse settings that need rows, or a model, where the server is.

    Args:
        inputs: what the trainer was called with (`fedllm_train/inputs.py`).
        config: the settings of the federation.

    Raises:
        ConfigError: naming the setting and the remedy.
    """
    clients: SiteClients = inputs.clients
    if not isinstance(inputs.model, str):
        raise ConfigError("the model is in memory, and sites load their own; name its folder or Hub id")
    if inputs.tokenizer is not None:
        raise ConfigError("a tokenizer is given, and sites take the one beside their base model; leave it out")
    if inputs.eval_dataset is not None:
        raise ConfigError("eval_dataset is given, and held-out rows are scored at the sites; leave it out")
    if config.num_processes != 1:
        raise ConfigError(
            f"num_processes is {config.num_processes}, and the clients are at sites, each of which trains on its own "
            "machine; leave it out"
        )
    traits = strategy_class(config.strategy).traits
    if traits.family == "baseline":
        raise ConfigError(
            f"strategy {config.strategy!r} trains on rows in one place, and the clients are at sites; choose another, "
            "or run it at a site on its own rows"
        )
    if traits.needs_languages and "main_language" not in clients.table.column_names:
        raise ConfigError(
            f"strategy {config.strategy!r} groups clients by language, and no site tells it; ask them to name "
            "main_language under columns in their worker.yaml"
        )
    if config.eval_every is None:
        return
    if not clients.rows_of(config.eval_split):
        raise ConfigError(
            f"eval_every is {config.eval_every}, and no site has clients in split {config.eval_split!r}; leave it "
            "out, or choose another eval_split"
        )
    if silent := [site for site, facts in clients.facts.items() if facts.policy.get("scores") is False]:
        raise ConfigError(
            f"eval_every is {config.eval_every}, and site {silent[0]!r} sends no scores by its policy; leave it out, "
            "or ask its people"
        )
