"""Quality under a budget, cost to a target and robustness to lost clients, by records whose sums are in comments."""

import numpy as np
import pytest

from fedllm_eval.cli import main
from fedllm_eval.compare import compare_results
from fedllm_eval.comparing.robustness import lost_visits
from fedllm_eval.comparing.trade_off_tables import protocol_sections
from fedllm_eval.comparing.trade_offs import AskedCosts
from tests.eval.comparing.conftest import IDS, made_round, made_rounds

LOSSES = np.linspace(1.0, 2.0, 20)


@pytest.fixture
def slow(save_run):
    """Two visits a round of 120 bytes each: 240, 480, 720, 960 bytes; an hour a round by the clock."""
    scores = [(2.0, 1.8, 2.2), (1.6, 1.4, 1.8), (1.3, 1.2, 1.6), (1.4, 1.2, 1.5)]
    rounds = [
        made_round(index, IDS[:2], held_out=score, clock_seconds=3600.0 * (index + 1))
        for index, score in enumerate(scores)
    ]
    return save_run("slow", LOSSES, made_rounds(*rounds), prox_mu=1)


@pytest.fixture
def thin(save_run):
    """A round of one visit of 12 bytes that was scored only at its end."""
    return save_run("thin", LOSSES + 0.1, made_rounds(made_round(0, IDS[:1], down=10, up=2)), prox_mu=2)


def _asked(places, **asked):
    return compare_results(places, costs=AskedCosts(**asked))["trade_offs"]


def test_the_best_score_within_a_budget_is_of_the_best_round_that_fits(slow, thin):
    (found,) = _asked([slow, thin], budgets=["bytes=0.75kB"])["budgets"]
    one, other = found["rows"]
    # 240, 480 and 720 fit 750 bytes; the third scores best.
    assert (one["label"], one["rounds"], one["mean"]) == ("slow", [2], 1.3)
    assert (one["ci_low"], one["ci_high"], one["from"]) == (1.2, 1.6, "rounds")
    assert (one["spent"]["bytes"], one["spent"]["hours"], one["spent"]["money"]) == (720, 3.0, None)
    # Not scored in training: its finished scores stand for its one round.
    assert (other["label"], other["from"], other["mean"]) == ("thin", "finished", pytest.approx(1.6))
    (found,) = _asked([slow, thin], budgets=["bytes=300,hours=2"])["budgets"]
    assert found["rows"][0]["rounds"] == [0]  # two hours alone would let round 1 in
    (found,) = _asked([slow, thin], budgets=["bytes=11"])["budgets"]
    assert [row["outcome"] for row in found["rows"]] == ["nothing fits", "nothing fits"]


def test_a_later_round_that_scores_worse_is_not_taken_and_all_of_a_large_budget_is_not_spent(slow, thin):
    (found,) = _asked([slow, thin], budgets=["bytes=1GB"])["budgets"]
    assert found["rows"][0]["rounds"] == [2]


def test_tables_say_why_there_is_no_cost_and_never_that_a_missing_guarantee_is_not_known(slow, thin):
    trade = _asked([slow, thin], budgets=["bytes=1GB"], targets=["heldout_loss=1.9"])
    sections = protocol_sections(trade)
    assert len(sections) == 2
    for section in sections:
        money, epsilon = section.rows[0][-2:]
        assert money == ("–", "no price is stated")
        assert epsilon == ("–", "there is no guarantee of privacy")
        assert all("not known" not in shown for row in section.rows for shown, _ in row)


def test_a_budget_of_what_is_not_known_says_so(slow, thin):
    (found,) = _asked([slow, thin], budgets=["money=5"])["budgets"]
    assert [(row["outcome"], row["reason"]) for row in found["rows"]] == [("unknown", "no price is stated")] * 2
    (found,) = _asked([slow, thin], budgets=["epsilon=5"])["budgets"]
    assert found["rows"][0]["reason"] == "there is no guarantee of privacy"


