"""What a judge keeps: on disk at once, whole or not at all, found by content, also after a kill."""

import json
import os
import signal
import subprocess
import sys

import pytest

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging import Endpoint, Judge, JudgeRequest, JudgeSettings, Recorded, make_judge
from tests.eval.judging.judge_server import JudgeServer

PROGRAM = """
import sys
from pathlib import Path
from fedllm_eval.judging import JudgeRequest, JudgeSettings, make_judge
url, folder = sys.argv[1:]
record = Path(folder) / "record.jsonl"
judge = make_judge(JudgeSettings(url=url, model="judge", cache=folder, record=record, max_parallel=1))
for judgment in judge.ask([JudgeRequest(system="s", user=f"question {index}") for index in range(8)]):
    print(judgment.text)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    blocking = {"on": True}

    def script(user, nth):
        return "block" if blocking["on"] and user == "question 5" else None

    with JudgeServer(script) as server:
        command = [sys.executable, "-c", PROGRAM, server.url, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.blocked.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len(list(tmp_path.rglob("*.json"))) == 5
        blocking["on"] = False
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["Rating: [[7]]"] * 8
    # The one under way when the process died is the only one asked twice.
    assert server.calls == {f"question {index}": 2 if index == 5 else 1 for index in range(8)}
    assert len((tmp_path / "record.jsonl").read_text().splitlines()) == 8


def test_a_damaged_file_is_a_judgment_that_was_never_finished(judge_at, requests_for, tmp_path):
    with JudgeServer() as server:
        judge_at(server).ask(requests_for("a", "b"))
        files = sorted((tmp_path / "judgments").rglob("*.json"))
        files[0].write_text(files[0].read_text()[:40])
        value = json.loads(files[1].read_text())
        files[1].write_text(json.dumps({**value, "user": "edited"}))
        judge_at(server).ask(requests_for("a", "b"))
    assert set(server.calls.values()) == {2}


def test_judges_are_kept_apart_in_a_shared_folder(requests_for, tmp_path):
    with JudgeServer(lambda user, nth: f"answer {nth}") as server:
        for model in ("one", "two", "one"):
            judge = Judge(Endpoint(server.url, model), cache=tmp_path)
            assert judge.ask(requests_for("a"))[0].text == f"answer {['one', 'two'].index(model)}"
    assert server.calls == {"a": 2}


def test_a_record_gives_the_same_judgments_offline(judge_at, requests_for, tmp_path):
    record = tmp_path / "record.jsonl"
    with JudgeServer(lambda user, nth: f"about {user}\u2028[[3]]") as server:
        live = judge_at(server, record=record).ask(requests_for("b", "a"))
        first = record.read_bytes()
        # Asking more adds to the record; the same judgments in another order give the same bytes.
        judge_at(server, record=record).ask(requests_for("a", "b"))
        assert record.read_bytes() == first
        judge_at(server, record=record).ask(requests_for("c"))
    judge = make_judge(JudgeSettings(recorded=record))
    assert judge.ask(requests_for("b", "a")) == live
    assert len(judge.backend) == 3
    assert judge.model == "judge"
    assert not list(tmp_path.glob("*/recorded*"))


def test_a_run_that_stops_still_writes_its_record(judge_at, requests_for, tmp_path):
    from fedllm_eval.judging import Spend

    with JudgeServer() as server:
        judge = judge_at(server, record=tmp_path / "record.jsonl", spend=Spend(max_calls=2))
        with pytest.raises(JudgeError):
            judge.ask(requests_for("a", "b", "c"))
    assert len(Recorded(tmp_path / "record.jsonl")) == 2


def test_what_is_not_in_the_record_stops_the_run(judge_at, requests_for, tmp_path):
    with JudgeServer() as server:
        judge_at(server, record=tmp_path / "record.jsonl").ask(requests_for("a"))
    judge = make_judge(JudgeSettings(recorded=tmp_path / "record.jsonl"))
    with pytest.raises(JudgeError, match=r"1 of 2 requests are not in the record.*p@1"):
        judge.ask(requests_for("a", "other"))
    with pytest.raises(JudgeError, match="not in the record"):
        judge.ask([JudgeRequest(system="you rate", user="a", max_tokens=50, temperature=0.5)])


def test_records_that_cannot_be_trusted(judge_at, requests_for, tmp_path):
    path = tmp_path / "record.jsonl"
    with JudgeServer() as server:
        judge_at(server, record=path).ask(requests_for("a"))
    line = json.loads(path.read_text())
    for lines, message in [
        ([{**line, "text": "[[1]]"}, line], "answered one request in two ways"),
        ([line, {**line, "judge": "other"}], "name one as model"),
        ([{**line, "user": "edited"}], "its key must fit its content"),
        ([{"judgment": "[[1]]", "user_prompt": "?", "judge": ["gpt-4", "pair-v9"]}], "FastChat's prompts"),
        ([], "judgments of nobody"),
    ]:
        path.write_text("".join(json.dumps(item) + "\n" for item in lines))
        with pytest.raises(ConfigError, match=message):
            Recorded(path)
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "judge": "other"}) + "\n")
    assert Recorded(path, model="other").model == "other"
    path.write_text("not json\n")
    with pytest.raises(ConfigError, match="line 1 is no JSON"):
        Recorded(path)


def test_a_file_that_is_no_record_is_not_overwritten(judge_at, requests_for, tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text('{"mine": 1}\n')
    with JudgeServer() as server, pytest.raises(ConfigError, match="no record of judgments"):
        judge_at(server, record=path).ask(requests_for("a"))
    assert path.read_text() == '{"mine": 1}\n'


def test_fastchat_files_are_records_of_one_answerer(tmp_path):
    from fedllm_eval.judging.prompts import load_prompt

    fields = {"question": "2 + 2?", "answer": "4"}
    request = load_prompt("fastchat-single-v1").request(fields)
    line = {"question_id": 1, "judge": ["gpt-4", "single-v1"], "user_prompt": request.user, "turn": 1}
    path = tmp_path / "gpt-4_single.jsonl"
    lines = [{**line, "model": "one", "judgment": "[[9]]"}, {**line, "model": "two", "judgment": "[[2]]"}]
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    with pytest.raises(ConfigError, match="answered_by"):
        make_judge(JudgeSettings(recorded=path))
    judge = make_judge(JudgeSettings(recorded=path, answered_by="two"))
    assert judge.ask([request])[0].text == "[[2]]"
    assert judge.model == "gpt-4"


def test_one_kind_of_judge_is_asked_for(monkeypatch):
    with pytest.raises(ConfigError, match="got none"):
        make_judge(JudgeSettings())
    with pytest.raises(ConfigError, match="got url and recorded"):
        make_judge(JudgeSettings(url="http://host/v1", model="m", recorded="x.jsonl"))
    with pytest.raises(ConfigError, match="needs a model name"):
        make_judge(JudgeSettings(url="http://host/v1"))
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="JUDGE_KEY, which is empty"):
        make_judge(JudgeSettings(url="http://host/v1", model="m", api_key_env="JUDGE_KEY"))
    monkeypatch.setitem(os.environ, "JUDGE_KEY", "k")
    assert make_judge(JudgeSettings(url="http://host/v1", model="m", api_key_env="JUDGE_KEY")).backend.api_key == "k"


@pytest.fixture
def fastchat(tmp_path):
    """Write FastChat's judgments of answers to `2 + 2?`: (question, turn, model, answer, judgment) a line."""
    from fedllm_eval.judging.prompts import load_prompt

    def write(*lines):
        written, requests = [], []
        for question, turn, model, answer, judgment in lines:
            request = load_prompt("fastchat-single-v1").request({"question": "2 + 2?", "answer": answer})
            requests.append(request)
            line = {"question_id": question, "turn": turn, "model": model, "judge": ["gpt-4", "single-v1"]}
            written.append(json.dumps({**line, "user_prompt": request.user, "judgment": judgment}))
        path = tmp_path / "gpt-4_single.jsonl"
        # An empty line between them: lines are counted as an editor does.
        path.write_text("\n\n".join(written) + "\n")
        return path, requests

    return write


