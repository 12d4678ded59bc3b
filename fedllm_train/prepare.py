"""From settings and a roster of clients to the plan of a run, without weights, rows or torch.

Every setting that cannot be honoured is refused here or before (in the settings themselves), so that nobody waits for
a model to be told; what only the model can tell (whether the adapter has LoRA factors, whether the texts fit the chat
template) is refused when it is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedllm_data.errors import ConfigError
from fedllm_data.roster import Roster
from fedllm_eval.machines.client_table import ClientTable, client_table
from fedllm_train.adapters.last_layers import client_layers, with_last_layers
from fedllm_train.adapters.ranks import client_ranks
from fedllm_train.aggregation.private import check_private_method
from fedllm_train.aggregation.robust_settings import check_robust_method, check_root
from fedllm_train.aggregation.staleness import check_asynchronous_method
from fedllm_train.attacks.attack_settings import OF_ROWS
from fedllm_train.attacks.attackers import attackers_of, check_attackers
from fedllm_train.clients.local_work import LocalWork, local_work
from fedllm_train.clients.memory_fit import ClientMemory, MemoryFit
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.process_engine import check_processes
from fedllm_train.messages.packed_length import has_fixed_length
from fedllm_train.messages.wire_checks import check_wire_method, check_wire_rounds
from fedllm_train.monitoring.evaluation_settings import check_scored_run
from fedllm_train.monitoring.trackers import check_tracker
from fedllm_train.participation.cohort_rules import cohort_pool, eligible_clients
from fedllm_train.participation.turnout import Turnout, check_machines, has_windows, resolve_turnout
from fedllm_train.privacy.accounting import Guarantee, run_guarantee
from fedllm_train.privacy.private_turnout import check_private_turnout
from fedllm_train.privacy.row_guarantee import RowGuarantee, run_row_guarantee
from fedllm_train.privacy.row_refusals import check_row_privacy
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec
from fedllm_train.privacy.secure_sum.skellam_guarantee import sized, skellam_guarantee
from fedllm_train.privacy.secure_sum.sum_plan import sum_spec
from fedllm_train.privacy.turns import check_enough_clients
from fedllm_train.strategies import STRATEGIES, strategy_class
from fedllm_train.strategy import POOLED, Federation, Strategy

__all__ = ["ClientSettings", "RunPlan", "make_strategy", "prepare"]


class ClientSettings(Protocol):
    """What a plan reads of TRL's settings; `SFTConfig`, `DPOConfig` and `KTOConfig` have it."""

    learning_rate: float
    train_batch_size: int
    gradient_accumulation_steps: int


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run, before anything is loaded."""

    config: FederatedConfig
    roster: Roster
    strategy: Strategy
    federation: Federation
    participants: Sequence[str]
    """Clients that may be asked."""
    cohort_size: int
    """How many are asked in a round, or with Poisson sampling are on average."""
    turnout: Turnout
    """How many clients are asked, and how many updates make a server step."""
    machines: ClientTable | None
    """The clients' lines and devices, for the simulated clock; None without one."""
    attackers: Mapping[str, str]
    """Client -> attack, of simulated attackers."""
    guarantee: Guarantee | None
    """Differential privacy of clients; None where none is asked for."""
    sums: SumSpec | None
    """Secure sums; None where the server sees updates."""
    row_guarantee: RowGuarantee | None
    """Differential privacy of rows; None where none is asked for."""
    work: LocalWork
    learning_rate: float
    """Learning rate of the first round; the cosine starts here."""
    min_learning_rate: float
    """What it falls to."""

    def in_words(self) -> str:
        """Return the size of the run, for a line that says what will be done."""
        rounds, clients = self.config.num_rounds, len(self.participants)
        about = "about " if self.config.cohort_rule == "poisson" else ""
        if self.config.participation != "synchronous":
            waits = self.turnout.in_words(self.config)
            each = "1 round" if rounds == 1 else f"{rounds:,} rounds, each"
            return f"{each} of {waits}, {clients:,} clients in all, {self.work.in_words()}"
        return (
            f"{rounds:,} {'round' if rounds == 1 else 'rounds'} of {about}{self.cohort_size:,} of {clients:,} "
            f"{'client' if clients == 1 else 'clients'}, {self.work.in_words()}"
        )


