"""Updates that no honest visit gives: the client is left out by name, and the run goes on without it."""

import pytest
import torch

from fedllm_train.engines.remote.messages import Done, cut_body, read_answer
from fedllm_train.engines.remote.site_clients import clients_at_sites
from fedllm_train.engines.remote.socket_line import SocketLine
from fedllm_train.messages import codec


def with_nan(body):
    parts = codec.decode(body)
    name = sorted(parts["adapter"])[0]
    parts["adapter"][name] = torch.full_like(parts["adapter"][name], float("nan"))
    return codec.encode(parts)


def with_another_shape(body):
    parts = codec.decode(body)
    name = sorted(parts["adapter"])[0]
    parts["adapter"][name] = torch.zeros(1, 1)
    return codec.encode(parts)


def with_less(body):
    parts = codec.decode(body)
    parts["adapter"].pop(sorted(parts["adapter"])[0])
    return codec.encode(parts)


ODD = {
    "NaN": (with_nan, "not finite"),
    "another shape": (with_another_shape, "shape"),
    "a tensor missing": (with_less, ""),
    "no safetensors": (lambda body: b"\x80\x04\x95pickle", "cannot be read"),
    "nothing": (lambda body: b"", "cannot be read"),
    "cut off": (lambda body: body[: len(body) // 2], "cannot be read"),
    "a huge header": (lambda body: (2**40).to_bytes(8, "little") + body[8:], "cannot be read"),
}


def changed(worker, change):
    """Answers as a worker does, with other updates."""

    def answer(header, body):
        told, content = worker.answer(header, body)
        done = read_answer(told)
        if not isinstance(done, Done) or not any(result.has_body for result in done.results):
            return told, content
        pieces = [change(bytes(piece)) if piece else b"" for piece in cut_body(content, done.lengths)]
        return done.model_copy(update={"lengths": [len(each) for each in pieces]}).header(), b"".join(pieces)

    return answer


@pytest.mark.parametrize(("change", "reason"), ODD.values(), ids=list(ODD))
def test_the_site_that_sends_it_is_left_out_by_name(kit, remote, tmp_path, change, reason):
    with remote.workers_of(remote.places, tmp_path / "sites") as workers:
        answers = {name: worker.answer for name, worker in workers.items()}
        answers["site1"] = changed(workers["site1"], change)
        with SocketLine({name: remote.pair_to(answer) for name, answer in answers.items()}) as line:
            clients = clients_at_sites(line, seconds=30)
            trainer = remote.trainer_of(
                kit, remote.places, tmp_path / "run", clients, num_rounds=1, cohort_rule="all", local_steps=1
            )
            state = trainer.train()
    (record,) = kit.records_of(tmp_path / "run")
    odd = {name for name, site in clients.site_of.items() if site == "site1"}
    assert {each["client_id"] for each in record["left_out"]} == odd
    assert all(reason in each["reason"] for each in record["left_out"])
    assert {each["client_id"] for each in record["clients"]} == set(clients) - odd
    assert all(bool(tensor.isfinite().all()) for tensor in state.server["adapter"].values())
