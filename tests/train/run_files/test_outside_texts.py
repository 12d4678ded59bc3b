r"""Records, JSON files and cards of a run hold any text: reasons of errors and names of files may have half a pair."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedllm_train.run_files.checkpoint import append_record, mend_records
from fedllm_train.run_files.run_card import write_run_card
from fedllm_train.run_files.run_writing import write_json

TEXTS = st.text(st.characters(exclude_characters="\0"), max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=4))
@example(["\ud83d", "é\udcff", "\u2028", "\x85"])
def test_records_of_any_text_read_back_and_are_mended(tmp_path_factory, texts):
    run = tmp_path_factory.mktemp("run")
    records = [{"round_index": i, "left_out": [{"client_id": "a", "reason": text}]} for i, text in enumerate(texts)]
    for record in records:
        append_record(run, record)
    mend_records(run, records[-1])
    lines = (run / "rounds.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines if line] == records
    write_json(run / "file.json", records)
    assert json.loads((run / "file.json").read_text(encoding="utf-8")) == records


def test_a_card_names_a_run_folder_whose_name_is_no_text(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", num_rounds=1, cohort_size=1, local_steps=1).train()
    odd = (tmp_path / "run").rename(tmp_path / "run\udcff")
    assert "run\ufffd" in write_run_card(odd).read_text(encoding="utf-8")
