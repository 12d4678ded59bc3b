"""What a run that is private to rows guarantees at one site, calculated by the site itself from what it is asked.

A server may claim any epsilon. The clip, the noise and the steps of its clients are in the run's spec, and the site
follows them, so it can tell what they are worth for its own rows.
"""

from collections import Counter
from collections.abc import Mapping

from fedllm_data.errors import ConfigError
from fedllm_train.engines.remote.messages import Begin
from fedllm_train.engines.remote.spec_text import read_row_privacy, read_work
from fedllm_train.privacy.row_guarantee import RowGuarantee, RowKind

__all__ = ["row_claim_problem"]

_ROUNDING = 1.01
"""Grids of accountants and groups of clients differ a little between a run and a site."""


def row_claim_problem(begin: Begin, rows: Mapping[str, int]) -> str | None:
    """Return why a claimed epsilon of rows is not what the run's spec gives here; None where it is.

    Args:
        begin: what the server asks; has a guarantee of rows.
        rows: rows of the site's clients.
    """
    claim = begin.privacy
    assert claim is not None
    try:
        privacy, work = read_row_privacy(begin.spec.get("rows")), read_work(begin.spec.get("work"))
    except ConfigError as error:
        return str(error)
    told = (claim.dp_clip, claim.noise_multiplier, begin.num_rounds)
    if (privacy.clip, privacy.noise_multiplier, privacy.num_rounds) != told:
        return "the run claims another clip, noise or number of rounds than its spec asks of the clients"
    counted = Counter(rows[client_id] for client_id in begin.clients if rows.get(client_id))
    kinds = tuple(
        RowKind(num_rows=size, visit_steps=work.num_steps(size), num_clients=counted[size]) for size in sorted(counted)
    )
    if not kinds:
        return None
    here = RowGuarantee(privacy=privacy, delta=claim.delta, kinds=kinds)
    try:
        pairs = {"row": (claim.epsilon, here.epsilon()), "client": (claim.client_epsilon, here.client_epsilon)}
    except ConfigError as error:
        return f"the run claims an epsilon that cannot be checked here: {error}"
    for unit, (claimed, found) in pairs.items():
        if claimed is not None and (found is None or found > claimed * _ROUNDING):
            gives = "none" if found is None else f"{found:.4g}"
            return (
                f"the run claims epsilon {claimed:.4g} of a {unit}, and what it asks of the clients gives {gives} here"
            )
    return None
