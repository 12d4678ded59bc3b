"""One spelling of flags: dashes are shown, underscores work, a misspelt word is named with what it may stand for."""

import pytest

from fedllm_data.command_line.one_line_parser import OneLineParser, add_command
from fedllm_data.command_line.spelling import as_flag, as_name, dashed


def parser():
    parser = OneLineParser(prog="fedllm-data")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    partition = commands.add_parser("partition")
    partition.add_argument("--rule", choices=("iid", "dirichlet"), required=True)
    partition.add_argument("--num-clusters", type=int)
    partition.add_argument("--note")
    partition.add_argument("rest", nargs="*")
    commands.add_parser("publish")
    return parser


@pytest.mark.parametrize(
    "argv",
    [
        ["--num-clusters", "3"],
        ["--num_clusters", "3"],
        ["--num-clusters=3"],
        ["--num_clusters=3"],
    ],
)
def test_dashes_underscores_and_equals_mean_the_same(argv):
    assert parser().parse_args(["partition", "--rule", "iid", *argv]).num_clusters == 3


def test_values_keep_their_underscores_and_what_follows_two_dashes_is_no_flag():
    read = parser().parse_args(["partition", "--note", "a_b --c_d", "--rule=iid", "--", "--e_f"])
    assert (read.note, read.rest) == ("a_b --c_d", ["--e_f"])


def refusal(capsys, argv):
    with pytest.raises(SystemExit) as left:
        parser().parse_args(argv)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["partion"], "there is no command 'partion'; did you mean partition? see fedllm-data --help"),
        (["nothing-like-it"], "there is no command 'nothing-like-it'; choose from partition, publish;"),
        # Named before what is missing, which may be what was misspelt.
        (["partition", "--ruel", "iid"], "--ruel is no flag of fedllm-data partition; did you mean --rule?"),
        (["partition", "--num-cluster=3", "--rule", "iid"], "did you mean --num-clusters?"),
        (["partition", "--rule", "iid", "--zzzz"], "--zzzz is no flag of fedllm-data partition; see"),
        (["partition", "--rule", "dirchlet"], "invalid choice: 'dirchlet'; did you mean dirichlet? (choose from iid,"),
        (["--versoin", "partition"], "--versoin is no flag of fedllm-data; see"),
        (["partition", "--num_clusters", "x", "--rule", "iid"], "argument --num-clusters: invalid int value: 'x'"),
    ],
)
def test_a_misspelt_word_is_named_with_what_it_may_stand_for(capsys, argv, said):
    assert said in refusal(capsys, argv)


def test_the_usage_shows_what_must_be_given_and_no_more(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = OneLineParser(prog="fedllm-train")
    tiny = add_command(command.add_subparsers(), "tiny", does="train a small model")
    tiny.add_argument("run", metavar="RUN")
    tiny.add_argument("--out", required=True, metavar="DIR")
    tiny.add_argument("--steps", metavar="N")
    what = tiny.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="DIR_OR_ID")
    what.add_argument("--shipped", action="store_true")
    with pytest.raises(SystemExit):
        command.parse_args(["tiny", "--help"])
    shown = capsys.readouterr().out.split("\n\n")
    assert shown[:2] == [
        "usage: fedllm-train tiny --out DIR (--data DIR_OR_ID | --shipped) [flags] RUN",
        "Train a small model.",
    ]


@pytest.mark.parametrize("beginning", ["--ru", "--num", "--num-cluster"])
def test_nothing_is_abbreviated(capsys, beginning):
    assert f"{beginning} is no flag" in refusal(capsys, ["partition", "--rule", "iid", beginning, "3"])


def test_a_former_name_of_a_flag_becomes_its_name():
    former = {"output-dir": "out"}
    assert dashed(["--output_dir=a_b", "--output-dir", "c"], former) == ["--out=a_b", "--out", "c"]


def test_flags_and_names_are_opposites():
    renamed = {"output_dir": "out"}
    for name in ("cohort_size", "output_dir", "seed"):
        assert as_name(as_flag(name, renamed), renamed) == name
