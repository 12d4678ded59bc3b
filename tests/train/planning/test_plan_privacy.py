"""What a plan says of privacy: epsilon by accountant for each candidate, and what its noise leaves."""

import json

import pytest

from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import in_language
from fedllm_train.planning.plan_all import plan_all
from fedllm_train.planning.plan_flags import plan_flags
from fedllm_train.planning.plan_page_words import plan_privacy
from fedllm_train.planning.plan_text import plan_lines

FLAGS = [
    *("--num-rounds", "4", "--cohort-size", "4", "--local-steps", "1", "--max-length", "64", "--sizes", "200:10"),
    *("--lora-r", "4", "--dp-clip", "0.5", "--dp-delta", "1e-3"),
]


@pytest.fixture(scope="module")
def model(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    kit.make_model().save_pretrained(folder)
    return str(folder)


def plan_of(model, *flags):
    return plan_all(plan_flags(["--model", model, *FLAGS, *flags]))


def test_every_candidate_has_its_epsilon_and_its_noise(model):
    plan = plan_of(model, "--strategy", "fedavg,ffa_lora", "--cohort-rule", "poisson", "--dp-noise-multiplier", "1")
    fedavg, ffa = (run.privacy for run in plan.runs)
    for one in (fedavg, ffa):
        assert one.claim == "pld"
        assert one.epsilon == one.by_accountant["pld"] < one.by_accountant["rdp"]
    assert fedavg.noise_in_clips == pytest.approx(fedavg.noise_of_methods["fedavg"])
    assert ffa.noise_in_clips == pytest.approx(ffa.noise_of_methods["ffa_lora"])
    assert fedavg.noise_of_methods["fed_sb"] < ffa.noise_in_clips < fedavg.noise_in_clips
    assert fedavg.needed_cohort == -(-(2048**0.5) // 1)  # z sqrt(d)
    assert json.loads(json.dumps(plan.runs[0].as_record()))["privacy"]["by_accountant"] == fedavg.by_accountant
    text = " ".join("\n".join(plan_lines(plan)).split())
    assert f"Privacy (1): epsilon {fedavg.epsilon:.4g} at delta 0.001" in text
    assert f"Epsilon is PLD's, beside RDP {fedavg.by_accountant['rdp']:.4g}" in text
    assert f"With {fedavg.needed_cohort} clients a round the noise is as long as the clip." in text


@pytest.mark.parametrize(
    ("flags", "claim"),
    [
        (["--dp-sampling", "without_replacement"], "rdp"),
        (["--dp-mechanism", "tree", "--dp-min-separation", "3"], "pld"),
    ],
)
def test_other_mechanisms_are_planned_and_their_cohorts_are_nobodys_to_know(model, flags, claim):
    plan = plan_of(model, *flags, "--dp-epsilon", "8")
    one = plan.runs[0].privacy
    assert one.claim == claim
    assert 7.9 < one.epsilon <= 8
    assert "secret" in plan.runs[0].travel.why_estimate


def test_the_page_says_the_same_in_both_languages(model):
    plan = plan_of(model, "--cohort-rule", "poisson", "--dp-noise-multiplier", "1")
    one = plan.runs[0].privacy
    english = " ".join(plan_privacy(plan))
    assert f"That epsilon is PLD's; beside it: RDP {one.by_accountant['rdp']:.3g}" in english
    assert f"With {one.needed_cohort} clients a round the noise would be as long as the clip." in english
    with in_language("ja"):
        japanese = " ".join(plan_privacy(plan))
    assert f"1ラウンドあたり{one.needed_cohort}クライアント" in japanese
    assert "beside" not in japanese


def test_a_small_cohort_with_a_clip_that_adapts_is_refused_in_the_plan(model):
    flags = ["--cohort-rule", "poisson", "--dp-noise-multiplier", "1", "--dp-clip-quantile", "0.5"]
    with pytest.raises(ConfigError, match="use a cohort_size of 11 or more"):
        plan_of(model, *flags)
    assert plan_of(model, *flags, "--dp-count-noise", "0.6").runs[0].privacy.epsilon > 0


ROWS = ["--dp-unit", "example", "--dp-noise-multiplier", "2", "--dp-rows-per-person", "3"]


def test_a_guarantee_of_rows_is_planned_with_what_it_means_for_people(model):
    plan = plan_of(model, *ROWS)
    one = plan.runs[0].privacy
    assert one.unit == "example"
    assert one.epsilon == one.by_accountant["pld"]
    assert one.epsilon < one.client_epsilon
    text = " ".join("\n".join(plan_lines(plan)).split())
    assert f"Privacy (1): epsilon {one.epsilon:.4g} at delta 0.001, unit: example, and epsilon" in text
    assert "for a person with 3 rows of a client" in text
    english = " ".join(plan_privacy(plan))
    assert "for one row of a client" in english
    with in_language("ja"):
        assert "row" not in " ".join(plan_privacy(plan))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategy", "fedkseed"], "differences of losses"),
        (["--packing"], "packing is True"),
        (["--peft-type", "ia3"], "peft_type is 'ia3'"),
        (["--task", "kto"], "KTO reads a pair as two rows"),
        (["--dp-mechanism", "tree"], "dp_mechanism is given"),
    ],
)
def test_what_rows_privacy_does_not_go_with_is_refused_in_the_plan(model, flags, words):
    try:
        plan = plan_of(model, *ROWS, *flags)
    except ConfigError as error:
        said = str(error)
    else:
        said = plan.runs[0].refused or ""
    assert words in said
