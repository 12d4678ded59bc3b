"""What a run may ask for whose clients' rows lie at their sites, and not at the server.

Such a run is planned from a roster (`fedllm_data/roster.py`), and its caller brings the engine that reaches the sites.
What would need a row at the server, or something that cannot be told to a site, is refused here, by name, before a
model is loaded; nothing is quietly left out. Imports no torch.
"""

import hashlib
import json

from fedllm_data.errors import ConfigError
from fedllm_data.roster import Roster
from fedllm_train.config import FederatedConfig
from fedllm_train.strategies import strategy_class

__all__ = ["check_without_rows", "roster_sha256"]


def check_without_rows(
    config: FederatedConfig,
    roster: Roster,
    *,
    has_engine: bool,
    model_is_named: bool,
    is_scored_here: bool,
    trust_remote_code: bool,
) -> None:
    """Refuse what cannot be done for clients whose rows are elsewhere.

    Args:
        config: the settings of the federation.
        roster: the training clients.
        has_engine: whether the caller brings an engine, which reaches them.
        model_is_named: whether the model is a folder or a Hub id, which sites can load, too.
        is_scored_here: whether held-out rows that lie at the server are given (`eval_dataset`).
        trust_remote_code: whether code that comes with the model is to be run.

    Raises:
        ConfigError: naming the first such setting.
    """
    if not has_engine:
        raise ConfigError(
            f"clients is a roster of {len(roster):,} clients without rows, and no engine reaches them; pass engine=, "
            "or clients with rows"
        )
    traits = strategy_class(config.strategy).traits
    if traits.family == "baseline":
        raise ConfigError(
            f"strategy {config.strategy!r} is a baseline for rows that lie in one place, and the clients' rows lie at "
            "their sites; choose a federated strategy"
        )
    if traits.needs_languages and "main_language" not in roster.table.column_names:
        raise ConfigError(
            f"strategy {config.strategy!r} goes by the clients' main languages, and the sites do not tell them; let "
            "their policies give the column main_language, or choose another strategy"
        )
    if config.num_processes > 1:
        raise ConfigError(
            f"num_processes is {config.num_processes}, and clients are visited at their sites, each with processes of "
            "its own; leave it out"
        )
    if config.eval_every is not None and not is_scored_here:
        raise ConfigError(
            "eval_every scores held-out rows at the server, and the clients' lie at their sites; pass eval_dataset= "
            "with rows that the server may hold, or leave it out"
        )
    if not model_is_named:
        raise ConfigError(
            "the model was loaded by the caller, and the clients' sites cannot load the same; name a folder or Hub id"
        )
    if trust_remote_code:
        raise ConfigError(
            "trust_remote_code is on, and no site runs code because a server says so; use a model that needs none"
        )


def roster_sha256(roster: Roster) -> str:
    """Return a digest of a roster's clients and their numbers of rows, in hexadecimal.

    A resumed run compares it: with other clients, or other numbers of rows, it would go on to other bits.

    >>> roster = Roster(name="a", split="train", task="sft", revision=None, sizes={"ann": 2}, load_table=lambda: None)
    >>> roster_sha256(roster)[:8]
    '9e872fe2'
    """
    digest = hashlib.sha256(json.dumps([roster.split, roster.task]).encode())
    for client_id in roster:
        digest.update(json.dumps([client_id, int(roster.sizes[client_id])]).encode())
    return digest.hexdigest()
