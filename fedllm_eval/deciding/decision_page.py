"""The decision as HTML pages that load nothing: one for who decides, one for the partners.

The first screen of `decision.html` has no technical figure; `details` have them all. `partners.html` names partners
and is written only beside the decision, never published; without names it is not made at all.
"""

import hashlib
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader

from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import bytes_text, sentences
from fedllm_eval.deciding.decision import Decided, Decision
from fedllm_eval.deciding.decision_words import (
    alone_sentences,
    break_even_sentences,
    candidate_sentences,
    cost_sentences,
    for_whom_sentences,
    gain_sentences,
    losers_sentences,
)
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.partners import FEW_ROWS, Partner, SizeGroup, size_groups
from fedllm_eval.deciding.plain_amounts import amount, own_gain
from fedllm_eval.deciding.rule_words import OUTCOME_NAMES, RULE_NAMES, VERDICTS, reasons, rule_sentence
from fedllm_eval.deciding.trained_how import how_sentences
from fedllm_eval.reporting.left_behind_section import left_behind_section
from fedllm_eval.reporting.score_words import score_name
from fedllm_eval.texts import text_bytes

__all__ = ["losing_partners", "partner_anchor", "render_decision", "render_partners"]

NUM_NAMED = 10
NUM_LOSERS_IN_CARD = 3


def render_decision(
    decision: Decision,
    out: Path,
    *,
    named: bool = True,
    linked: Collection[str] = (),
    language: str | None = None,
) -> str:
    """Return the page for who decides.

    Args:
        decision: what is said.
        out: the folder that the page will lie in, for its links.
        named: whether partners may be named.
        linked: partners that have a section on the partners' page.
        language: of the page; by default it speaks all languages, and the browser chooses.
    """
    environment = _environment()
    template = environment.get_template("decision_page.html.jinja")
    chosen = decision.chosen
    losers = losing_partners(decision) if named else []
    in_card = [one.client_id for one in losers if one.gain < 0][:NUM_LOSERS_IN_CARD]
    score = chosen.gain.score

    def body() -> Body:
        verdict = words(VERDICTS[decision.recommendation])
        cards = [
            (words("What was gained?"), gain_sentences(chosen)),
            (words("For whom?"), for_whom_sentences(chosen)),
            (words("Who loses?"), losers_sentences(chosen, in_card)),
            (words("At what cost?"), [*how_sentences(chosen.how), *cost_sentences(chosen.price, decision.prices)]),
            (words("And going alone?"), alone_sentences(decision)),
            (
                words("What is in doubt?"),
                reasons(chosen.rules, "open", "doubt", "unknown") or [words("Nothing known.")],
            ),
        ]
        html = template.render(
            decision=decision,
            chosen=chosen,
            verdict=verdict,
            because=_because(chosen),
            before=Path(decision.before).name,
            dataset=Path(str(decision.dataset["name"])).name,
            cards=cards,
            rules=[
                (rule, words(RULE_NAMES[rule.name]), words(OUTCOME_NAMES[rule.outcome]), rule_sentence(rule))
                for rule in chosen.rules
            ],
            price_of_a_point=break_even_sentences(chosen.break_even, score, decision.prices),
            candidates=[
                (
                    one,
                    words(VERDICTS[one.recommendation]),
                    own_gain(score, one.gain.before, one.gain.after),
                    sentences(candidate_sentences(one)),
                )
                for one in decision.candidates
            ],
            alone_scores=shlex.split(decision.alone_commands[-1])[-1] if decision.alone_commands else "",
            groups=_groups(decision),
            left_behind=left_behind_section({"left_behind": chosen.left_behind}),
            by_train_rows=_train_rows(decision) is not None,
            losers=[(one, own_gain(score, one.before, one.together), one.client_id in linked) for one in losers],
            figures=_figures(decision),
            pages=_pages(decision, out),
            provenance=_provenance(decision),
        )
        return Body(f"{verdict}: {chosen.label}", html)

    return whole_page(body, language=language, style=environment.get_template("decision_page.css.jinja").render())


def render_partners(
    decision: Decision, partners: Sequence[Partner], *, left_out: int = 0, language: str | None = None
) -> str:
    """Return the page for the partners, a section each.

    Args:
        decision: what was decided.
        partners: who gets a section.
        left_out: how many others have none, which the page says.
        language: of the page; by default all.
    """
    environment = _environment()
    template = environment.get_template("partners_page.html.jinja")
    price = decision.chosen.price

    def body() -> Body:
        html = template.render(
            partners=[(one, _said_to(one, decision)) for one in partners],
            left_out=left_out,
            privacy=cost_sentences(price, decision.prices)[-1] if price is not None else "",
        )
        return Body(words("What do I gain by joining?"), html)

    return whole_page(body, language=language, style=environment.get_template("decision_page.css.jinja").render())


def partner_anchor(client_id: str) -> str:
    """Return where a partner's section is: ids may hold anything, and differ in capitals alone.

    >>> partner_anchor("Acme") == partner_anchor("acme")
    False
    """
    return f"partner-{hashlib.sha256(text_bytes(client_id)).hexdigest()[:12]}"


def _environment() -> Environment:
    environment = page_environment()
    environment.filters["partner_anchor"] = partner_anchor
    environment.filters["score_name"] = score_name
    environment.loader = ChoiceLoader([PackageLoader("fedllm_eval", "deciding"), environment.loader])  # type: ignore[list-item]
    return environment


def _because(one: Decided) -> str:
    """The reasons of the recommendation: what speaks against it, else what is open, else what speaks for it."""
    for outcome in ("fails", "open"):
        if found := reasons(one.rules, outcome):
            return sentences(found)
    return sentences(reasons(one.rules, "holds")[:3])


