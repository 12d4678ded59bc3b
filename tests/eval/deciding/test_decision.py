"""A decision follows from stated rules, on figures that can be checked by hand."""

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.compare import compare_results
from fedllm_eval.decide_command import DEFAULTS
from fedllm_eval.deciding.break_even import break_even
from fedllm_eval.deciding.deciding_rules import ALPHA, Evidence, Thresholds, apply_rules, recommend
from fedllm_eval.deciding.decision import Asked, decide
from fedllm_eval.deciding.decision_words import cost_sentences
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.evidence_needed import clients_for_gain, clients_for_share
from fedllm_eval.deciding.partner_costs import price_of_runs
from fedllm_eval.deciding.rule_words import reasons
from fedllm_eval.deciding.stated_lines import Line, StatedPrices, parse_lines, read_line_table
from fedllm_eval.scoring.comparisons import method_difference
from fedllm_eval.scoring.intervals import Interval
from fedllm_eval.scoring.proportion import wilson_interval


def gained(num=20, gain=0.5):
    rng = np.random.default_rng(0)
    before = 2 + rng.random(num)
    return before.tolist(), (before - gain - 0.1 * rng.random(num)).tolist()


def outcome(decision, name):
    return next(rule.outcome for rule in decision.chosen.rules if rule.name == name)


def test_a_clear_gain_is_released_with_its_shares_by_hand(save):
    # Gains 1, 1, 1, 1, 1, 1, 1, 0, -0.5: mean 6.5 / 9, better 7, same 1, worse 1.
    before, after = [2.0] * 9, [1.0] * 7 + [2.0, 2.5]
    effect = decide([save("sft", before, after)]).chosen.gain
    assert effect.gain == pytest.approx(6.5 / 9)
    assert (effect.num_better, effect.num_same, effect.num_worse) == (7, 1, 1)
    assert decide([save("more", *gained())]).recommendation == "release"


def test_the_gain_is_that_of_compare(save, tmp_path, scored):
    from fedllm_eval.reporting.results_folder import write_results

    before, after = gained()
    folder = save("sft", before, after)
    write_results(scored("base", before, policy={"adapter_sha256": None}), tmp_path / "base")
    decided = decide([folder], asked=Asked(before=str(tmp_path / "base"))).chosen.gain
    (item,) = compare_results([tmp_path / "base", folder])["comparisons"]
    assert (decided.gain, decided.low, decided.high) == (-item["difference"], -item["ci_high"], -item["ci_low"])


def test_the_order_of_clients_changes_nothing(save):
    before, after = gained(8)
    ids = [f"c{i:03}" for i in range(8)]
    one = decide([save("a", before, after, ids=ids)]).as_record()
    other = decide([save("b", before[::-1], after[::-1], ids=ids[::-1])]).as_record()
    assert one["candidates"][0]["gain"] == other["candidates"][0]["gain"]
    assert one["candidates"][0]["rules"] == other["candidates"][0]["rules"]


def test_no_gain_and_all_harmed_are_not_released(save):
    before, after = gained()
    same = decide([save("same", before, before)])
    assert (same.recommendation, reasons(same.chosen.rules, "fails")) == ("do_not_release", ["Nothing changed."])
    small = decide([save("small", before, after)], thresholds=Thresholds(min_gain=2.0))
    assert reasons(small.chosen.rules, "fails") == ["The gain is smaller than was asked for."]
    worse = decide([save("worse", after, before)])
    assert "It is a loss, larger than chance explains." in reasons(worse.chosen.rules, "fails")
    assert worse.recommendation == "do_not_release"
    assert (outcome(worse, "gain"), outcome(worse, "harmed")) == ("fails", "fails")


def test_noise_asks_for_more_and_says_how_many(save):
    rng = np.random.default_rng(1)
    before = 2 + rng.random(30)
    decision = decide([save("noise", before.tolist(), (before + 0.1 * rng.normal(size=30)).tolist())])
    assert decision.recommendation in ("collect_more", "do_not_release")
    assert outcome(decision, "gain") == "open"
    gain = next(rule for rule in decision.chosen.rules if rule.name == "gain")
    needed = gain.values["clients_needed"]
    assert needed is None or needed > 30


def test_a_few_clients_ask_for_more(save):
    assert decide([save("few", [2.0, 2.1, 2.2], [1.0, 1.1, 1.3])]).recommendation == "collect_more"
    with pytest.raises(MetricError, match="one client was scored"):
        decide([save("one", [2.0], [1.0])])


