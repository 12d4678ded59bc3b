"""A run whose model is loaded: what training, hosts and records are made from."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import WORK
from fedllm_eval.policy.run_records import RunConfig
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.shifted_model import check_shiftable
from fedllm_train.aggregation.private import ClientPrivacy
from fedllm_train.aggregation.robust import RobustMemory
from fedllm_train.attacks.attackers import check_attacked_rows
from fedllm_train.attacks.row_attacks import with_bad_rows
from fedllm_train.clients.adapter_checks import check_adapter, check_tokenizer
from fedllm_train.clients.host import ClientHost
from fedllm_train.clients.objectives import objective_of
from fedllm_train.clients.resident_args import resident_args
from fedllm_train.clients.run_spec import RunSpec, policy_digests
from fedllm_train.clients.sft_kernel import chosen_kernel
from fedllm_train.engines.engine import Engine, InProcessEngine
from fedllm_train.engines.process_engine import host_processes
from fedllm_train.engines.remote.connect import remote_engine
from fedllm_train.engines.remote.remote_engine import RemoteEngine
from fedllm_train.engines.remote.seats import RemoteOptions
from fedllm_train.engines.remote.site_checks import check_at_sites
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.engines.simulated import SimulatedEngine
from fedllm_train.inputs import TrainerInputs
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_checks import check_wire_parts, check_wire_size
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.models.model_shape import shape_of_model
from fedllm_train.models.policy import PolicySource, StartingPolicy, load_starting_policy
from fedllm_train.models.tokenizer import prepared_tokenizer
from fedllm_train.monitoring.held_out import HeldOut, held_out_clients
from fedllm_train.monitoring.ledger import LedgerKeeper
from fedllm_train.monitoring.observer import Callback, Observer, Record
from fedllm_train.monitoring.row_privacy_log import RowPrivacyLog
from fedllm_train.monitoring.site_scores import SiteHeldOut
from fedllm_train.monitoring.step_size import AggregationError, StepSize
from fedllm_train.monitoring.visits import VisitLog
from fedllm_train.monitoring.wire_log import WireLog
from fedllm_train.participation.secure_cohort import SecureCohort
from fedllm_train.participation.synchronous import SynchronousCohort
from fedllm_train.participation.turnout import make_participation
from fedllm_train.prepare import RunPlan
from fedllm_train.privacy.beginning import check_related_parts, num_values_sent
from fedllm_train.privacy.clipping_note import norm_growth
from fedllm_train.privacy.secure_sum.round_sums import RoundSums
from fedllm_train.round_plan import RoundPlan
from fedllm_train.run_aggregation import aggregation_of_run
from fedllm_train.run_clock import run_clock
from fedllm_train.run_files.checkpoint import RunState
from fedllm_train.run_files.earlier import earlier_record
from fedllm_train.run_files.finished import save_server_folder
from fedllm_train.run_files.machines_record import machines_record
from fedllm_train.run_files.resolved import resolved_settings
from fedllm_train.run_files.resume import empty_spool
from fedllm_train.run_files.template_day import fix_template_day, template_day
from fedllm_train.settings import part_of

__all__ = ["EngineMaker", "LoadedRun", "load_run"]

EngineMaker = Callable[[RunSpec, Callable[[], ClientHost]], AbstractContextManager[Engine]]
"""From a run's spec and what makes a host of the clients here to an engine, for as long as the rounds go."""


