"""The line over Flower with a program in the place of `flwr` that starts a relay of our own: no Flower is needed."""

import sys
import threading

import pytest

from fedllm_train.engines.flower import flower_line as line_file
from fedllm_train.engines.flower.certificates import fingerprint_of
from fedllm_train.engines.flower.deployment import Deployment
from fedllm_train.engines.flower.flower_line import RELAY, FlowerLine

pytest.importorskip("cryptography")

# It begins to answer when it holds two requests, and reads no third before both answers are written.
FLWR = """#!{python}
import os, socket, sys
sys.path.insert(0, {relay!r})
from fedrelay import frames
print('{{"run-id": "1"}}', flush=True)
if os.fork():
    os._exit(0)
os.close(1), os.close(2)
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[-1].split('"')[1])
frames.send(line, {{"op": "hello", "run_id": "1"}})
held = []
while True:
    try:
        header, body = frames.receive(line)
    except (EOFError, OSError):
        break
    if header["op"] == "nodes":
        nodes = [{{"id": "9", "key": {key!r}, "status": "online"}}]
        frames.send(line, {{"op": "nodes", "nodes": nodes}})
        continue
    held.append((header["key"], body))
    if len(held) > 1:
        for key, body in held:
            frames.send(line, {{"op": "answer", "key": key, "header": {{}}}}, body)
        held.clear()
"""


@pytest.fixture
def opened(tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    key = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    program = tmp_path / "env" / "bin" / "flwr"
    program.parent.mkdir(parents=True)
    program.write_text(FLWR.format(python=sys.executable, relay=str(RELAY), key=key.hex()))
    program.chmod(0o755)
    sites = {"north": fingerprint_of(key)}
    deployment = Deployment(folder=tmp_path, server="localhost:1", listen="127.0.0.1:1", sites=sites)
    with FlowerLine(deployment, tmp_path / "env") as line:
        yield line


def test_large_requests_and_large_answers_at_once_do_not_wait_for_each_other(opened):
    body = bytes(8_000_000)

    def send_all():
        for number in range(6):
            opened.send("north", str(number), {}, body, seconds=60)

    sending = threading.Thread(target=send_all, daemon=True)
    sending.start()
    events = [opened.receive(20) for _ in range(6)]
    assert all(event is not None and event.problem is None for event in events)
    assert sorted(event.key for event in events) == list("012345")
    assert all(event.body == body for event in events)
    sending.join()


def test_a_request_that_flower_cannot_carry_is_not_sent(opened, monkeypatch):
    monkeypatch.setattr(line_file, "LARGEST_MESSAGE", 10)
    opened.send("north", "long", {}, bytes(11), seconds=60)
    event = opened.receive(20)
    assert event.key == "long"
    assert "11 bytes long; Flower carries 10" in event.problem
