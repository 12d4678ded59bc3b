"""All candidates of a plan: what they share is read once, and one that a run would refuse keeps its reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from fedllm_data.errors import ConfigError, FedLLMError
from fedllm_data.roster import Roster
from fedllm_eval.machines.client_table import ClientTable, client_table
from fedllm_eval.machines.money import split_bytes_per_step
from fedllm_train.flag_names import in_flags, name_of
from fedllm_train.flags import OurFlags, parse_our_flags
from fedllm_train.models.base_tensors import BaseTensors
from fedllm_train.models.model_shape import base_tensors
from fedllm_train.planning.client_settings import planned_client
from fedllm_train.planning.plan_flags import Candidate, PlanFlags, candidates, flags_of_candidate
from fedllm_train.planning.plan_one import line_kinds, plan_one
from fedllm_train.planning.planned import PlannedRun
from fedllm_train.planning.quick_costs import default_inputs
from fedllm_train.planning.sizes import roster_of_sizes

__all__ = ["Plan", "SplitLearning", "plan_all"]

_MOST_MACHINES = 10_000
"""Clients whose machines are looked at for the page's first numbers."""


@dataclass(frozen=True, kw_only=True)
class SplitLearning:
    """What split learning would send, for clients that cannot hold the base (`fedllm_eval/machines/money.py`)."""

    step_bytes: int
    """With labels that stay with the client; half of it where they may leave."""
    visit_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command was asked for."""

    task: str
    model: str
    data: str
    num_clients: int
    num_rows: int
    num_parameters: int
    local_steps: float
    rows_per_step: int
    tokens_per_row: int
    client_table: str | None
    runs: Sequence[PlannedRun]
    inputs: Mapping[str, float | str] = field(default_factory=dict)
    """The numbers that the page begins with: those of a machine in the middle, where machines are known."""
    sources: Sequence[tuple[str, str, str]] = ()
    """(what, source, date) of the machines' numbers."""
    split: SplitLearning | None = None

    @property
    def known(self) -> list[PlannedRun]:
        """The candidates that a run would not refuse."""
        return [each for each in self.runs if each.refused is None]

    def as_record(self) -> dict[str, Any]:
        """Return it as a JSON-ready mapping."""
        return asdict(self)


def plan_all(flags: PlanFlags) -> Plan:
    """Return the costs of every candidate.

    Args:
        flags: what the command line says.

    Raises:
        ConfigError: where no candidate can be planned; with one candidate, for whatever a run would refuse.
        FedLLMError: for a dataset that cannot be read.
    """
    found = candidates(flags)
    given = {name_of(word) for word in flags.rest if word.startswith("--")}
    if flags.sizes is not None and "data" in given:
        raise ConfigError(f"--sizes {flags.sizes} is given, and --data has sizes of its own; leave one of the two out")
    task = flags.task or ("sft" if flags.sizes is not None else None)
    if task is None:
        task = _task_of_data(flags, found[0])
    lines = [flags_of_candidate(each, flags, flags.sizes or "?") for each in found]
    roster: Roster | None = None
    base: BaseTensors | None = None
    first: OurFlags | None = None
    runs: list[PlannedRun] = []
    reason: FedLLMError | None = None
    for candidate, argv in zip(found, lines, strict=True):
        try:
            ours = parse_our_flags(task, argv)
            if roster is None:
                _check_data(flags, ours)
                roster = _roster(flags, ours, task)
            if base is None:
                base = base_tensors(ours.run.model, revision=_revision(ours))
            runs.append(plan_one(ours, task, roster, base))
            first = first or ours
        except FedLLMError as error:
            if roster is None or base is None or len(found) == 1:
                raise
            reason = reason or error
            runs.append(_refused(candidate, error))
    if first is None or roster is None or base is None:
        assert reason is not None
        raise reason
    return _plan(task, first, roster, base, runs)


