"""`fedllm-train chat`: who speaks, that each goes on from its own answers, and what a terminal shows."""

import io
import json
import os
import select
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.generation import generate_answers
from fedllm_eval.policy.policies import load_policy, load_reference
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.chat import Chat, load_speakers
from fedllm_train.chat_terminal import shown_text
from fedllm_train.cli import main

ASKED = ["one two", "three"]


@pytest.fixture(scope="module")
def base(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "base"
    kit.make_model().save_pretrained(folder)
    kit.make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(kit, base):
    """A run of Ditto, whose clients end with adapters of their own."""
    folder = base.parent / "ditto"
    settings = FederatedConfig(
        output_dir=str(folder), strategy="ditto", num_rounds=1, cohort_size=2, local_steps=3, seed=5
    )
    FederatedTrainer(
        str(base), settings, kit.make_clients(), kit.trl_args("sft", learning_rate=0.05), kit.lora()
    ).train()
    return folder


@pytest.fixture(scope="module")
def own_client(run):
    entries = json.loads((run / "personal" / "clients.json").read_text())
    return next(client_id for client_id, entry in entries.items() if "folder" in entry)


def said_by(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_speaker_answers_as_its_policy_does_and_goes_on_from_its_own_answers(run):
    chat = Chat(load_speakers(run), max_new_tokens=8)
    said = [chat.ask(question) for question in ASKED]
    policy = load_policy(run)
    for at, alone in enumerate((load_reference(policy), policy)):
        turns = []
        for question, answers in zip(ASKED, said, strict=True):
            turns.append({"role": "user", "content": question})
            (answer,) = generate_answers(alone, [turns], max_new_tokens=8)
            assert answers[at].text == answer
            turns.append({"role": "assistant", "content": answer})
    assert [one.speaker for one in said[0]] == ["base", "adapter"]
    assert said[1][0].text != said[1][1].text, "the run has learned nothing, so this shows nothing"


def test_a_new_beginning_forgets_what_was_said(run):
    chat = Chat(load_speakers(run), max_new_tokens=8)
    first = chat.ask(ASKED[1])
    chat.ask(ASKED[0])
    chat.reset()
    assert chat.ask(ASKED[1]) == first


def test_a_question_that_fails_leaves_every_conversation_as_it_was(run):
    chat = Chat(load_speakers(run), max_new_tokens=8)
    chat.ask(ASKED[0])
    before = [list(speaker.turns) for speaker in chat.speakers]
    with pytest.raises(ConfigError, match="positions"):
        chat.ask("one two " * 5000)
    with pytest.raises(ConfigError, match="empty"):
        chat.ask(" \n")
    assert [speaker.turns for speaker in chat.speakers] == before


def test_a_clients_own_adapter_speaks_beside_the_global_one(run, own_client, capsys):
    assert main(["chat", str(run), "--client", own_client, "--prompt", ASKED[0], "--json"]) == 0
    (line,) = said_by(capsys)
    assert [one["speaker"] for one in line["answers"]] == ["base", "adapter", f"client {own_client}"]


def test_a_plain_model_speaks_alone_and_no_base_leaves_the_adapter(run, base, capsys):
    assert main(["chat", str(base), "--prompt", "one", "--json", "--max-new-tokens", "4"]) == 0
    assert main(["chat", str(run), "--no-base", "--prompt", "one", "--json", "--max-new-tokens", "4"]) == 0
    assert [[one["speaker"] for one in line["answers"]] for line in said_by(capsys)] == [["model"], ["adapter"]]


def test_questions_come_from_a_pipe_one_a_line(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\\\ntwo\n\n  \nthree"))
    assert main(["chat", str(run), "--json", "--max-new-tokens", "4"]) == 0
    assert [line["prompt"] for line in said_by(capsys)] == ["one\ntwo", "three"]


def test_an_answer_that_was_cut_says_so(run, capsys):
    assert main(["chat", str(run), "--prompt", "one", "--json", "--max-new-tokens", "1"]) == 0
    (line,) = said_by(capsys)
    cut = [one for one in line["answers"] if not one["finished"]]
    assert main(["chat", str(run), "--prompt", "one", "--max-new-tokens", "1"]) == 0
    assert capsys.readouterr().out.count("(cut at 1 tokens)") == len(cut) > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--client", "nobody"], "client 'nobody' has no adapter of its own"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--temperature", "nan"], "--temperature is nan"),
        (["--top-p", "0"], "--top-p is 0"),
        (["--prompt", " "], "--prompt is empty"),
        (["--prompt", "caf\udce9"], "--prompt is not UTF-8 text (at 'caf\\udce9')"),
        (["--system", "caf\udce9"], "--system is not UTF-8 text"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, capsys, flags, said):
    assert main(["chat", str(run), "--prompt", "one", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_pipe_without_a_question_and_a_run_without_adapters_of_clients_are_refused(run, base, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n \n"))
    assert main(["chat", str(run)]) == 2
    assert "nothing was asked" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ncaf\udce9\n"))
    assert main(["chat", str(run)]) == 2
    assert "question 2 is not UTF-8 text" in capsys.readouterr().err
    assert main(["chat", str(base), "--client", "a", "--prompt", "one"]) == 2
    assert "holds no adapters of single clients" in capsys.readouterr().err


@given(st.text())
def test_no_control_sequence_of_a_model_reaches_the_terminal(text):
    shown = shown_text(text)
    assert not any(letter in shown for letter in "\x1b\r\x07\x08\x9b\u202e\u2066")
    assert shown_text("plain words\nand 日本語") == "plain words\nand 日本語"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_person_at_a_terminal(run, tmp_path):
    import pty

    main_end, other_end = pty.openpty()
    command = [sys.executable, "-c", "import sys; from fedllm_train.cli import main; sys.exit(main(sys.argv[1:]))"]
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*command, "chat", str(run), "--max-new-tokens", "3"],
        stdin=other_end, stdout=other_end, stderr=other_end, cwd=tmp_path, env=environment, close_fds=True,
    )  # fmt: skip
    os.close(other_end)
    seen = ""

    def read_until(words):
        nonlocal seen
        deadline = time.monotonic() + 120
        while words not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([main_end], [], [], 1)[0]:
                seen += os.read(main_end, 4096).decode()
        read, seen = seen.split(words, 1)
        return read

    def type_line(line):
        os.write(main_end, f"{line}\n".encode())

    read_until("You talk to: base, adapter")
    read_until("> ")
    type_line("/nonsense")
    read_until("is no command")
    type_line("one two")
    read_until("base")
    read_until("> ")
    type_line("/save talk.json")
    read_until("written to talk.json")
    type_line("/save talk.json")
    read_until("File exists")
    type_line("/system be kind")
    type_line("/quit")
    assert process.wait(60) == 0
    os.close(main_end)
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [turn["role"] for turn in saved["adapter"]] == ["user", "assistant"]
