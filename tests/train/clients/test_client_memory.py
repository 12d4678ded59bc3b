"""What clients keep: which of it counts at a visit, what is removed, and that no resume ever misses any of it."""

import shutil
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.client_memory import ClientMemory
from fedllm_train.engines.engine import NO_STEP, InProcessEngine, Reply, replies_of
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.monitoring.ledger import LedgerKeeper
from fedllm_train.round_plan import RoundPlan
from fedllm_train.rounds import run_rounds
from fedllm_train.run_files.checkpoint import kept_rounds
from fedllm_train.run_files.resume import first_state
from fedllm_train.strategies import STRATEGIES


def parts(*values):
    return {"kept": {"steps": torch.tensor(values, dtype=torch.int64)}}


def steps_of(memory):
    return memory["kept"]["steps"].tolist() if memory else []


# -- one folder -----------------------------------------------------------------------------------------------------


def saved(folder, *steps):
    memory = ClientMemory(folder)
    for step in steps:
        memory.save("ann", step, parts(step))
    return memory


def files(folder):
    return sorted(int(path.stem.removeprefix("round-")) for path in folder.rglob("*.safetensors"))


def test_a_visit_reads_the_newest_that_counts_and_drops_what_came_after(tmp_path):
    memory = saved(tmp_path, 1, 4, 6)
    assert steps_of(memory.load("ann", kept_step=5, oldest_step=NO_STEP)) == [4]
    assert files(tmp_path) == [1, 4]  # what step 6 kept belongs to an update that was refused or lost
    assert steps_of(memory.load("ann", kept_step=3, oldest_step=NO_STEP)) == [1]
    assert memory.load("ann", kept_step=NO_STEP, oldest_step=NO_STEP) == {}
    assert files(tmp_path) == []


def test_what_only_an_earlier_step_could_need_is_removed(tmp_path):
    memory = saved(tmp_path, 1, 3, 6, 7)
    assert steps_of(memory.load("ann", kept_step=7, oldest_step=4)) == [7]
    assert files(tmp_path) == [3, 6, 7]  # after step 4 the run could go on from what step 3 kept
    memory.load("ann", kept_step=7, oldest_step=7)
    assert files(tmp_path) == [7]


def test_a_client_that_kept_nothing_or_is_another_has_no_memory(tmp_path):
    memory = saved(tmp_path, 1)
    assert memory.load("bob", kept_step=5, oldest_step=0) == {}
    assert files(tmp_path) == [1]


# -- any run --------------------------------------------------------------------------------------------------------

OUTCOMES = ("absent", "accepted", "refused", "reason")
CLIENTS = ("ann", "bob")


class Killed(Exception):
    """The process ends between a visit and the round's checkpoint."""