def _plan(task: str, ours: OurFlags, roster: Roster, base: BaseTensors, runs: Sequence[PlannedRun]) -> Plan:
    client, _ = planned_client(ours)
    config = ours.federated
    known = next(each for each in runs if each.refused is None)
    rows = client.train_batch_size * client.gradient_accumulation_steps
    tokens = config.tokens_per_row or client.max_length
    sequences = rows * (2 if task == "dpo" else 1)
    step = split_bytes_per_step(batch_size=sequences, sequence_length=tokens, hidden_size=base.hidden_size)
    sources: list[tuple[str, str, str]] = []
    inputs = default_inputs() | {"num_rounds": config.num_rounds}
    if config.client_table is not None:
        machines = client_table(config.client_table, list(roster), roster.table, seed=config.seed)
        sources = [(each.name, each.source, each.date) for each in machines.sources()]
        inputs |= _usual_machine(machines, list(roster))
    return Plan(
        task=task,
        model=ours.run.model,
        data=roster.name,
        num_clients=len(roster),
        num_rows=sum(roster.sizes.values()),
        num_parameters=base.num_parameters,
        local_steps=known.steps_visit,
        rows_per_step=rows,
        tokens_per_row=tokens,
        client_table=config.client_table,
        runs=runs,
        inputs=inputs,
        sources=sources,
        split=SplitLearning(step_bytes=step, visit_bytes=round(step * known.steps_visit)),
    )


def _usual_machine(machines: ClientTable, client_ids: Sequence[str]) -> dict[str, float | str]:
    """The median of every number over the clients, and the kind of line that most have."""
    found = [machines.machine(client_id) for client_id in client_ids[: max(1, _MOST_MACHINES)]]
    usual: dict[str, float | str] = {}
    for name in ("download_mbit", "upload_mbit", "latency_ms", "watts"):
        if known := [value for each in found if (value := getattr(each, name)) is not None]:
            usual[name] = median(known)
    if speeds := [each.flops for each in found if each.flops is not None]:
        usual["tera_flops"] = median(speeds) / 1e12
    kinds = Counter(line_kinds(each.profile)[0] for each in found)
    return usual | {"line": kinds.most_common(1)[0][0]}


def _task_of_data(flags: PlanFlags, candidate: Candidate) -> str:
    """What the dataset's rows are for."""
    argv = flags_of_candidate(candidate, flags, "?")
    ours = parse_our_flags("sft", argv)
    _check_data(flags, ours)
    return "sft" if _roster(flags, ours, "sft").task == "sft" else "dpo"


def _check_data(flags: PlanFlags, ours: OurFlags) -> None:
    if flags.sizes is None and ours.run.data == "?":
        raise ConfigError(
            "neither --data nor --sizes is given; name the dataset, or say how many clients with how "
            "many rows there are, such as --sizes 100:50"
        )


def _roster(flags: PlanFlags, ours: OurFlags, task: str) -> Roster:
    rows: Any = "sft" if task == "sft" else "preference"
    if flags.sizes is not None:
        return roster_of_sizes(flags.sizes, rows)
    from fedllm_data.repo import open_repo
    from fedllm_data.roster import roster_of_repo

    roster = roster_of_repo(open_repo(ours.run.data, ours.run.data_revision))
    if flags.task is not None and roster.task != rows and not (flags.task == "kto" and roster.task == "preference"):
        raise ConfigError(
            f"--task {flags.task} cannot train on {ours.run.data}, which holds {roster.task} rows; give another task"
        )
    return roster


def _revision(ours: OurFlags) -> str | None:
    named = dict(zip(ours.rest[::2], ours.rest[1::2], strict=False)) if "model_revision" in ours.given else {}
    return named.get("--model-revision") or ours.defaults.get("model_revision")


def _refused(candidate: Candidate, error: FedLLMError) -> PlannedRun:
    chosen = dict(candidate.chosen)
    text = in_flags(" ".join(str(error).split()))
    size = chosen.get("cohort_size", "")
    return PlannedRun(
        strategy=chosen.get("strategy", "fedavg"),
        wire=chosen.get("wire", "none"),
        download_wire=chosen.get("download_wire", "none"),
        cohort_size=int(size) if size.isdigit() else 0,
        refused=text,
    )
