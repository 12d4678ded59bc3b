"""The terms of the pages in plain words: one list for all pages, in every language, each term with its own anchor.

A page shows the terms it uses (`glossary`) and links a word to its explanation by `#term-KEY`. The first screen of a
page goes without the technical ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedllm_data.wording.catalogue import marked, words

__all__ = ["TERMS", "Term", "glossary"]


@dataclass(frozen=True)
class Term:
    """One term: its name and what it means, as messages of the catalogue."""

    name: str
    meaning: str


TERMS: dict[str, Term] = {
    "client": Term(
        marked("client"),
        marked("One person, or one organisation, with data of its own. Its rows stay apart from all others'."),
    ),
    "federated": Term(
        marked("federated learning"),
        marked(
            "Training in rounds: clients train on their own rows and send back changes of the model, which a server"
            " puts together. The rows themselves are never sent."
        ),
    ),
    "round": Term(
        marked("round"),
        marked("One step of the server: some clients get the current model, train, and send back what changed."),
    ),
    "base": Term(marked("base model"), marked("The model before any of this training.")),
    "sft": Term(
        marked("SFT (supervised fine-tuning)"),
        marked("Training on example conversations, so that the model answers as the examples do."),
    ),
    "dpo": Term(
        marked("DPO (direct preference optimisation)"),
        marked(
            "Training on pairs of answers of which a client preferred one, so that the model finds the preferred one"
            " more likely than the other."
        ),
    ),
    "adapter": Term(
        marked("adapter (LoRA)"),
        marked("A small set of added weights. Only these are trained and sent; the base model stays as it is."),
    ),
    "personal": Term(
        marked("personal adapter"),
        marked("An adapter that belongs to one client and is not shared."),
    ),
    "alone": Term(
        marked("trained alone"),
        marked("What a client gets if it trains on its own rows only and joins nobody."),
    ),
    "heldout": Term(
        marked("held-out rows"),
        marked(
            "Rows of a client that are kept away from training, so that a score says how the model does on new ones."
        ),
    ),
    "unseen": Term(
        marked("unseen clients"),
        marked("Clients that take no part in training at all. They stand for people who would come later."),
    ),
    "heldout_loss": Term(
        marked("held-out loss"),
        marked(
            "How surprised the model is by a client's own held-out answers, per token; lower is better, 0 means no"
            " surprise. The unit is the nat (1 nat = 1.44 bits)."
        ),
    ),
    "ranking_accuracy": Term(
        marked("ranking accuracy"),
        marked(
            "How often the model finds the answer that a client preferred more likely than the other one; 50 % is a"
            " coin, 100 % always."
        ),
    ),
    "reward": Term(
        marked("implicit reward"),
        marked(
            "How much more likely training made an answer than it was before. The margin is that of the preferred"
            " answer less that of the other."
        ),
    ),
    "interval": Term(
        marked("95 % interval"),
        marked(
            "The range in which the true value would lie 19 times out of 20 if other clients of the same kind were"
            " asked. A wide one means that little is known."
        ),
    ),
    "shown": Term(
        marked("shown, cannot tell"),
        marked(
            "A difference is called shown when chance is a poor explanation: its 95 % interval excludes 0 and its"
            " p-value, corrected for the number of questions asked, is below 0.05. Otherwise the data cannot tell."
        ),
    ),
    "p": Term(
        marked("p-value"),
        marked(
            "How often chance alone would give a difference at least this large. Holm's correction makes it stricter"
            " the more questions are asked at once."
        ),
    ),
    "chance": Term(
        marked("chance"),
        marked(
            "What would be seen if nothing differed but luck: small clients look different from one another even if"
            " their rows are dealt out at random."
        ),
    ),
    "worst": Term(
        marked("worst-served tenth"),
        marked("The tenth of the clients with the worst scores: a mean over all can hide them."),
    ),
    "heterogeneity": Term(
        marked("heterogeneity"),
        marked(
            "How much clients differ from one another: in size, language, length, quality, topics and preferences."
        ),
    ),
    "evenness": Term(
        marked("Jain and Gini"),
        marked("How evenly something is spread over clients. Jain 1 and Gini 0: all have the same."),
    ),
    "wire": Term(
        marked("wire"),
        marked(
            "How messages are packed on their way: which values are sent, and in how many bits. Packing saves"
            " bytes, not training."
        ),
    ),
    "client_table": Term(
        marked("client table"),
        marked(
            "What lines and devices the clients have: speeds both ways, delay, computing speed, memory, and how"
            " often they are lost."
        ),
    ),
    "clock": Term(
        marked("simulated clock"),
        marked(
            "Hours that a run would have taken on the clients' lines and machines, reckoned from the client"
            " table. Nothing waits for it."
        ),
    ),
    "deadline": Term(
        marked("deadline"),
        marked("The time at which a round ends, whoever has replied by then."),
    ),
    "over_selection": Term(
        marked("over-selection"),
        marked(
            "Asking more clients than a round needs, so that it can end with the first replies. The slow ones are"
            " heard less."
        ),
    ),
    "buffered": Term(
        marked("buffered (asynchronous)"),
        marked(
            "Training without rounds that wait: the server makes a step as soon as enough updates have come in,"
            " whichever model they began from."
        ),
    ),
    "staleness": Term(
        marked("staleness"),
        marked(
            "How many steps the server has made since a client got the model that it trained. The staler an"
            " update, the less it counts."
        ),
    ),
    "front": Term(
        marked("front"),
        marked(
            "Scores against what they cost. On it are the methods that no other one beats: none is shown to score"
            " better at no higher cost."
        ),
    ),
    "privacy": Term(
        marked("differential privacy (epsilon)"),
        marked(
            "A promise that the result would look nearly the same without any one client's data. The smaller epsilon,"
            " the stronger the promise."
        ),
    ),
    "auc": Term(
        marked("membership inference (AUC)"),
        marked("An attack that guesses whether a row was trained on. AUC 0.5 is guessing, 1 gives every row away."),
    ),
    "seed": Term(
        marked("seed"),
        marked("The number that settles all chance within a run. Another seed gives another, similar model."),
    ),
    "gate": Term(
        marked("gate"),
        marked("A check before a release: it stops a model that is worse than the one before by more than a margin."),
    ),
    "mib": Term(marked("MiB, GB"), marked("Sizes: 1 MiB is 1,048,576 bytes, 1 GB is 1,000,000,000 bytes.")),
}


def glossary(keys: Sequence[str] = tuple(TERMS)) -> list[tuple[str, str, str]]:
    """Return terms in the language of the page: anchor, name and meaning.

    Args:
        keys: which terms, in which order; by default all.

    >>> glossary(["base"])
    [('term-base', 'base model', 'The model before any of this training.')]
    """
    return [(f"term-{key}", words(TERMS[key].name), words(TERMS[key].meaning)) for key in keys]
