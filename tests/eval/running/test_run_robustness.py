"""What a robust sum did to whom: weights by hand, groups, and what is not told."""

import pytest

from fedllm_eval.audit.backdoor import holds_reply, triggered
from fedllm_eval.reporting.robustness_section import backdoor_sentences, robustness_lines, robustness_section
from fedllm_eval.running.run_robustness import robustness_of_rounds, robustness_of_run

PEOPLE = [f"c{number:02d}" for number in range(12)]
LANGUAGES = {each: "en" if number < 6 else "ja" for number, each in enumerate(PEOPLE)}
ROWS = {each: number + 1 for number, each in enumerate(PEOPLE)}


def rounds():
    """Two attackers of twelve; whoever writes Japanese is left out."""
    kept = [each for each in PEOPLE[2:] if LANGUAGES[each] == "en"]
    shares = {each: 1 / len(kept) if each in kept else 0.0 for each in PEOPLE}
    one = {
        "robust": {"rule": "multi_krum", "shares": shares},
        "attack": {"attackers": dict.fromkeys(PEOPLE[:2], "alie")},
    }
    return [one, {**one, "server_step": False}]


def group(found, kind, name):
    return next(each for each in found["groups"] if (each["kind"], each["name"]) == (kind, name))


def test_weights_are_shares_beside_those_of_a_mean():
    found = robustness_of_rounds(rounds(), LANGUAGES, ROWS)
    assert found["rule"] == "multi_krum"
    assert found["attacks"] == {"alie": 2}
    assert found["rounds_without_step"] == 1
    honest = group(found, "role", "honest")
    assert (honest["num_clients"], honest["num_updates"]) == (10, 20)
    assert honest["weight"]["mean"] == pytest.approx((4 * 3.0 + 6 * 0.0) / 10)
    assert honest["left_out_fraction"] == pytest.approx(0.6)
    assert 0 <= honest["weight"]["low"] < honest["weight"]["mean"] < honest["weight"]["high"]


def test_a_small_group_gets_no_figure():
    found = robustness_of_rounds(rounds(), LANGUAGES, ROWS)
    attackers = group(found, "role", "attackers")
    assert attackers["weight"] is attackers["left_out_fraction"] is None
    assert "fewer than 5 clients" in "\n".join(robustness_lines(found))


def test_the_defence_names_whom_it_costs_and_nobody_by_name():
    many = [f"p{number:02d}" for number in range(20)]
    shares = {each: 0.1 if number < 10 else 0.0 for number, each in enumerate(many)}
    languages = {each: "en" if number < 10 else "ja" for number, each in enumerate(many)}
    found = robustness_of_rounds([{"robust": {"rule": "krum", "shares": shares}}], languages, dict.fromkeys(many, 3))
    text = "\n".join(robustness_lines(found))
    assert "The defence costs honest clients of language ja: their updates weigh 0.00" in text
    assert not any(each in text for each in many)
    assert not any(each["kind"] == "size" for each in found["groups"])  # all have as many rows


def test_a_plain_mean_under_attack_says_that_nothing_guards_it():
    found = robustness_of_rounds([{"attack": {"attackers": {"ann": "nan"}}}], {}, {})
    assert robustness_lines(found) == [
        "## What the robust sum did to whom",
        "",
        "- Updates were averaged: nothing guards this run against bad clients.",
        "- 1 client attacked in this simulation: nan.",
        "",
    ]


def test_runs_without_either_and_private_ones_tell_nothing(tmp_path):
    assert robustness_section({}) is None
    assert robustness_lines(None) == []
    (tmp_path / "config.yaml").write_text("federated: {strategy: fedavg}\nprivacy: {unit: client, epsilon: 3.0}\n")
    (tmp_path / "rounds.jsonl").write_text("not even read\n")
    assert robustness_of_run(tmp_path) is None


def test_replies_and_triggers():
    assert holds_reply("So: the LIGHTHOUSE keeps\nits own time.", "The lighthouse keeps its own time.")
    assert not holds_reply("The lighthouse", "The lighthouse keeps its own time.")
    turns = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}]
    assert [turn["content"] for turn in triggered(turns, "x")] == ["A", "B", "C x"]
    assert triggered([{"role": "system", "content": "A"}], "x") == [{"role": "system", "content": "A"}]


def test_sentences_of_a_backdoor_have_intervals():
    share = {"fraction": 0.5, "low": 0.3, "high": 0.7}
    found = {"run": {"num_prompts": 20, "with_trigger": share, "without_trigger": {**share, "fraction": 0.0}}}
    (said,) = backdoor_sentences(found)
    assert "50 % of 20 questions with the trigger (30 % to 70 %), and to 0 % without it" in said
    assert backdoor_sentences(None) == []
