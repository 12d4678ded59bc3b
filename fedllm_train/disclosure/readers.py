"""Three readers of a run, and what each sees, in sentences: the server, another partner, and the public.

Every sentence follows from the run's folder (`run_facts.py`), or from an audit of it; numbers are of this very run.
What the folder cannot tell stands under what is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedllm_data.wording.catalogue import plural_words, words
from fedllm_data.wording.forms import bytes_text, listed
from fedllm_eval.policy.run_folder import SCORES
from fedllm_train.disclosure.promises import against_bad_partners, measured, promise, promises_to_outsiders
from fedllm_train.disclosure.run_facts import RunFacts

__all__ = ["Reader", "readers", "summary_of"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Somebody who sees a part of a run; lists of whole sentences."""

    key: str
    name: str
    sees: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    protects: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def readers(facts: RunFacts, audit: Mapping[str, Any] | None = None) -> list[Reader]:
    """Return the readers of a run, in the language that is spoken: server, another partner, the public.

    Args:
        facts: what the run folder shows.
        audit: what `fedllm-eval audit` found of this run, if it was audited.
    """
    return [_server(facts), _partner(facts, audit), _public(facts, audit)]


def summary_of(facts: RunFacts) -> list[str]:
    """Return the page's first sentences: where rows were, and the promise of the run."""
    said = [
        words("The rows stayed at the sites: every partner trained on its own machine.")
        if facts.at_sites
        else words(
            "This run simulated its clients: all rows lay on the machine that ran it, whose owner saw everything. The "
            "columns say what each reader would have seen had the clients been elsewhere."
        )
    ]
    if not facts.claims:
        said.append(words("It makes no promise of differential privacy: nothing bounds what its adapter tells."))
    said += [promise(facts, unit) for unit in facts.claims]
    return said


def _server(facts: RunFacts) -> Reader:
    rounds, traits = facts.rounds, facts.traits
    reader = Reader(key="server", name=words("The server"))
    if not traits.travels:
        reader.sees.append(words("No update: with this method clients exchange nothing."))
    elif facts.secure_sum:
        reader.sees.append(_sums(facts))
    elif rounds.upload_bytes is not None:
        reader.sees.append(
            words(
                "Every single update: {visits} in {rounds}, {size} each on average.",
                visits=plural_words("{num} update", "{num} updates", rounds.num_visits),
                rounds=plural_words("{num} round", "{num} rounds", rounds.num_rounds),
                size=bytes_text(rounds.upload_bytes),
            )
        )
    else:
        reader.sees.append(words("Every single update, of every client in every round."))
    if rounds.is_named:
        reader.sees.append(
            words(
                "Who took part in which round: {num} of {total}, under their ids.",
                num=f"{rounds.num_clients:,}",
                total=plural_words("{num} client", "{num} clients", facts.num_clients),
            )
        )
    if rounds.rows is not None:
        reader.sees.append(
            words(
                "How many rows each of them trained on: from {least} to {most}.",
                least=f"{rounds.rows[0]:,}",
                most=f"{rounds.rows[1]:,}",
            )
        )
    if rounds.has_losses:
        reader.sees.append(words("The mean training loss of each visit, and how many steps and seconds it took."))
    if rounds.num_scored:
        reader.sees.append(
            plural_words(
                "Scores on held-out rows, after {num} round.",
                "Scores on held-out rows, after {num} rounds.",
                rounds.num_scored,
            )
        )
    if facts.has_scores and facts.at_sites:
        reader.sees.append(words("A line of scores for every client of the sites that send scores."))
    if traits.needs_languages:
        reader.sees.append(words("The main language of each client, which the method reads."))
    elif facts.at_sites:
        reader.sees.append(
            words("Of the clients' table, the columns that a site lets go: by default the main language alone.")
        )
    if facts.at_sites:
        reader.sees.append(
            words("A relay in between, and Flower's server, carry the same bytes: settings, adapters, updates.")
        )
    if facts.secret_is_there:
        reader.sees.append(
            words(
                "The secret that noise and cohorts were drawn from (privacy_secret), which is still in the run "
                "folder. Whoever has it can take the noise off. Delete it when the run is finished."
            )
        )
    reader.hidden.append(
        words("Rows and texts.") if facts.at_sites else words("Rows and texts, if these are elsewhere.")
    )
    if facts.num_personal is not None:
        reader.hidden.append(words("The adapters that clients keep for themselves."))
    if facts.secure_sum:
        reader.hidden.append(words("Any single update."))
    reader.protects.extend(_protects_from_server(facts))
    reader.unknown.append(
        words("What the server could work out from what it sees: an audit attacks the finished adapter alone.")
    )
    if facts.at_sites:
        reader.unknown.append(
            words("What each site's own policy let go (worker.yaml); every site's requests.jsonl has the bytes.")
        )
    if rounds.num_rounds < facts.num_planned:
        reader.unknown.append(
            words(
                "{num} of {total} rounds are recorded: the rest is not made yet.",
                num=f"{rounds.num_rounds:,}",
                total=f"{facts.num_planned:,}",
            )
        )
    return reader


def _sums(facts: RunFacts) -> str:
    rounds = facts.rounds
    if rounds.smallest is None or rounds.largest is None:
        return words("Of every round the sum of the updates, and no single one.")
    return words(
        "Of every round the sum of the updates, and no single one; from {least} to {most} clients were in a sum.",
        least=f"{rounds.smallest:,}",
        most=f"{rounds.largest:,}",
    )


