"""What a guarantee of user-level differential privacy rests on, in words; in every private run's config and card.

Imports no torch.
"""

from typing import Literal

__all__ = ["NEIGHBOURS", "Sampling", "assumptions_of"]

Sampling = Literal["poisson", "without_replacement", "none", "turns"]
"""How who takes part is accounted for: Poisson cohorts; cohorts of one size drawn from a roster; not at all, as if
everybody were in every round; not at all, with a rule of how often a client may come."""

NEIGHBOURS = {
    "poisson": "one client added or removed",
    "without_replacement": "one client replaced by another",
    "none": "one client's updates replaced by zero",
    "turns": "one client's updates replaced by zero",
}
"""Which federations the guarantee cannot tell apart."""

_UNIT = (
    "The unit is the client: epsilon bounds what the global adapters of all rounds together tell about whether one "
    "client, with all of its rows, took part in the run"
)
_SERVER = "The server is trusted: it sees updates before the noise is added."
_POISSON = (
    "Every client takes part in a round with the same probability, independently of all others and of other rounds "
    "(Poisson sampling), and nobody but the server learns who did. The number of clients is public."
)
_ONE_SIZE = (
    "In every round the cohort is drawn from all sets of clients of its size, each equally likely, independently of "
    "other rounds and of what clients hold, and nobody but the server learns who was in it. The numbers of clients "
    "and of the cohort are public. Replacing a client changes the sum by up to twice the clip, and epsilon is for "
    "that."
)
_NO_SAMPLE = (
    "Who takes part hides nobody: it follows from the clients' machines, the clock and the lengths of messages, none "
    "of which depends on what clients hold. Every client is taken to give an update to every round, and at most one; "
    "neighbouring federations differ by one client whose updates are replaced by zero (Kairouz et al. 2021, arXiv "
    "2103.00039), so that all others come when they would have come."
)
_TURNS = (
    "Who takes part hides nobody: it follows from draws, the clients' machines, the clock and the lengths of "
    "messages, none of which depends on what clients hold. {how_often}: who would come too early is not asked, and "
    "an update that comes all the same is left out. Neighbouring federations differ by one client whose updates are "
    "replaced by zero, so that all others come when they would have come. Noise of different rounds is related, and "
    "all of it together is one Gaussian mechanism (Denisov et al. 2022, arXiv 2202.08312)."
)
_NOISE = (
    "Noise and cohorts are drawn from a secret of 256 bits that the system gave this run alone. It is kept in the run "
    "folder (privacy_secret) so that the run can be resumed, and published with nothing; whoever has it can take the "
    "noise off. The Gaussian is rounded to floating-point numbers, which a deployment must sample in a way that gives "
    "nothing away."
)
_COVERED = (
    "Only global adapters are covered: rounds.jsonl, scores on the clients' rows and adapters that clients keep for "
    "themselves are not, nor are the choice of settings by earlier runs and the making of the dataset."
)
_ADAPTIVE = (
    "The clip of each round is calculated from counts of clients with noise of their own, which epsilon counts, too, "
    "so it is covered with the adapters. A client that is removed, or whose updates are replaced by zero, is in no "
    "count."
)
_ROWS = "Clients' numbers of rows count as public: who takes part, or how long a visit takes, depends on them."


def assumptions_of(
    sampling: Sampling, *, how_often: str = "", is_adaptive: bool = False, rows_are_public: bool = False
) -> list[str]:
    """Return what a guarantee rests on, a sentence or some for each.

    Args:
        sampling: how who takes part is accounted for.
        how_often: with `turns`: how often a client may come, in words.
        is_adaptive: whether the clip follows noisy counts.
        rows_are_public: whether numbers of rows decide who takes part.

    >>> assumptions_of("without_replacement")[0][-66:]
    'neighbouring federations differ by one client replaced by another.'
    """
    ends = {
        "poisson": "; neighbouring federations differ by one client added or removed.",
        "without_replacement": "; neighbouring federations differ by one client replaced by another.",
    }
    who = {
        "poisson": _POISSON,
        "without_replacement": _ONE_SIZE,
        "none": _NO_SAMPLE,
        "turns": _TURNS.format(how_often=how_often),
    }
    return [
        _UNIT + ends.get(sampling, "."),
        _SERVER,
        who[sampling],
        _NOISE,
        _COVERED,
        *([_ADAPTIVE] if is_adaptive else []),
        *([_ROWS] if rows_are_public else []),
    ]