def prepare(
    config: FederatedConfig,
    roster: Roster,
    client: ClientSettings,
    *,
    model_is_named: bool = True,
    fit: MemoryFit | None = None,
) -> RunPlan:
    """Return the plan of a run.

    Args:
        config: the settings of the federation.
        roster: the training clients.
        client: TRL's settings for a client's training.
        model_is_named: whether the model is a folder or a Hub id, which other processes can load, too.
        fit: what training needs of a client's memory; without it, what goes by memory is not dealt out yet.

    Raises:
        ConfigError: for a setting that cannot be honoured.
    """
    strategy, federation = make_strategy(config, roster, fit)
    # One named client, or the pool of all, is a cohort of one whatever is asked for.
    alone = strategy.traits.family == "baseline"
    participants, cohort_size = cohort_pool(config, strategy.participants(roster.ids), alone=alone)
    machines = _machines(config, roster, strategy, participants)
    turnout = resolve_turnout(config, participants, cohort_size, machines)
    if config.is_asynchronous:
        check_asynchronous_method(config, strategy.traits)
    if config.protects_rows:
        check_row_privacy(config.strategy, config, client)
    if config.protects_clients:
        check_private_method(config.strategy, strategy.traits)
        check_private_turnout(
            config,
            has_windows=machines is not None and has_windows(participants, machines),
            has_fixed_lengths=all(has_fixed_length(wire) for wire in (config.wire, config.download_wire)),
            has_related_noise=config.has_related_noise,
        )
    sums = None
    if config.secure_sum:
        sums = sum_spec(config, strategy, federation, participants, cohort_size, roster.sizes)
    if sums is not None and config.secure_sum_skellam:
        rounds, clients = config.num_rounds, len(participants)
        shared = skellam_guarantee(config, num_rounds=rounds, num_clients=clients, spec=sums)
        guarantee: Guarantee | None = shared
        sums = sized(sums, shared)
    else:
        guarantee = run_guarantee(
            config,
            num_rounds=config.num_rounds,
            num_clients=len(participants),
            cohort_size=cohort_size,
            is_sampled=config.participation == "synchronous",
            rows_are_public=_rows_decide(config),
        )
    if guarantee is not None and guarantee.related is not None:
        check_enough_clients(
            guarantee.related.rule,
            num_clients=len(participants),
            wanted=turnout.wanted,
            asked=turnout.asked,
            num_rounds=config.num_rounds,
        )
    may_attack = participants
    if config.attack is not None and config.robust_root is not None:  # no draw makes an attacker of the root
        may_attack = [client_id for client_id in participants if client_id != config.robust_root]
    attackers = attackers_of(config, may_attack, machines, seed=config.seed)
    check_attackers(
        attackers,
        config.strategy,
        strategy.traits,
        others={
            "participation buffered": config.is_asynchronous,
            "error_feedback ef21": config.error_feedback == "ef21",
            "secure_sum": config.secure_sum and any(attack not in OF_ROWS for attack in attackers.values()),
        },
    )
    check_root(
        config,
        participants,
        cohort_size=turnout.wanted,
        is_synchronous=config.participation == "synchronous",
        attackers=attackers,
    )
    check_robust_method(
        config,
        config.strategy,
        strategy.traits,
        cohort_size=turnout.wanted,
        others={
            "dp_clip": config.protects_clients,
            "error_feedback ef21": config.error_feedback == "ef21",
            "participation buffered": config.participation == "buffered",
            "late apply": config.late == "apply",
            "client_ranks": bool(federation.ranks),
            "client_layers": bool(federation.layers),
            "uniform_weights False": config.get("uniform_weights") is False,
        },
    )
    check_processes(config.num_processes, turnout.asked, model_is_named=model_is_named)
    check_tracker(config.report_to)
    check_wire_method(config, strategy.traits, config.strategy)
    check_wire_rounds(config, config)
    if not strategy.traits.takes_gradients:
        _check_no_optimizer(config.strategy, client)
    if config.eval_every is not None:
        check_scored_run(
            strategy.traits.title, has_own=strategy.traits.personal and config.get("local_client") is None
        )
    work = local_work(
        config, client, num_rounds=config.num_rounds, cohort_size=cohort_size, num_clients=len(participants)
    )
    row_guarantee = None
    if config.protects_rows and not getattr(client, "stands_for_any", False):
        row_guarantee = run_row_guarantee(
            config,
            work,
            {client_id: roster.sizes[client_id] for client_id in participants},
            num_rounds=config.num_rounds,
            fits_per_visit=getattr(strategy, "fits_per_visit", 1),
            final_steps=(config.get("personal_steps") or 0) if strategy.traits.personal else 0,
        )
    lowest = config.min_learning_rate
    return RunPlan(
        config=config,
        roster=roster,
        strategy=strategy,
        federation=federation,
        participants=participants,
        cohort_size=cohort_size,
        turnout=turnout,
        machines=machines,
        attackers=attackers,
        guarantee=guarantee,
        sums=sums,
        row_guarantee=row_guarantee,
        work=work,
        learning_rate=client.learning_rate,
        min_learning_rate=client.learning_rate / 20 if lowest is None else lowest,
    )