def test_what_others_started_from_is_refused_or_told(save, tmp_path):
    before, after = gained()
    with pytest.raises(ConfigError, match="--base-too"):
        decide([save("bare", None, after)])
    with pytest.raises(MetricError, match="dataset revision"):
        decide([save("a", before, after), save("b", before, after, revision="other")])
    with pytest.raises(ConfigError, match="holds no results"):
        decide([tmp_path / "nothing"])
    folder = save("broken", before, after)
    (folder / "results.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        decide([folder])


def test_a_run_that_was_not_scored_says_the_command(tmp_path):
    (tmp_path / "config.yaml").write_text("task: sft\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fedllm-eval run .* --base-too"):
        decide([tmp_path])


def test_alone_is_told_beside_joining(save):
    before, after = gained()
    decision = decide([save("sft", before, after, alone=[value - 0.2 for value in before])])
    assert decision.chosen.alone_over_before.gain == pytest.approx(0.2)
    assert outcome(decision, "alone") == "holds"
    # Going alone is better for everyone: no release.
    best = decide([save("weak", before, after, alone=[value - 2.0 for value in before])])
    assert best.recommendation == "do_not_release"
    assert decide([save("none", before, after)]).chosen.alone is None


def test_of_candidates_that_cannot_be_told_apart_the_cheaper_is_recommended(save_run, save):
    rng = np.random.default_rng(2)
    before, after = gained(30)
    noise = [value + 1e-3 * rng.normal() for value in after]
    one, other = save_run("one", before, after), save_run("other", before, noise)
    decision = decide([one, other])
    assert len(decision.candidates) == 2
    second = decision.candidates[1]
    assert not any(candidate.is_told_apart for candidate in decision.candidates)
    # The dearer of the two sends twice the bytes.
    lines = (one / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        record["ledger"]["upload_bytes"] *= 4
    (one / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert decide([one, other]).chosen.label == "run-other"
    assert second.p_holm < ALPHA


def test_a_candidate_shown_to_be_worse_is_never_chosen(save):
    before, after = gained(30)
    clearly = [value - 0.5 for value in after]
    decision = decide([save("less", before, after), save("more", before, clearly)])
    assert decision.chosen.label == "more"
    assert decision.candidates[1].is_told_apart


def test_costs_by_hand(save_run):
    run = save_run("sft", *gained())
    prices = StatedPrices(
        default=Line(8.0, 4.0, 100.0), lines={"c001": Line(4.0, 4.0)}, per_gb=2.0, per_hour=3.0, per_kwh=10.0
    )
    price = price_of_runs([run], prices)
    first, second = price.partners["c000"], price.partners["c001"]
    # Round 0: 1.0 MB down and 0.5 MB up for two clients; round 1: the same for c000 alone.
    assert (first.num_bytes, second.num_bytes) == (750_000 + 1_500_000, 750_000)
    assert first.train_hours == 2.0
    # c000: 1.5 MB at 8 Mbit/s and 0.75 MB at 4: 1.5 s each; c001: 0.5 MB and 0.25 MB at 4: 1.5 s together.
    assert first.send_hours == pytest.approx(3.0 / 3600)
    assert second.send_hours == pytest.approx(1.5 / 3600)
    assert first.energy_kwh == pytest.approx(0.2)
    # 2 x 0.00225 + 3 x 2 + 10 x 0.2
    assert first.money == pytest.approx(0.0045 + 6.0 + 2.0)
    assert price.num_bytes == 3_000_000


def simulated(run):
    """Give a run's visits what a simulated clock writes, and the client table that it went by."""
    file = run / "rounds.jsonl"
    rounds = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for record in rounds:
        for visit in record["clients"]:
            visit |= {"download_seconds": 30.0, "compute_seconds": 360.0, "upload_seconds": 60.0}
            visit |= {"download_bytes": 600_000, "upload_bytes": 100_000}
    file.write_text("".join(json.dumps(one) + "\n" for one in rounds), encoding="utf-8")
    table = "client_id,download_mbit,upload_mbit,flops,watts,profile\nc000,1,1,1e12,50,\nc001,1,1,1e12,,phone-4g\n"
    (run / "client_table.csv").write_text(table, encoding="utf-8")
    return run


def test_a_simulated_run_is_priced_by_its_own_clock_and_client_table(save_run):
    run = simulated(save_run("sft", *gained()))
    price = price_of_runs([run], StatedPrices())
    first, second = price.partners["c000"], price.partners["c001"]
    # c000 came twice: 2 x 360 s of training at 50 W, 2 x 90 s of sending; c001 once, at the phone's 5 W.
    assert price.is_simulated
    assert first.train_hours == pytest.approx(0.2)
    assert first.send_hours == pytest.approx(180 / 3600)
    assert first.energy_kwh == pytest.approx(0.01)
    assert second.energy_kwh == pytest.approx(0.1 * 5 / 1000)
    assert (first.num_bytes, second.num_bytes) == (1_400_000, 700_000)
    # What the reader states goes before both.
    stated = price_of_runs([run], StatedPrices(default=Line(8.0, 4.0, 100.0))).partners["c000"]
    assert stated.send_hours == pytest.approx(8e-6 * (1_200_000 / 8 + 200_000 / 4) / 3600)
    assert stated.energy_kwh == pytest.approx(0.02)
    text = " ".join(cost_sentences(price, StatedPrices()))
    assert "on the simulated clock it trained" in text
    assert "sending took each about" in text
    assert "from the watts in the client table" in text
    assert "at the stated line" in " ".join(cost_sentences(price, StatedPrices(default=Line(8.0, 4.0))))


def test_a_client_table_without_a_clock_gives_lines_and_a_damaged_one_is_named(save_run):
    run = save_run("sft", *gained())
    table = run / "client_table.csv"
    table.write_text("client_id,download_mbit,upload_mbit\nc000,8,4\nc001,4,4\n", encoding="utf-8")
    price = price_of_runs([run], StatedPrices())
    assert not price.is_simulated
    assert price.partners["c000"].send_hours == pytest.approx(3.0 / 3600)
    assert price.partners["c000"].energy_kwh is None
    table.write_text("client_id,download_mbit,upload_mbit\nc000,8,4\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"client_table\.csv has no row for 1 of 2 clients, the first is 'c001'"):
        price_of_runs([run], StatedPrices())


def test_money_scales_with_its_prices(save_run):
    run = save_run("sft", *gained())
    one, ten = (price_of_runs([run], StatedPrices(per_gb=factor, per_hour=2 * factor)) for factor in (1.0, 10.0))
    assert ten.total("money") == pytest.approx(10 * one.total("money"))


def test_what_is_not_stated_is_unknown(save_run):
    price = price_of_runs([save_run("sft", *gained())], StatedPrices())
    assert [price.total(name) for name in ("send_hours", "energy_kwh", "money")] == [None, None, None]
    assert (price.epsilon, price.private) == (None, False)


def test_a_guarantee_is_told_and_hides_who_took_part(save_run):
    privacy = {"unit": "client", "epsilon": 4.0, "delta": 1e-5}
    decision = decide([save_run("dp", *gained(), privacy=privacy)], thresholds=Thresholds(max_epsilon=2.0))
    assert decision.chosen.price.epsilon == 4.0
    assert all(partner.cost is None for partner in decision.partners)
    assert outcome(decision, "privacy") == "fails"


def test_break_even_by_hand():
    found = break_even("heldout_loss", (0.5, 0.25, 1.0), money=10.0, num_bytes=1e6, hours=5.0)
    assert (found.points, found.money, found.money_least, found.money_most) == (50.0, 0.2, 0.1, 0.4)
    assert (found.num_bytes, found.hours) == (2e4, 0.1)
    assert break_even("heldout_loss", (0.5, -0.1, 1.0), money=10.0).money_most is None


@pytest.mark.parametrize("text", ["acme", "acme=50", "acme=50/x", "acme=50/-1", "=1/2"])
def test_a_line_that_is_none_is_refused(text):
    with pytest.raises(ConfigError):
        parse_lines([text])


def test_a_table_of_lines_is_read_and_its_faults_are_named(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text("client_id,download_mbit,upload_mbit\nc1,50,10\n", encoding="utf-8")
    assert read_line_table(path) == {"c1": Line(50.0, 10.0)}
    path.write_text("client_id,speed\nc1,50\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="speed"):
        read_line_table(path)
    for text, said in (
        ("c1,50,10\nc1,60,10\n", "line 3 states the line of c1 twice"),
        (",50,10\n", "line 2 names no client_id"),
        ("c1,12,5,10\n", "line 2 has more values"),
    ):
        path.write_text("client_id,download_mbit,upload_mbit\n" + text, encoding="utf-8")
        with pytest.raises(ConfigError, match=said):
            read_line_table(path)
    path.write_text("client_id,download_mbit\nc1,50\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2 states one direction"):
        read_line_table(path)


def test_evidence_needed_is_enough_and_no_more():
    num = clients_for_gain(0.1, 0.5)

    def factor(k):
        return stats.t.ppf(0.975, k - 1) + stats.t.ppf(0.8, k - 1)

    assert factor(num) * 0.5 / math.sqrt(num) <= 0.1 < factor(num - 1) * 0.5 / math.sqrt(num - 1)
    few = clients_for_share(0.4, 0.25)
    assert wilson_interval(round(0.4 * few), few).low > 0.24
    assert clients_for_gain(0.1, 0.5, other_std_error=1.0) is None


def test_the_defaults_of_the_flags_are_those_of_the_rules():
    thresholds = Thresholds()
    assert {name: getattr(thresholds, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    "wrong", [{"max_harmed": 2.0}, {"min_clients": 1}, {"min_seeds": 0}, {"max_leak": 0.1}, {"max_epsilon": 0.0}]
)
def test_thresholds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        Thresholds(**wrong)


def drawn_effect(gain_K):
    gain_K = np.asarray(gain_K)
    before_K = np.full(gain_K.size, 5.0)
    found = method_difference([before_K], [before_K - gain_K])
    num_worse = int((gain_K < 0).sum())
    share = wilson_interval(num_worse, gain_K.size)
    after_K = before_K - gain_K
    return Effect(
        score="heldout_loss",
        split="test",
        before=5.0,
        after=float(after_K.mean()),
        gain=-found.difference,
        low=-found.high,
        high=-found.low,
        p_value=found.p_value,
        num_better=int((gain_K > 0).sum()),
        num_same=int((gain_K == 0).sum()),
        num_worse=num_worse,
        worse_low=share.low,
        worse_high=share.high,
        tail_before=Interval(5.0, math.nan, math.nan, gain_K.size),
        tail_after=Interval(float(after_K.max()), math.nan, math.nan, gain_K.size),
        num_seeds=(1, 1),
        covers_seeds=False,
        difference=found,
        clients=tuple(f"c{i}" for i in range(gain_K.size)),
        before_K=tuple(before_K),
        after_K=tuple(after_K),
        gain_K=tuple(gain_K),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-2, 2).map(lambda x: round(x, 3)), min_size=2, max_size=14),
    st.floats(0, 1),
    st.floats(0, 0.5),
)
def test_release_is_said_only_where_every_rule_allows_it(gain_K, max_harmed, min_gain):
    effect = drawn_effect(gain_K)
    thresholds = Thresholds(max_harmed=max_harmed, min_gain=min_gain)
    rules = apply_rules(Evidence(gain=effect, p_holm=effect.p_value), thresholds)
    said = recommend(rules)
    if said == "release":
        assert effect.low > min_gain
        assert effect.worse_high <= max_harmed
        assert effect.num_clients >= thresholds.min_clients
        assert effect.p_value < ALPHA
    outcomes = {rule.outcome for rule in rules}
    assert (said == "do_not_release") == ("fails" in outcomes)
    assert (said == "collect_more") == ("fails" not in outcomes and "open" in outcomes)


def test_every_measured_risk_moves_the_recommendation(save):
    effect = drawn_effect([1.0] * 12)
    evidence = Evidence(gain=replace(effect, low=0.9, high=1.1), p_holm=0.001)
    assert recommend(apply_rules(evidence, Thresholds())) == "release"
    forgot = {"loss_increase": 0.3, "ci_low": 0.2, "ci_high": 0.4, "num_rows": 50}
    assert recommend(apply_rules(replace(evidence, general_text=forgot), Thresholds())) == "do_not_release"
    attack = {"loss": {"auc": 0.9, "auc_low": 0.8, "auc_high": 0.95}}
    leaking = replace(evidence, audit={"membership": {"attacks": attack}})
    assert recommend(apply_rules(leaking, Thresholds())) == "do_not_release"
    # Beyond the limit as measured, but not beyond chance: more has to be measured. Below it, that is a doubt.
    unsure = {"loss": {"auc": 0.7, "auc_low": 0.5, "auc_high": 0.9}}
    assert recommend(apply_rules(replace(leaking, audit={"membership": {"attacks": unsure}}), Thresholds())) == (
        "collect_more"
    )
    unsure["loss"]["auc"] = 0.55
    assert (
        recommend(apply_rules(replace(leaking, audit={"membership": {"attacks": unsure}}), Thresholds())) == "release"
    )
    forgot |= {"ci_low": -0.1}
    assert recommend(apply_rules(replace(evidence, general_text=forgot), Thresholds())) == "collect_more"
    assert recommend(apply_rules(replace(evidence, seen_in_training=True), Thresholds())) == "collect_more"
    assert recommend(apply_rules(evidence, Thresholds(min_seeds=3))) == "collect_more"


@pytest.mark.parametrize(("num", "said"), [(11, "collect_more"), (12, "release")])
def test_that_few_are_harmed_must_be_shown(num, said):
    """With nobody of eleven harmed, Wilson's interval reaches 1.96^2 / (11 + 1.96^2) = 0.259; of twelve, 0.242."""
    effect = drawn_effect(1.0 + 0.01 * np.arange(num))
    assert effect.worse_high == pytest.approx(1.959964**2 / (num + 1.959964**2))
    rules = apply_rules(Evidence(gain=effect, p_holm=effect.p_value), Thresholds())
    assert recommend(rules) == said
    harmed = next(rule for rule in rules if rule.name == "harmed")
    assert harmed.values.get("clients_needed") == (12 if num == 11 else None)


def test_a_partners_own_rows_say_whether_its_loss_is_chance(save):
    folder = save("sft", [2.0, 2.0], [2.5, 1.0], ids=["a", "b"])
    table = {
        "split": ["test"] * 6,
        "client_id": ["a"] * 3 + ["b"] * 3,
        "row_id": list("123456"),
        "num_tokens": [1] * 6,
    }
    # a loses 0.4, 0.5 and 0.6; b gains 0, 1 and 2. Pooled variance (0.02 + 2) / 4, gain (1 - 0.5) / 2.
    for place, losses in ((folder, [2.4, 2.5, 2.6, 2.0, 1.0, 0.0]), (folder / "policies" / "base", [2.0] * 6)):
        pq.write_table(pa.table(table | {"heldout_loss": losses}), place / "per_row.parquet")
    values = next(rule for rule in decide([folder]).chosen.rules if rule.name == "harmed").values
    assert values["num_shown_worse"] == 1
    needed = values["rows_needed"]

    def width(num):
        return (stats.t.ppf(0.975, num - 1) + stats.t.ppf(0.8, num - 1)) * math.sqrt(2.02 / 4 / num)

    assert width(needed) <= 0.25 < width(needed - 1)


def test_a_run_that_lies_elsewhere_now_is_named(save_run, tmp_path):
    run = save_run("sft", *gained())
    scores = (run / "scores").rename(tmp_path / "moved")
    assert decide([scores]).chosen.price is None
    assert outcome(decide([scores]), "cost") == "unknown"
    assert decide([scores], asked=Asked(also_cost=[run])).chosen.price.num_bytes == 3_000_000


def test_money_that_lacks_a_stated_part_is_unknown(save_run):
    run = save_run("sft", *gained())
    assert price_of_runs([run], StatedPrices(per_gb=1.0, per_kwh=1.0)).total("money") is None
    assert price_of_runs([run], StatedPrices(default=Line(watts=5.0), per_gb=1.0, per_kwh=1.0)).total("money") > 0


def test_a_guarantee_so_wide_that_it_proves_little_is_a_doubt(save_run):
    for number, (epsilon, expected) in enumerate(((8.0, "holds"), (50.0, "doubt"))):
        run = save_run(str(number), *gained(), privacy={"unit": "client", "epsilon": epsilon, "delta": 1e-5})
        assert outcome(decide([run]), "privacy") == expected


def test_a_worst_tenth_that_differs_by_rounding_is_none(save):
    before, after = gained(60)
    at = int(np.argmax(before))
    after[at] = before[at] + 1e-9
    assert outcome(decide([save("sft", before, after)]), "worst_tenth") == "holds"


def test_training_alone_is_told_by_two_commands_in_quotes(save_run, tmp_path):
    run = save_run("with space", *gained())
    train, score = (shlex.split(command) for command in decide([run]).alone_commands)
    alone = f"{run}-alone"
    assert train[:4] == ["fedllm-train", "sft", "--config", f"{run}/config.yaml"]
    assert train[train.index("--local-steps") + 1] == "10"
    assert train[train.index("--out") + 1] == alone
    assert score[:3] == ["fedllm-eval", "run", str(run)]
    assert score[score.index("--alone") + 1] == alone
    assert score[score.index("--max-length") + 1] == "64"
    private = save_run("dp", *gained(), privacy={"unit": "client", "epsilon": 4.0, "delta": 1e-5})
    assert decide([private]).alone_commands == ()


def test_a_margin_stops_what_is_worse_in_the_deciding_score(save):
    before, after = gained()
    folder = save("worse", after, before)
    assert outcome(decide([folder], asked=Asked(margins=["0.1"])), "margin") == "fails"


def test_suites_alone_and_a_misspelt_score_are_refused(save):
    folder = save("sft", *gained(8))
    with pytest.raises(MetricError, match=r"cannot be decided by; did you mean heldout_loss\?"):
        decide([folder], asked=Asked(score="heldout"))
    path = Path(folder) / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"splits": {}}))
    with pytest.raises(ConfigError, match="holds suites alone, and a decision needs scores of clients"):
        decide([folder])