@dataclass(kw_only=True)
class LoadedRun:
    """A run that can be trained."""

    plan: RunPlan
    clients: ClientDataset | SiteClients
    """The training clients."""
    scored: ClientDataset | None
    """Held-out clients that are scored during the run, here; None where nobody is, or the sites do."""
    client_args: Any
    """TRL's settings, as they were given."""
    trl_args: Any
    """The same for a trainer that stays (`clients/resident_args.py`)."""
    kernel: str
    start: PolicySource = field(repr=False)
    """What the policy was loaded from, as `load_starting_policy` takes it."""
    policy: StartingPolicy
    start_adapter: Adapter = field(repr=False)
    start_state: Parts = field(repr=False)
    """The server's state before round 0."""
    make_engine: EngineMaker | None = None
    at_sites: RemoteOptions = field(default_factory=RemoteOptions)
    """How to deal with sites, where the clients are at some."""
    remote: RemoteEngine | None = field(default=None, init=False)
    """The engine to the sites, once it is made."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.plan.config.output_dir)

    @property
    def model(self) -> Any:
        """The model that trains in this process."""
        return self.policy.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.policy.tokenizer

    @cached_property
    def earlier(self) -> dict[str, Any] | None:
        """What the run's start was trained on."""
        return earlier_record(self.start.adapter, self.start.model)

    @cached_property
    def host(self) -> ClientHost:
        """The host of the clients in this process, on this model."""
        if isinstance(self.clients, SiteClients):
            raise ConfigError("the clients are at sites, and no host of theirs is here")
        return ClientHost(self.spec(), self.clients, self.folder, self.policy)

    @cached_property
    def held_out(self) -> HeldOut | None:
        """What scores the global adapter during the run."""
        if isinstance(self.clients, SiteClients) and self.plan.config.eval_every:
            assert self.remote is not None
            return SiteHeldOut(
                self.plan.config,
                self.clients,
                self.remote,
                start=self.start_state,
                save=self.save_server,
                run=self.folder,
            )
        if self.scored is None:
            return None
        return HeldOut(
            self.plan.config,
            self.scored,
            self.policy,
            self.trl_args,
            start=self.start_state,
            save=self.save_server,
            run=self.folder,
        )

    def spec(self) -> RunSpec:
        """Return what a client's machine must know about the run."""
        config = self.plan.config
        return RunSpec(
            strategy=config.strategy,
            federation=self.plan.federation.for_hosts(),
            seed=config.seed,
            wire=part_of(WireSettings, config),
            client_args=self.client_args,
            work=self.plan.work,
            loss_on=config.loss_on,
            reference_cache=config.reference_cache,
            kernel=self.kernel,
            policy=self.start,
            template_date=fix_template_day(self.tokenizer, self.folder),
            sums=self.plan.sums,
            digests=policy_digests(self.policy, self.start_adapter),
            rows=None if self.plan.row_guarantee is None else self.plan.row_guarantee.privacy,
        )

    def engine(self, run_key: str) -> AbstractContextManager[Engine]:
        """Return the engine: in this process, in several, at sites, or the caller's own.

        Args:
            run_key: under which hosts keep what they keep.
        """
        num_processes = self.plan.config.num_processes
        if isinstance(self.clients, SiteClients):
            self.remote = remote_engine(
                self.clients,
                self.spec(),
                self.plan.participants,
                run=run_key,
                num_rounds=self.plan.config.num_rounds,
                guarantee=self.plan.guarantee or self.plan.row_guarantee,
                options=self.at_sites,
            )
            return self.remote
        if self.make_engine is not None:
            return self.make_engine(self.spec(), lambda: self.host)
        if num_processes == 1:
            return nullcontext(InProcessEngine(self.host))
        return host_processes(self.spec(), self.clients, self.folder, num_processes=num_processes)

    def config_record(self) -> RunConfig:
        """Return the resolved settings as `config.yaml` holds them."""
        record = resolved_settings(self.plan, self.trl_args, self.policy, self.clients, self.start_adapter)
        record |= {"earlier": self.earlier, **template_day(self.tokenizer)}
        if self.plan.machines is not None:
            record["machines"] = machines_record(self.plan.machines, shape_of_model(self.model))
        guarantee = self.plan.guarantee
        if self.plan.row_guarantee is not None:
            return record | {"privacy": self.plan.row_guarantee.as_record()}
        if guarantee is None:
            return record
        growth = norm_growth(self.plan.config.wire)
        grown = {"norm_growth": growth} if growth > 1 else {}
        return record | {"privacy": {**guarantee.as_record(), **grown}}

    def save_server(self, server: Parts, folder: Path) -> None:
        """Write what a server's state learned into an empty folder."""
        shifts = self.plan.strategy.traits.shifts_base
        save_server_folder(self.model, server, folder, shifts_base=shifts, tokenizer=self.tokenizer)

    def round_plan(
        self,
        engine: Engine,
        state: RunState,
        privacy: ClientPrivacy | None,
        callbacks: Sequence[Callable[[Record], None]],
    ) -> RoundPlan:
        """Return the plan of the rounds that are left.

        Args:
            engine: where clients are visited.
            state: the state that the rounds go on from.
            privacy: clip, noise and secret of a private run; None for others.
            callbacks: called with each round's record once it is on disk; or observers.
        """
        plan, config, strategy = self.plan, self.plan.config, self.plan.strategy
        travels, error = strategy.traits.travels, AggregationError(strategy)
        first = partial(strategy.first_download, self.start_adapter)
        wire = ServerWire(config, seed=config.seed, first=first, state=state.wire)
        spool = empty_spool(self.folder)
        if plan.machines is not None:
            seats = config.num_processes
            clock = run_clock(plan, self.model, self.client_args, self.start_adapter, self.start_state)
            engine = SimulatedEngine(engine, clock, now=state.clock, num_seats=seats, spool=spool)
        sums = None if plan.sums is None else RoundSums(plan.sums, state.run_key, self.folder)
        ledger = LedgerKeeper(state.ledger, travels=travels)
        memory = RobustMemory(state.robust)
        secret = None if privacy is None else privacy.cohort_seed
        observers: list[Observer] = [
            VisitLog(losses_are_summed=sums is not None),
            WireLog(config, travels=travels),
            StepSize(),
            error,
        ]
        observers += [] if plan.row_guarantee is None else [RowPrivacyLog(plan.row_guarantee)]
        observers += [] if self.held_out is None else [self.held_out]
        participation = make_participation(
            config,
            plan.turnout,
            plan.participants,
            seed=config.seed if secret is None else secret,
            sizes=plan.roster.sizes,
            spool=spool,
            turns=None if privacy is None else privacy.memory.turns,
            always=config.robust_root,
        )
        if sums is not None and isinstance(participation, SynchronousCohort):
            participation = SecureCohort(
                clients=participation, sums=sums, run_key=state.run_key, charge=ledger.exchanged
            )
        return RoundPlan(
            run=self.folder,
            run_key=state.run_key,
            seed=config.seed,
            num_rounds=config.num_rounds,
            learning_rate=plan.learning_rate,
            min_learning_rate=plan.min_learning_rate,
            keep_checkpoints=config.keep_checkpoints,
            keep_every=config.keep_every,
            strategy=strategy,
            wire=wire,
            engine=engine,
            participation=participation,
            robust=memory,
            aggregate=aggregation_of_run(
                plan, wire, self.start_adapter, error, privacy=privacy, sums=sums, memory=memory
            ),
            ledger=ledger,
            privacy_memory=dict if privacy is None else privacy.memory.as_record,
            observers=[*observers, *(each if isinstance(each, Observer) else Callback(each) for each in callbacks)],
        )


