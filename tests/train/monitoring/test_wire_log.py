"""The record of how messages were packed, and the warning of a wire that does harm."""

import logging

import pytest

from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.monitoring.observer import Step
from fedllm_train.monitoring.wire_log import WireLog

TASK = Task(run="key", step=0, client_id="ann", seed=0, learning_rate=0.0, message=b"12")
STEP = Step(index=0, before={}, after={}, is_made=True)


def packed(error):
    return PackedMessage(message=b"12", num_values=8, relative_error=error)


def reply(bits, error):
    return Reply(
        step=0, client_id="ann", message=b"m", facts={"bits_per_value": bits, "relative_error": error}, num_rows=1
    )


def test_a_round_has_the_means_over_its_messages_and_the_next_begins_with_none():
    log = WireLog(WireSettings(wire="drive", download_wire="int8"), travels=True)
    for error in (0.01, 0.03):
        log.sent(TASK, packed(error))
    log.saw(reply(1.0, 0.5), None)
    log.saw(reply(2.0, 0.7), None)
    log.saw(reply(99.0, 99.0), "refused")
    assert log.stepped(STEP)["wire"] == {
        "bits_per_value": 1.5,
        "relative_error": pytest.approx(0.6),
        "download_bits_per_value": 2.0,
        "download_relative_error": pytest.approx(0.02),
    }
    assert set(log.stepped(STEP)["wire"].values()) == {None}


@pytest.mark.parametrize(("wire", "warnings"), [("sign", 1), ("drive", 0)])
def test_an_error_above_one_is_warned_of_once_unless_errors_average_out(caplog, wire, warnings):
    log = WireLog(WireSettings(wire=wire), travels=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.saw(reply(1.0, 1.5), None)
            log.stepped(STEP)
    assert caplog.text.count("farther from the true ones than zeros would be (relative error 1.50)") == warnings