def losing_partners(decision: Decision) -> list[Partner]:
    """Return the ten partners that lose most, or gain least, the worst first."""
    of_split = [one for one in decision.partners if one.split == decision.chosen.gain.split]
    return sorted(of_split, key=lambda one: (one.gain, one.client_id))[:NUM_NAMED]


def _groups(decision: Decision) -> list[tuple[SizeGroup, str]]:
    effect = decision.chosen.gain
    sign = 1 if effect.higher_is_better else -1
    of_split = [one for one in decision.partners if one.split == effect.split]
    return [
        (group, own_gain(effect.score, group.before, group.before + sign * group.gain.mean))
        for group in size_groups(of_split, _train_rows(decision))
    ]


def _train_rows(decision: Decision) -> dict[str, int] | None:
    """The training rows by which partners are grouped, where they are known of all of them."""
    rows = decision.num_train_rows
    return None if rows is None or any(client not in rows for client in decision.chosen.gain.clients) else rows


def _said_to(partner: Partner, decision: Decision) -> list[str]:
    score = decision.chosen.gain.score
    said = [words("With the common model {gain}.", gain=own_gain(score, partner.before, partner.together))]
    if partner.alone is None:
        said.append(words("Going alone: not measured for you."))
    else:
        said.append(words("Going alone {gain}.", gain=own_gain(score, partner.before, partner.alone)))
    if partner.num_rows < FEW_ROWS:
        said.append(
            plural_words(
                "This rests on {num} held-out row only, so it is mostly chance.",
                "This rests on {num} held-out rows only, so it is mostly chance.",
                partner.num_rows,
            )
        )
    elif partner.is_sure:
        said.append(plural_words("{num} row of yours shows it.", "{num} rows of yours show it.", partner.num_rows))
    else:
        said.append(
            plural_words(
                "{num} row of yours cannot tell a gain from a loss.",
                "{num} rows of yours cannot tell a gain from a loss.",
                partner.num_rows,
            )
        )
    said.append(_gave(partner, decision))
    return said


def _gave(partner: Partner, decision: Decision) -> str:
    if partner.cost is None:
        price = decision.chosen.price
        if price is None or price.private:
            return words("What you gave for it is not known, or not told, because the run protects who took part.")
        return words(
            "You took part in no round: the gain comes from what others taught the model. You were not asked."
        )
    cost = partner.cost
    return plural_words(
        "You gave for it: {num} round, {size} sent and received, {time} minutes of your machine.",
        "You gave for it: {num} rounds, {size} sent and received, {time} minutes of your machine.",
        cost.num_rounds,
        size=bytes_text(cost.num_bytes),
        time=amount(60 * cost.hours),
    )


def _figures(decision: Decision) -> list[tuple[str, Effect]]:
    found = []
    for one in decision.candidates:
        for effect in (one.gain, *one.others, one.newcomers):
            if effect is not None:
                found.append((words("{candidate} over what was before", candidate=one.label), effect))
        if one.alone is not None:
            found.append((words("{candidate} over going alone", candidate=one.label), one.alone))
        if one.from_leader is not None:
            found.append((words("{candidate} over the one that gains most", candidate=one.label), one.from_leader))
    return found


BESIDE = (
    ("summary.html", marked("All of the run in one page: the summary")),
    ("report/report.html", marked("How different the clients are: the heterogeneity report")),
    ("compare/loss/comparison.html", marked("Comparison, client by client: loss")),
    ("compare/preference/comparison.html", marked("Comparison, client by client: preferences")),
    ("comparison/comparison.html", marked("Comparison, client by client")),
)
"""Pages that are linked where they lie beside the decision, as in the folder of a quickstart."""


def _pages(decision: Decision, out: Path) -> list[tuple[str, str]]:
    """What else can be read, as (what it is, link): only what is there."""
    named = [(words("Results: {folder}", folder=folder), Path(folder) / "results.html") for folder in decision.folders]
    named += [(words(title), out.parent / page) for page, title in BESIDE]
    corpus = Path(str(decision.dataset["name"]))
    named.append((words("How different the clients are: the report of the corpus"), corpus / "report.html"))
    named += [
        (words("Rounds of the run: {folder}", folder=run), Path(run) / "rounds.jsonl") for run, _ in decision.run_dates
    ]
    return [
        (title, quote(Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()))
        for title, path in named
        if path.is_file()
    ]


def _provenance(decision: Decision) -> list[tuple[str, str]]:
    lines = [
        (words("data"), f"{decision.dataset['name']}, {decision.dataset.get('revision')}"),
        (words("before"), decision.before),
    ]
    for one in decision.candidates:
        for policy, digest, seed in one.facts:
            told = words("adapter {digest}, seed {seed}", digest=digest[:16], seed="–" if seed is None else seed)
            lines.append((one.label, f"{policy}: {told}"))
    for one in decision.candidates:
        if one.how is not None:
            told = sentences(how_sentences(one.how))
            lines.append((words("how it was trained"), f"{one.label}: {told}"))
    for run, day in decision.run_dates:
        lines.append((words("day of the last round"), words("{day} (UTC), by the file in {run}", day=day, run=run)))
    lines.append((words("settings"), ", ".join(f"{name} {value}" for name, value in decision.settings.items())))
    lines.append((words("versions"), ", ".join(f"{name} {value}" for name, value in decision.versions.items())))
    unmeasured = [words(RULE_NAMES[rule.name]) for rule in decision.chosen.rules if rule.outcome == "unknown"]
    lines.append((words("not measured"), " ".join(unmeasured) or "–"))
    return lines
