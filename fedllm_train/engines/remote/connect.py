"""From a run and the clients of sites to the engine that visits them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from fedllm_train.clients.run_spec import RunSpec, most_steps
from fedllm_train.clients.token_cache import rows_of_row
from fedllm_train.engines.remote.messages import Begin, PrivacyFacts
from fedllm_train.engines.remote.remote_engine import RemoteEngine
from fedllm_train.engines.remote.seats import RemoteOptions
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.engines.remote.spec_text import spec_text
from fedllm_train.engines.remote.start_folder import read_start
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.row_guarantee import RowGuarantee

__all__ = ["LEASE_SECONDS", "remote_engine"]

LEASE_SECONDS = 300.0
"""A worker that is asked nothing about a run for so long ends its visit."""


def remote_engine(
    clients: SiteClients,
    spec: RunSpec,
    participants: Sequence[str],
    *,
    run: str,
    num_rounds: int,
    guarantee: Guarantee | RowGuarantee | None,
    options: RemoteOptions,
) -> RemoteEngine:
    """Return the engine that visits the clients of sites.

    Args:
        clients: of the sites, with the open line to them.
        spec: the run's spec.
        participants: clients that may be asked.
        run: the run's key.
        num_rounds: number of rounds in the run.
        guarantee: what a private run guarantees; None for others.
        options: how long to wait, and for how many sites.

    Raises:
        ConfigError: if something of the run cannot be sent to other machines.
    """
    adapter = None if spec.policy.adapter is None else read_start(Path(spec.policy.adapter))
    asked: dict[str, list[str]] = {}
    for client_id in participants:
        asked.setdefault(clients.site_of[client_id], []).append(client_id)
    texts = {site: spec_text(spec, frozenset(ids)) for site, ids in asked.items()}

    def begins(site: str) -> tuple[Begin, bytes]:
        begin = Begin(
            run=run,
            spec=texts[site],
            adapter=None if adapter is None else adapter[0],
            clients=sorted(asked[site]),
            data=clients.facts[site].splits["train"].digest,
            num_rounds=num_rounds,
            max_steps=most_steps(spec),
            privacy=_privacy(guarantee),
            num_threads=torch.get_num_threads(),
            lease_seconds=LEASE_SECONDS,
        )
        return begin, b"" if adapter is None else adapter[1]

    site_of = {client_id: clients.site_of[client_id] for client_id in participants}
    of_one = rows_of_row(spec.client_args)
    rows = {client_id: of_one * clients.sizes[client_id] for client_id in participants}
    return RemoteEngine(clients.line, site_of, rows, begins, run=run, options=options)


def _privacy(guarantee: Guarantee | RowGuarantee | None) -> PrivacyFacts | None:
    if guarantee is None or (epsilon := guarantee.epsilon(guarantee.num_rounds)) is None:
        return None
    if isinstance(guarantee, RowGuarantee):
        return PrivacyFacts(
            unit="example",
            epsilon=epsilon,
            client_epsilon=guarantee.client_epsilon,
            delta=guarantee.delta,
            dp_clip=guarantee.privacy.clip,
            noise_multiplier=guarantee.privacy.noise_multiplier,
        )
    return PrivacyFacts(
        epsilon=epsilon,
        delta=guarantee.delta,
        dp_clip=guarantee.clip,
        noise_multiplier=guarantee.noise_multiplier,
    )