@dataclass
class History:
    """What becomes of each client in each step, and a host, an engine's participation and an aggregation that play it.

    A visit keeps the steps of all visits that its memory counts, and its own.
    """

    folder: object
    outcomes: list[dict[str, str]]
    kills: dict[int, int]
    """Step -> how many of the newest checkpoints are lost with it."""
    keep: int
    problems: list[str] = field(default_factory=list)

    def expected(self, client_id, step):
        return [t for t in range(step) if self.outcomes[t][client_id] == "accepted"]

    def visit(self, task):
        memory = ClientMemory(self.folder / "client_memory" / task.run)
        read = steps_of(memory.load(task.client_id, kept_step=task.kept_step, oldest_step=task.oldest_step))
        if read != self.expected(task.client_id, task.step):
            self.problems.append(f"{task.client_id} reads {read} in step {task.step}")
        facts = {"num_steps": 1, "seconds": 0.0}
        if self.outcomes[task.step][task.client_id] == "reason":
            return Reply(step=task.step, client_id=task.client_id, reason="not finite")
        memory.save(task.client_id, task.step, parts(*read, task.step))
        kept = list((self.folder / "client_memory" / task.run).glob("*/*"))
        if len(kept) > len(CLIENTS) * (self.keep + 1):
            self.problems.append(f"{len(kept)} files are kept in step {task.step}")
        return Reply(step=task.step, client_id=task.client_id, message=b"m", num_rows=1, facts=facts)

    def replies(self, engine, step, ask):
        engine.submit(ask(each) for each in CLIENTS if self.outcomes[step][each] != "absent")
        yield from replies_of(engine)
        if step in self.kills:
            raise Killed

    def run(self):
        """Run to the end through all kills."""
        while True:
            state = first_state(self.folder, {"adapter": {"w": torch.zeros(1)}})
            plan = RoundPlan(
                run=self.folder,
                run_key=state.run_key,
                seed=0,
                num_rounds=len(self.outcomes),
                learning_rate=1.0,
                min_learning_rate=1.0,
                keep_checkpoints=self.keep,
                keep_every=None,
                strategy=NoStrategy(),
                wire=ServerWire(WireSettings(), seed=0, first=lambda client_id: {}),
                engine=InProcessEngine(self),
                participation=self,
                aggregate=lambda before: OfHistory(self, before.next_round),
                ledger=LedgerKeeper(state.ledger, travels=True),
                observers=[],
            )
            try:
                return run_rounds(plan, state)
            except Killed:
                step = max(kept_rounds(self.folder), default=-1) + 1
                num_lost = min(self.kills.pop(step), max(len(kept_rounds(self.folder)) - 1, 0))
                for lost in kept_rounds(self.folder)[len(kept_rounds(self.folder)) - num_lost :]:
                    shutil.rmtree(self.folder / "checkpoints" / f"round-{lost:06d}")


class NoStrategy:
    traits = STRATEGIES["fedavg"].traits

    def broadcast(self, state, client_id, round_index):
        return state

    def server_step(self, state, sums, round_index):
        return state


class OfHistory:
    """Accepts and refuses as the history has it."""

    def __init__(self, history, step):
        self._history, self._step = history, step

    def add(self, reply):
        return None if self._history.outcomes[self._step][reply.client_id] == "accepted" else "refused"

    def is_enough(self):
        return True

    def sums(self):
        return {}

    def as_record(self):
        return {}