def test_the_scores_of_seeds_within_a_budget_are_averaged_with_their_range(save_run, thin):
    seeds = [
        save_run(
            f"m-s{seed}",
            LOSSES,
            made_rounds(made_round(0, IDS[:2], held_out=(1.0 + 0.2 * seed, 0.9 + 0.2 * seed, 1.1 + 0.2 * seed))),
            seed=seed,
        )
        for seed in range(2)
    ]
    (found,) = _asked([thin, *seeds], budgets=["bytes=1kB"])["budgets"]
    row = found["rows"][0]
    assert (row["label"], row["num_seeds"], row["rounds"]) == ("m", 2, [0, 0])
    assert (row["mean"], row["ci_low"], row["ci_high"]) == pytest.approx((1.1, 1.0, 1.2))
    assert (row["least"], row["most"]) == (1.0, 1.2)


def test_the_cost_to_a_target_is_that_of_the_first_round_whose_mean_reaches_it(slow, thin):
    (found,) = _asked([slow, thin], targets=["heldout_loss=1.6"])["targets"]
    one, other = found["rows"]
    assert (one["outcome"], one["round_index"]) == ("reached", 1)
    assert (one["cost"]["bytes"], one["cost"]["hours"]) == (480, 2.0)
    # Its lower bound was there at 1.4 in the same round, its upper bound at 1.6 in the third.
    assert (one["early"]["bytes"], one["sure"]["bytes"], one["is_clear"]) == (480, 720, False)
    assert (other["outcome"], other["from"], other["cost"]["bytes"]) == ("reached", "finished", 12)


def test_an_interval_that_clears_the_target_is_said_to(slow, thin):
    (found,) = _asked([slow, thin], targets=["heldout_loss=2.2"])["targets"]
    assert (found["rows"][0]["round_index"], found["rows"][0]["is_clear"]) == (0, True)


def test_a_target_that_is_not_reached_names_the_best(slow, thin):
    (found,) = _asked([slow, thin], targets=["heldout_loss=1.25"])["targets"]
    one, other = found["rows"]
    assert (one["outcome"], one["best"]) == ("not reached", 1.3)
    assert one["early"]["bytes"] == 720  # the lower bound 1.2 of the third round
    assert other["outcome"] == "not reached"
    section = next(one for one in protocol_sections(_asked([slow, thin], targets=["heldout_loss=1.25"])))
    assert section.rows[0][1] == ("not reached", "best: 1.3000")


def _lossy(save_run, name, rate, kind, change):
    """Ten asked visits, of which `rate` in ten are lost; each client's loss grows by `change` of its own."""
    lost = [{"client_id": client, "kind": kind} for client in IDS[: int(10 * rate)]]
    record = made_round(0, IDS[int(10 * rate) : 10], left_out=lost)
    return save_run(name, LOSSES + change, made_rounds(record), drop_out=rate)


def test_robustness_is_a_slope_over_clients_against_the_share_that_was_lost(save_run):
    weights = np.linspace(0.0, 2.0, 20)  # a client's own slope; mean 1
    places = [_lossy(save_run, f"d{int(100 * rate)}", rate, "lost", 0.3 * rate * weights) for rate in (0.0, 0.2, 0.5)]
    (group,) = _asked(places)["robustness"]
    assert [row["lost_fraction"] for row in group["rows"]] == [0.0, 0.2, 0.5]
    assert [row["by_kind"] for row in group["rows"]] == [{}, {"lost": 0.2}, {"lost": 0.5}]
    assert [row["settings"] for row in group["rows"]] == [{"drop_out": 0.0}, {"drop_out": 0.2}, {"drop_out": 0.5}]
    assert [row["costs"]["bytes"] for row in group["rows"]] == [1200, 960, 600]
    # Each client's line is exact: 0.3 w for all, 0.03 w for a tenth; the mean of w is 1.
    slope = group["slope"]
    assert (slope["mean"], slope["num_clients"], slope["num_runs"]) == (pytest.approx(0.03), 20, 3)
    std_error = 0.03 * weights.std(ddof=1) / np.sqrt(20)
    assert slope["ci_high"] - slope["mean"] == pytest.approx(2.093024 * std_error, rel=1e-5)  # t of 19 degrees


