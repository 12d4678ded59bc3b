"""How a wire is written, and what is refused."""

import subprocess
import sys

import pytest
from hypothesis import given

from fedllm_data.errors import ConfigError
from fedllm_train.messages.wire_names import PRESETS, WireStages, parse_wire
from tests.train.messages.drawn_wires import wires


@given(wires())
def test_the_text_of_stages_says_the_same_stages(stages):
    assert parse_wire(str(stages)) == stages


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_a_preset_is_short_for_its_stages(name):
    assert parse_wire(name) == parse_wire(PRESETS[name])
    assert parse_wire(str(parse_wire(name))) == parse_wire(name)


def test_what_is_left_out_has_the_usual_value():
    assert parse_wire("topk") == WireStages(topk=0.1)
    assert parse_wire("drive") == WireStages(quantise="drive", hadamard=256)
    assert parse_wire("hadamard:64+drive") == WireStages(quantise="drive", hadamard=64)
    assert parse_wire("sign") == WireStages(quantise="sign", block=64)
    assert parse_wire("segments") == WireStages(segments=5)
    assert parse_wire("segments:drawn:3") == WireStages(segments=3, segments_drawn=True)
    assert parse_wire(" int4:nearest + huffman ") == WireStages(quantise="int4", nearest=True, huffman=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is neither a preset nor a stage"),
        ("int5", "'int5' is neither a preset nor a stage; did you mean int"),
        ("topk-int9", "did you mean topk-int"),
        ("none+int8", "none leaves values as they are and stands alone"),
        ("none:1", "none leaves values as they are and stands alone"),
        ("topk-int8:0.2", "the preset topk-int8 takes no values; write its stages instead, topk:0.1"),
        ("int8+topk:0.1", "topk stands behind int8; the order is segments, topk, hadamard"),
        ("topk:0.1+topk:0.2", "topk and topk cannot both be done"),
        ("int8+int4", "int8 and int4 cannot both be done"),
        ("topk:0", "a share of the values above 0 and at most 1, not 0"),
        ("topk:1.5", "above 0 and at most 1, not 1.5"),
        ("topk:nan", "topk takes a finite number, not nan"),
        ("topk:ten", "topk takes a number, such as topk:0.1, not 'ten'"),
        ("topk:0.1:0.2", "topk takes one number, not 0.1:0.2"),
        ("segments:1", "a number of parts from 2 to 255, not 1"),
        ("segments:2.5", "segments takes a whole number, not 2.5"),
        ("segments:drawn:drawn", "segments takes the word drawn once"),
        ("hadamard:100+int8", "hadamard takes a power of two from 2 to 1048576, not 100"),
        ("sign:1", "sign takes blocks of 2 to 1048576 values, not 1"),
        ("int8:far", "int8 takes nearest and block=64, not 'far'"),
        ("int8:nearest:nearest", "int8 takes nearest once"),
        ("int8:block=", "block takes a number"),
        ("bfloat16:1", "bfloat16 takes no value, not '1'"),
        ("drive:nearest", "drive takes biased, not 'nearest'"),
        ("int8+golomb", "golomb codes the places of chosen values; put topk before it"),
        ("drive+huffman", "huffman cannot shorten one bit a value"),
        ("int8+huffman:9", "huffman takes no value, not '9'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_the_setting(text, why):
    with pytest.raises(ConfigError, match=why) as refused:
        parse_wire(text, "download_wire")
    assert str(refused.value).startswith(f"download_wire is {text!r}: ")
    assert "\n" not in str(refused.value)


def test_only_drive_is_expected_to_be_longer_than_what_was_packed():
    growth = {name: parse_wire(name).norm_growth for name in PRESETS if name != "none"}
    assert {name for name, times in growth.items() if times != 1} == {"drive"}
    assert growth["drive"] == pytest.approx(1.2533, abs=1e-4)  # as trade-offs of the field have it
    assert parse_wire("drive:biased").norm_growth == 1


def test_reading_a_wire_and_counting_its_bytes_imports_no_torch():
    script = (
        "import sys; from fedllm_train.messages.packed_length import packed_bytes;"
        "from fedllm_train.messages.wire_names import parse_wire;"
        "print(packed_bytes(parse_wire('topk-int4+huffman'), [1000]).bytes, 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert shown[1] == "False"