def test_a_file_that_an_editor_of_windows_saved_is_read_with_the_right_lines(fastchat):
    path, requests = fastchat((1, 1, "a", "4", "[[9]]"), (2, 1, "a", "5", "[[2]]"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [judgment.text for judgment in make_judge(JudgeSettings(recorded=path)).ask(requests)] == ["[[9]]", "[[2]]"]
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[2])
    with pytest.raises(ConfigError, match="lines 3 and 4 judge the same answer"):
        make_judge(JudgeSettings(recorded=path))


def test_an_error_of_fastchats_is_no_judgment_and_is_counted(fastchat):
    path, requests = fastchat((1, 1, "a", "4", "$ERROR$"), (2, 1, "a", "5", "[[2]]"))
    failed, rated = make_judge(JudgeSettings(recorded=path)).ask(requests)
    assert failed.failure == "FastChat could not reach the judge ($ERROR$)"
    assert failed.text == ""
    assert (rated.text, rated.failure) == ("[[2]]", None)


def test_a_judgment_takes_the_place_of_an_error_whichever_came_first(fastchat):
    error, judged = (1, 1, "a", "4", "$ERROR$"), (1, 1, "a", "4", "[[9]]")
    for lines in ([error, judged], [judged, error], [error, error, judged]):
        path, requests = fastchat(*lines)
        assert make_judge(JudgeSettings(recorded=path)).ask(requests[:1])[0].text == "[[9]]"


def test_an_answer_judged_twice_is_refused_with_the_lines(fastchat):
    other = (2, 1, "a", "5", "[[2]]")
    for second in ("[[3]]", "[[9]]"):
        path, _ = fastchat((1, 1, "a", "4", "[[9]]"), other, (1, 1, "a", "4", second))
        with pytest.raises(
            ConfigError, match=r"lines 1 and 5 judge the same answer \(question 1, turn 1, model 'a'\)"
        ):
            Recorded(path)
    # The same question answered again since, and two models that answer alike, are judged once each.
    path, _ = fastchat((1, 1, "a", "4", "[[9]]"), (1, 1, "b", "4", "[[9]]"), (1, 2, "a", "4", "[[9]]"))
    assert len(Recorded(path)) == 1
    path, _ = fastchat((1, 1, "a", "4", "[[9]]"), (1, 1, "b", "4", "[[1]]"))
    with pytest.raises(ConfigError, match="lines 1 and 3: judge 'gpt-4' answered one request in two ways"):
        Recorded(path)