def test_two_runs_have_a_slope_and_two_that_lost_alike_have_none(save_run):
    first = [_lossy(save_run, name, rate, "late", rate) for name, rate in (("a", 0.0), ("b", 0.4))]
    (group,) = _asked(first)["robustness"]
    assert group["slope"]["mean"] == pytest.approx(0.1)
    assert group["rows"][1]["by_kind"] == {"late": 0.4}
    alike = _lossy(save_run, "c", 0.4, "lost", 0.0)
    other = save_run("d", LOSSES, made_rounds(made_round(0, IDS[4:10], left_out=[{"client_id": c} for c in IDS[:4]])))
    (group,) = _asked([alike, other])["robustness"]
    assert group["slope"] is None
    assert {tuple(row["by_kind"]) for row in group["rows"]} == {("lost",), ("not recorded",)}


def test_what_each_speed_group_lost_is_said_and_not_of_a_private_run(save_run):
    table = "client_id,download_mbit,upload_mbit,flops\n" + "".join(
        f"{client},8,8,{1e11 if at < 2 else 1e12 if at < 6 else 1e13}\n" for at, client in enumerate(IDS[:10])
    )
    places = []
    for name, lost in (("few", IDS[:1]), ("many", IDS[:4])):  # 1 of 2 slow; 2 of 2 slow and 2 of 4 of middle speed
        left_out = [{"client_id": client, "kind": "lost"} for client in lost]
        record = made_round(0, [client for client in IDS[:10] if client not in lost], left_out=left_out)
        places.append(save_run(name, LOSSES, made_rounds(record), table=table, drop_out=len(lost) / 10))
    trade = _asked(places)
    few, many = trade["robustness"][0]["rows"]
    assert few["by_speed"] == {"slow": 0.5, "middle": 0.0, "fast": 0.0}
    assert many["by_speed"] == {"slow": 1.0, "middle": 0.5, "fast": 0.0}
    (section,) = protocol_sections(trade)
    assert section.notes[-1] == (
        "many lost visits as follows: 100 % of slow clients, 50 % of clients of middle speed and 0 % of fast clients."
    )
    spent = {"unit": "client", "epsilon": 1.0, "delta": 1e-5}
    private = [
        save_run(
            f"private-{rate}",
            LOSSES,
            made_rounds(
                made_round(0, IDS[:8], left_out=[{"client_id": IDS[9], "kind": "lost"}] * rate, privacy=spent)
            ),
            table=table,
            privacy={"epsilon": 8.0},
            drop_out=rate / 10,
        )
        for rate in (1, 2)
    ]
    assert [row["by_speed"] for row in _asked(private)["robustness"][0]["rows"]] == [{}, {}]


def test_runs_that_differ_in_anything_else_are_no_group(slow, thin):
    assert _asked([slow, thin])["robustness"] == []


def test_over_selection_and_late_replies_count_as_asked():
    rounds = [
        {"clients": [{}] * 10, "left_out": [{"client_id": "a", "kind": "closed"}] * 3},
        {"clients": [{}] * 6, "left_out": [{"client_id": "a", "kind": "late"}]},
        {"clients": []},
    ]
    found = lost_visits(rounds)
    assert (found.num_asked, dict(found.by_kind), found.fraction) == (20, {"closed": 3, "late": 1}, 0.2)
    assert lost_visits([{"clients": []}]).fraction is None


def test_the_tables_are_in_terminal_markdown_json_and_page(save_run, slow, thin, tmp_path, capsys):
    lossy = [_lossy(save_run, f"d{rate}", rate / 10, "lost", 0.01 * rate) for rate in (0, 3)]
    out = tmp_path / "out"
    flags = ["--budget", "bytes=750,hours=4", "--target", "heldout_loss=1.6", "--out", str(out)]
    assert main(["compare", *map(str, (slow, thin, *lossy)), *flags]) == 0
    printed = capsys.readouterr().out
    page, text = ((out / f"comparison.{end}").read_text(encoding="utf-8") for end in ("html", "md"))
    for told in (
        "Quality under a budget: bytes sent up to 750 B and hours up to 4.0 hours",
        "Cost to a target: held-out loss 1.6000",
        "Robustness to lost clients: fedavg",
    ):
        assert told in printed
        assert told in page
        assert told in text
    assert "With a tenth more of the asked visits lost, held-out loss changes by +0.0100" in text
    assert "480 B to 720 B" in page