def make_strategy(
    config: FederatedConfig, roster: Roster, fit: MemoryFit | None = None
) -> tuple[Strategy, Federation]:
    """Return the method that a config names, for the clients of a run, and what it knows of them.

    Args:
        config: the settings of the federation.
        roster: the training clients.
        fit: what training needs of a client's memory, as in `prepare`.

    Raises:
        ConfigError: if the method cannot do what is asked of it.
    """
    chosen = strategy_class(config.strategy)
    if config.full_finetuning and chosen.traits.needs_lora:
        others = [name for name, other in STRATEGIES.items() if not other.traits.needs_lora]
        raise ConfigError(
            f"strategy {config.strategy!r} works on LoRA factors, and with full_finetuning there are none; leave it "
            f"out, or use {', '.join(others)}"
        )
    eligible = eligible_clients(config, roster.ids)
    federation = Federation(
        settings=config.method,
        seed=config.seed,
        num_clients=len(roster),
        cohort_size=len(roster) if config.cohort_rule == "all" else config.updates_per_step,
        has_fixed_steps=config.has_fixed_steps,
        is_private=config.dp_clip is not None,
        is_asynchronous=config.is_asynchronous,
        ranks=_ranks(config, roster, eligible, fit),
        layers=_layers(config, roster, eligible, fit),
        eligible=eligible,
        sizes=roster.sizes,
        languages=roster.languages if chosen.traits.needs_languages else {},
    )
    return with_last_layers(chosen(federation), federation), federation


def _rows_decide(config: FederatedConfig) -> bool:
    """Whether clients' numbers of rows decide who takes part: by the cohort rule, or by how long a visit takes."""
    sampled = config.participation == "synchronous" and not config.has_related_noise
    return not sampled and (config.cohort_rule == "weighted" or not config.has_fixed_steps)


_OF_THE_OPTIMIZER = (
    *("optim", "optim_args", "optim_target_modules", "weight_decay", "max_grad_norm"),
    *("adam_beta1", "adam_beta2", "adam_epsilon"),
)


def _check_no_optimizer(strategy: str, client: ClientSettings) -> None:
    """Refuse settings of TRL's optimizer for a method that makes no gradient step."""
    defaults = getattr(type(client), "__dataclass_fields__", {})
    for name in _OF_THE_OPTIMIZER:
        if name in defaults and (value := getattr(client, name)) != defaults[name].default:
            raise ConfigError(
                f"{name}={value} is given, but clients of strategy {strategy!r} make no gradient step; leave it out"
            )


def _machines(
    config: FederatedConfig, roster: Roster, strategy: Strategy, participants: Sequence[str]
) -> ClientTable | None:
    """The clients' machines, for the simulated clock."""
    if config.client_table is None:
        return None
    if POOLED in participants:
        raise ConfigError(
            f"client_table is given, but strategy {config.strategy!r} trains on the rows of all clients together, in "
            "one place; leave it out"
        )
    table = roster.table if config.client_table == "columns" else None
    machines = client_table(config.client_table, participants, table, seed=config.seed)
    check_machines(participants, machines)
    return machines


def _ranks(
    config: FederatedConfig, roster: Roster, eligible: Sequence[str], fit: MemoryFit | None
) -> Mapping[str, int]:
    """The clients' ranks, dealt out among those who can take part."""
    rule = config.get("client_ranks")
    if rule is None:
        return {}
    taking_part = roster.sizes
    if eligible is not roster.ids and len(eligible):
        taking_part = {client_id: roster.sizes[client_id] for client_id in eligible}
    memory = _memory(config, roster, eligible or roster.ids, fit) if rule.startswith("memory") else None
    return client_ranks(rule, taking_part, roster.table, seed=config.seed, memory=memory)


def _layers(
    config: FederatedConfig, roster: Roster, eligible: Sequence[str], fit: MemoryFit | None
) -> Mapping[str, int]:
    """How many of the last layers each of those trains who can take part."""
    rule = config.get("client_layers")
    if rule is None:
        return {}
    if config.protects_clients:
        raise ConfigError(
            "client_layers is given with dp_clip: a private mean is over all clients alike, and some would leave "
            "layers out; drop one"
        )
    if config.full_finetuning:
        raise ConfigError("client_layers chooses layers of an adapter, and full_finetuning trains none; drop one")
    ids = list(eligible or roster)
    memory = _memory(config, roster, ids, fit) if rule == "memory" else None
    return client_layers(rule, ids, roster.table if rule.startswith("column:") else None, memory)


def _memory(
    config: FederatedConfig, roster: Roster, eligible: Sequence[str], fit: MemoryFit | None
) -> ClientMemory | None:
    """The clients' memories by the client table; None while nobody knows what training needs."""
    if config.client_table is None:
        setting = "client_ranks" if config.get("client_layers") is None else "client_layers"
        raise ConfigError(f"{setting} goes by the clients' memory, and there is no client_table; give one")
    if fit is None:
        return None
    table = roster.table if config.client_table == "columns" else None
    machines = client_table(config.client_table, eligible, table, seed=config.seed)
    return ClientMemory(memory_gb=lambda client_id: machines.machine(client_id).memory_gb, fit=fit)