@given(
    outcomes=st.lists(
        st.fixed_dictionaries({client_id: st.sampled_from(OUTCOMES) for client_id in CLIENTS}), min_size=1, max_size=9
    ),
    kills=st.dictionaries(st.integers(0, 8), st.integers(0, 3), max_size=3),
    keep=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_visit_reads_what_its_accepted_updates_left_through_refusals_losses_and_resumes(
    tmp_path, outcomes, kills, keep
):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    (tmp_path / "run").mkdir()
    history = History(tmp_path / "run", outcomes, {step: n for step, n in kills.items() if step < len(outcomes)}, keep)
    assert history.run().next_round == len(outcomes)
    assert history.problems == []


# -- whole runs -----------------------------------------------------------------------------------------------------

EVERYBODY = {"cohort_rule": "all", "cohort_size": 5, "num_rounds": 3, "local_steps": 1, "keep_checkpoints": 3}


def of_cyd_in_round_1(answer):
    """A change of a host: what it answers for cyd in round 1, given the task and its own way to visit."""

    def change(host):
        visit = host.visit

        def changed(task):
            is_it = (task.client_id, task.step, task.purpose) == ("cyd", 1, "train")
            return answer(task, visit) if is_it else visit(task)

        host.visit = changed

    return change


def refused(task, visit):
    """The visit is made, and what it sends does not fit: no server uses it."""
    reply = visit(task)
    return replace(reply, message=codec.encode({"other": {"w": torch.ones(1)}}))


def unreadable(task, visit):
    """The visit is made, and what arrives is no message."""
    return replace(visit(task), message=b"noise")


def lost(task, visit):
    """The visit is made, and its answer does not arrive."""
    visit(task)
    return Reply(step=task.step, client_id=task.client_id, reason="lost on the way")


def away(task, visit):
    return Reply(step=task.step, client_id=task.client_id, reason="away")


@pytest.mark.parametrize(
    ("answered", "reason"),
    [(unreadable, "its message cannot be read"), (lost, "lost on the way")],
    ids=["unreadable", "lost"],
)
def test_what_a_client_kept_after_an_answer_that_was_lost_does_not_count(kit, tmp_path, answered, reason):
    ends = {}
    for name, answer in (("answered", answered), ("away", away)):
        engine = kit.in_process(of_cyd_in_round_1(answer))
        ends[name] = kit.make_trainer(tmp_path / name, strategy="scaffold", engine=engine, **EVERYBODY).train()
    (left_out,) = kit.records_of(tmp_path / "answered")[1]["left_out"]
    assert left_out["reason"].startswith(reason)
    for part, tensors in ends["away"].server.items():
        assert adapter_sha256(ends["answered"].server[part]) == adapter_sha256(tensors)


@pytest.mark.parametrize("strategy", ["scaffold", "ditto"])
def test_a_client_whose_update_was_refused_goes_on_from_what_it_kept_before(kit, tmp_path, strategy):
    more = {"personal_clients": "all"} if strategy == "ditto" else {}
    ends, memories = {}, {}
    for name, answer in (("refused", refused), ("away", away), ("plain", lambda task, visit: visit(task))):
        run = tmp_path / name
        engine = kit.in_process(of_cyd_in_round_1(answer))
        ends[name] = kit.make_trainer(run, strategy=strategy, engine=engine, **EVERYBODY, **more).train()
        memories[name] = {c: kit.memory_of(run, c, before=3) for c in kit.SIZES}
    (left_out,) = kit.records_of(tmp_path / "refused")[1]["left_out"]
    assert "its update lacks" in left_out["reason"]
    for part, tensors in ends["away"].server.items():
        assert adapter_sha256(ends["refused"].server[part]) == adapter_sha256(tensors)
    for client_id, kept in memories["away"].items():
        for part, tensors in kept.items():
            assert adapter_sha256(memories["refused"][client_id][part]) == adapter_sha256(tensors), client_id
    # It could fail: what cyd learns in round 1 matters.
    assert adapter_sha256(ends["plain"].adapter) != adapter_sha256(ends["away"].adapter)


@pytest.mark.parametrize("strategy", ["scaffold", "ditto"])
@pytest.mark.parametrize("after_round", [0, 1])
def test_a_resume_from_an_older_checkpoint_reads_the_right_step_around_a_refusal(kit, tmp_path, strategy, after_round):
    settings = {"strategy": strategy, "engine": kit.in_process(of_cyd_in_round_1(refused)), **EVERYBODY}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=after_round)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    for part, tensors in whole.server.items():
        assert adapter_sha256(resumed.server[part]) == adapter_sha256(tensors), part
    for client_id in kit.SIZES:
        before, after = (kit.memory_of(tmp_path / name, client_id, before=3) for name in ("whole", "cut"))
        assert {part: adapter_sha256(tensors) for part, tensors in before.items()} == {
            part: adapter_sha256(tensors) for part, tensors in after.items()
        }


def test_a_start_after_the_checkpoints_were_removed_finds_nothing_of_the_earlier_one(kit, tmp_path):
    settings = {"strategy": "scaffold", **EVERYBODY}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "again", after_round=1, **settings)
    shutil.rmtree(tmp_path / "again" / "checkpoints")
    again = kit.make_trainer(tmp_path / "again", **settings).train(resume=True)
    for part, tensors in whole.server.items():
        assert adapter_sha256(again.server[part]) == adapter_sha256(tensors), part
    assert len(list((tmp_path / "again" / "client_memory").iterdir())) == 2  # a folder for each start