def _protects_from_server(facts: RunFacts) -> list[str]:
    said = []
    if facts.secure_sum:
        said.append(
            words(
                "The secure sum, as long as the server follows the protocol and does not run clients of its own. A "
                "sum of few updates still tells much of each."
            )
        )
    if facts.noise_in_visits:
        said.append(
            words(
                "Noise that each client adds in its visit, before an update leaves it: the promise for one example "
                "holds against a server, too, that does not have the noise's secret."
            )
        )
    elif facts.claims and not facts.secure_sum:
        said.append(words("Not the noise: the server adds it, after it has seen the updates."))
    elif facts.claims:
        if facts.secure_sum.get("secure_sum_skellam"):
            said.append(words("Noise that the clients add before the sum: the server sees the sum with noise alone."))
        else:
            said.append(words("Noise is added by the server, after it has seen the sum."))
    if facts.wire is not None:
        said.append(
            words("Uploads were packed by {wire}. That makes them shorter and hides nothing.", wire=facts.wire)
        )
    if facts.hashed_ids:
        said.append(words("Client ids are hashes with a salt: whoever has the salt can undo them."))
    if not said:
        said.append(words("Nothing: the server is trusted with single updates, which tell something of their rows."))
    return said


def _partner(facts: RunFacts, audit: Mapping[str, Any] | None) -> Reader:
    rounds, traits = facts.rounds, facts.traits
    reader = Reader(key="partners", name=words("Other partners"))
    reader.sees.append(words("The run's settings and its base model."))
    if not traits.travels:
        reader.sees.append(words("Nothing of anybody else: clients exchange nothing."))
    elif traits.adapter_down == "own":
        reader.sees.append(words("The adapter that the server sends to it, which is made for it or its group."))
    else:
        reader.sees.append(
            plural_words(
                "The common adapter, whenever it is asked, in {num} round at most.",
                "The common adapter, whenever it is asked, in {num} rounds at most.",
                max(rounds.num_rounds, facts.num_planned),
            )
        )
        reader.sees.append(
            words("What two of these adapters differ by: the mean of the updates of a round, with noise.")
            if facts.claims
            else words("What two of these adapters differ by: the mean of the updates of a round.")
        )
        if not facts.claims and rounds.smallest is not None and rounds.smallest <= 2:
            reader.sees.append(
                plural_words(
                    "The smallest round had {num} client: what changed in it is that client's update, for everybody "
                    "to see.",
                    "The smallest round had {num} clients: each can take its own update off and has the other's.",
                    rounds.smallest,
                )
                if rounds.smallest
                else words("A round without anybody changed nothing, which tells that nobody was there.")
            )
    reader.hidden.append(words("Rows and texts of others, their single updates, row counts, losses and ids."))
    if facts.at_sites:
        reader.hidden.append(words("Which site has which clients (sites.json, which stays at the server)."))
    if facts.num_personal is not None:
        reader.hidden.append(words("The adapters that others keep for themselves."))
    reader.protects.extend(promises_to_outsiders(facts))
    reader.protects.append(against_bad_partners(facts))
    reader.measured.extend(measured(audit))
    reader.unknown.append(
        words("What partners tell one another, and what several of them work out together from their own updates.")
    )
    return reader


def _public(facts: RunFacts, audit: Mapping[str, Any] | None) -> Reader:
    reader = Reader(key="public", name=words("The public, once it is published"))
    reader.sees.append(words("Before it is published: nothing."))
    reader.sees.append(
        words("fedllm-train publish would push: {files}.", files=listed([str(name) for name in facts.pushed]))
    )
    if facts.is_private:
        reader.sees.append(
            words("Of the rounds only what the guarantee covers: norms of released steps, epsilon and delta.")
        )
    elif facts.rounds.is_named:
        reader.sees.append(
            words(
                "Of the rounds how many took part, under running numbers, with their steps and seconds, and the mean "
                "losses of rounds."
            )
        )
    if SCORES in facts.pushed:
        reader.sees.append(words("Scores over all clients, without a line per client."))
    if facts.kept_back:
        reader.hidden.append(
            words("Kept back from this folder: {files}.", files=listed([str(name) for name in facts.kept_back]))
        )
    reader.hidden.append(words("Ids, row counts and losses of clients, unless --include-clients asks for them."))
    if facts.new_repo_is_private:
        reader.protects.append(words("A new repo is private, since the dataset is none on the Hub, unless --public."))
    reader.protects.extend(promises_to_outsiders(facts))
    reader.measured.extend(measured(audit))
    reader.unknown.append(words("Whether it was published, with which flags, and what an earlier push left behind."))
    if facts.num_earlier:
        reader.unknown.append(
            plural_words(
                "What the {num} earlier dataset gives away that its start was trained on.",
                "What the {num} earlier datasets give away that its start was trained on.",
                facts.num_earlier,
            )
        )
    if facts.has_scores and facts.claims:
        reader.unknown.append(words("What scores tell, if --include-scores pushes them: no guarantee covers them."))
    reader.unknown.append(words("What the choice of settings by earlier runs on the same clients gave away."))
    return reader