def load_run(
    plan: RunPlan,
    inputs: TrainerInputs,
    *,
    make_engine: EngineMaker | None = None,
    at_sites: RemoteOptions | None = None,
) -> LoadedRun:
    """Load the model of a run; nothing is trained or written yet.

    Args:
        plan: the run's plan.
        inputs: what the trainer was called with.
        make_engine: makes the engine that visits clients; by default `num_processes` decides.
        at_sites: how to deal with sites, where the clients are at some.

    Raises:
        ConfigError: if something cannot be loaded, or the method cannot work on the adapter.
    """
    config, base, client_args = plan.config, inputs.base, inputs.client_args
    scored = None
    at_hand = not isinstance(inputs.clients, SiteClients)
    check_attacked_rows(plan.attackers, inputs.clients.task if at_hand else None)
    if isinstance(inputs.clients, SiteClients):
        check_at_sites(inputs, config)
    elif config.eval_every:
        scored = held_out_clients(config, inputs.clients, inputs.eval_dataset)
    workspace = str(Path(config.output_dir) / WORK)
    trl_args = resident_args(client_args, local_steps=config.local_steps, workspace=workspace)
    is_sft = objective_of(client_args).name == "sft"
    kernel = chosen_kernel(config.sft_kernel if is_sft else config.preference_kernel, trl_args)
    start = PolicySource(
        model=inputs.model,
        tokenizer=inputs.tokenizer,
        peft_config=inputs.peft_config,
        adapter=inputs.adapter,
        revision=base.revision,
        trust_remote_code=base.trust_remote_code,
        full_finetuning=config.full_finetuning,
        quantization=base.quantization,
        init_kwargs=base.init_kwargs,
        seed=config.seed,
    )
    policy = load_starting_policy(start)
    policy = replace(policy, tokenizer=prepared_tokenizer(policy.tokenizer, client_args))
    check_adapter(client_args, policy.model)
    check_tokenizer(client_args, policy.tokenizer)
    start_adapter = LiveAdapter(policy.model).read()
    start_state = plan.strategy.start(start_adapter)
    if plan.strategy.traits.shifts_base:
        check_shiftable(policy.model, config.strategy)
    check_wire_parts(config, plan.strategy, start_state, plan.participants[0])
    check_related_parts(plan.guarantee, plan.strategy, start_state, plan.participants[0])
    check_wire_size(config, num_values_sent(plan.strategy, start_state, plan.participants[0]))
    return LoadedRun(
        plan=plan,
        clients=with_bad_rows(inputs.clients, plan.attackers, config) if at_hand else inputs.clients,
        scored=scored,
        client_args=client_args,
        trl_args=trl_args,
        kernel=kernel,
        start=start,
        policy=policy,
        start_adapter=start_adapter,
        start_state=start_state,
        make_engine=make_engine,
        at_sites=at_sites or RemoteOptions(),
    )
