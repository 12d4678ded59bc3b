"""What scores, splits and outcomes are called on a page for people: plain words, as messages of the catalogue.

Tables keep the keys of results.json, so that a reader finds a number again; `score_name` says what a key means.
"""

from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.recorded import again

__all__ = ["OUTCOMES", "SCORE_NAMES", "client_kind", "outcome_name", "score_name"]

SCORE_NAMES = {
    "heldout_loss": marked("held-out loss"),
    "implicit_reward_accuracy": marked("agreement gained by training"),
    "implicit_reward_margin": marked("reward margin"),
    "implicit_reward_loss": marked("preference loss"),
    "ranking_accuracy": marked("ranking accuracy"),
    "ranking_accuracy_per_token": marked("ranking accuracy per token"),
    "chosen_loss": marked("loss on preferred answers"),
}
_SUMMARIES = (
    marked("negative log-likelihood of the assistant's tokens"),
    marked("share of pairs whose chosen answer gained more over the reference; ties do not count"),
    marked("implicit reward of the chosen minus that of the rejected answer"),
    marked("DPO's loss; log 2 where policy and reference agree"),
    marked("share of pairs whose chosen answer is the likelier one"),
    marked("the same by mean log-probability per token, which does not favour short answers"),
    marked("negative log-likelihood of the chosen answer's tokens"),
)
"""What `fedllm_eval.scores` says of each."""
_UNITS = (
    marked("nats per token"),
    marked("fraction of pairs"),
    marked("beta x nats"),
    marked("nats"),
    marked("fraction"),
    marked("by token"),
)
OUTCOMES = {
    "better": marked("better"),
    "worse": marked("worse"),
    "better run": marked("better run"),
    "worse run": marked("worse run"),
    "undecided": marked("undecided"),
}


def score_name(name: str) -> str:
    """Return a score in plain words; a score of somebody else's keeps its key.

    >>> score_name("heldout_loss"), score_name("chrf")
    ('held-out loss', 'chrf')
    """
    return words(SCORE_NAMES[name]) if name in SCORE_NAMES else name


def client_kind(split: str, num: int) -> str:
    """Return how many clients of a split there are, in plain words.

    >>> client_kind("test", 1200), client_kind("unseen", 1), client_kind("night", 2)
    ('1,200 clients of the federation', '1 client who took no part', '2 clients (night)')
    """
    count = f"{num:,}"
    if split == "test":
        return words("1 client of the federation") if num == 1 else words("{num} clients of the federation", num=count)
    if split == "unseen":
        return words("1 client who took no part") if num == 1 else words("{num} clients who took no part", num=count)
    return words("{num} clients ({split})", num=count, split=split)


def outcome_name(outcome: str) -> str:
    """Return an outcome of a comparison in the language of the page.

    >>> outcome_name("undecided")
    'undecided'
    """
    return again(outcome)
