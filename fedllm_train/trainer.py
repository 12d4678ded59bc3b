"""`FederatedTrainer`: federated SFT, DPO and KTO with the face of a TRL trainer.

Puts the parts together once (policy, resident trainer, engine, strategy, run folder) and then runs `rounds.py`. The
task follows from the settings: `SFTConfig` trains on an `sft` dataset, `DPOConfig` and `KTOConfig` on a `preference`
dataset.
"""

import gc
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.training_template import trains_end_of_turn
from fedllm_train.adapters.arithmetic import LiveAdapter, Parts
from fedllm_train.adapters.base_shift import check_shiftable, shifted
from fedllm_train.client_inputs import ClientInput
from fedllm_train.clients.adapter_checks import check_adapter, check_tokenizer
from fedllm_train.clients.client_memory import ClientMemory
from fedllm_train.clients.local_work import work_of_run
from fedllm_train.clients.objectives import ClientArgs, objective_of
from fedllm_train.clients.resident import ResidentTrainer
from fedllm_train.clients.resident_args import resident_args
from fedllm_train.clients.sft_kernel import chosen_kernel
from fedllm_train.clients.tokens import POOLED, TokenCache, encoder_for
from fedllm_train.clients.unrendered import UnrenderedRows, find_unrendered, write_unrendered
from fedllm_train.cohort import cohort_pool
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Engine, InProcessEngine
from fedllm_train.engines.process_engine import check_processes, trainer_processes
from fedllm_train.inputs import asks_to_resume, check_options, read_inputs
from fedllm_train.messages.compression import Upload, check_upload
from fedllm_train.models.policy import load_starting_policy
from fedllm_train.models.tokenizer import prepared_tokenizer
from fedllm_train.monitoring.evaluation import score_finished_run
from fedllm_train.monitoring.held_out import HeldOut, held_out_clients, load_best
from fedllm_train.monitoring.trackers import check_tracker, tracked
from fedllm_train.privacy.accounting import run_guarantee
from fedllm_train.privacy.beginning import begin_privacy
from fedllm_train.privacy.mechanism import ClientPrivacy, check_private_method
from fedllm_train.rounds import Record, RunPlan, run_rounds
from fedllm_train.run_files.card import write_run_card
from fedllm_train.run_files.checkpoint import RunState
from fedllm_train.run_files.earlier import earlier_record, warn_of_earlier
from fedllm_train.run_files.files import write_folder
from fedllm_train.run_files.finished import (
    copy_finished,
    finished_folder,
    save_client_folder,
    save_held_folder,
    save_server_folder,
)
from fedllm_train.run_files.personal import make_personal_adapters
from fedllm_train.run_files.resolved import resolved_settings
from fedllm_train.run_files.resume import empty_spool, first_state
from fedllm_train.run_files.run_folder import check_run_folder, open_run_folder
from fedllm_train.run_files.run_lock import locked
from fedllm_train.run_files.template_day import fix_template_day, template_day
from fedllm_train.strategies import make_strategy

if TYPE_CHECKING:
    from fedllm_data.hub.push import PushResult
    from fedllm_eval.results import Results

__all__ = ["FederatedTrainer"]

logger = logging.getLogger(__name__)


class FederatedTrainer:
    """Trains one adapter on the clients of a dataset without pooling their rows."""

    def __init__(
        self,
        model: str | Path | PreTrainedModel | PeftModel | None = None,
        args: FederatedConfig | None = None,
        clients: ClientInput | None = None,
        client_args: ClientArgs | None = None,
        peft_config: PeftConfig | None = None,
        *,
        adapter: str | Path | None = None,
        tokenizer: Any = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        quantization: Any = None,
        eval_dataset: ClientInput | None = None,
        callbacks: Sequence[Callable[[Record], None]] = (),
        **of_trl: Any,
    ) -> None:
        """Check every setting and load the model; nothing is trained or written yet.

        Args:
            model: folder, Hub id or loaded model; of a `PeftModel` its adapter is trained.
            args: settings of the federation.
            clients: the training clients, from `load_clients`; or a dict of datasets by client id, a `Dataset` with a
                `client_id` column, or what `load_clients` would be given.
            client_args: TRL's settings for a client's training; TRL's defaults for the dataset's task if not given.
            peft_config: the adapter's settings; LoRA of rank 8 on all linear layers if not given.
            adapter: run folder, PEFT folder or Hub id of an adapter to start from; DPO's reference is then the base
                with this adapter.
            tokenizer: by default the one beside the model.
            revision: of the base model on the Hub.
            trust_remote_code: run code that comes with the model.
            quantization: a `BitsAndBytesConfig` to load the base model with.
            eval_dataset: held-out rows scored during the run, with `eval_every`; by default the training clients' own
                `eval_split`.
            callbacks: functions called with each round's record once it is on disk.
            of_trl: TRL's names for the same: `train_dataset` for clients, `processing_class` for tokenizer,
                `quantization_config` for quantization.

        Raises:
            ConfigError: for a setting that cannot be honoured.
        """
        given = {"model": model, "args": args, "clients": clients, "client_args": client_args}
        given |= {"peft_config": peft_config, "adapter": adapter, "tokenizer": tokenizer, "revision": revision}
        given |= {"trust_remote_code": trust_remote_code, "quantization": quantization}
        inputs = read_inputs(given | {"eval_dataset": eval_dataset, "callbacks": callbacks} | of_trl)
        args, clients, client_args, base = inputs.args, inputs.clients, inputs.client_args, inputs.base
        self._strategy = make_strategy(args, clients)
        self.args = args
        self.clients = clients
        self.task = objective_of(client_args).name
        self.run = Path(args.output_dir)
        self._callbacks = inputs.callbacks
        self._memory = ClientMemory(self.run / "client_memory")
        # One named client, or the pool of all, is a cohort of one whatever is asked for.
        alone = self._strategy.traits.family == "baseline"
        trained = self._strategy.participants(list(clients))
        self._participants, self._cohort_size = cohort_pool(args, trained, alone=alone)
        if args.dp_clip is not None:
            check_private_method(args.strategy, self._strategy.traits)
        self.guarantee = run_guarantee(args, num_clients=len(self._participants), cohort_size=self._cohort_size)
        """What a run with differential privacy guarantees; None for others."""
        self._privacy: ClientPrivacy | None = None
        check_processes(args, inputs.model, self._cohort_size)
        check_tracker(args.report_to)
        scored = None
        if args.eval_every:
            scored = held_out_clients(args, clients, inputs.eval_dataset, self._strategy.traits)
        trl_args = resident_args(client_args, local_steps=args.local_steps, workspace=str(self.run / ".work"))
        self._work = work_of_run(args, trl_args, cohort_size=self._cohort_size, num_clients=len(self._participants))
        self._kernel = chosen_kernel(args.sft_kernel, trl_args)
        self._learning_rate = client_args.learning_rate
        self._min_learning_rate = (
            args.min_learning_rate if args.min_learning_rate is not None else client_args.learning_rate / 20
        )
        self._policy = load_starting_policy(
            inputs.model,
            tokenizer=inputs.tokenizer,
            peft_config=inputs.peft_config,
            adapter=inputs.adapter,
            revision=base.revision,
            trust_remote_code=base.trust_remote_code,
            full_finetuning=args.full_finetuning,
            quantization=base.quantization,
            init_kwargs=base.init_kwargs,
            seed=args.seed,
        )
        self._policy = replace(self._policy, tokenizer=prepared_tokenizer(self._policy.tokenizer, client_args))
        check_adapter(client_args, self._policy.model)
        check_tokenizer(client_args, self._policy.tokenizer)
        self.start_adapter = LiveAdapter(self._policy.model).read()
        self._start_state = self._strategy.start(self.start_adapter)
        if self._strategy.traits.shifts_base:
            check_shiftable(self._policy.model, args.strategy)
        check_upload(args, self._strategy, self._start_state, self._participants[0])
        self._upload = Upload(args)
        self._held_shift = ExitStack()
        self._scored = scored
        self._held_out = scored and HeldOut(
            args, scored, self._policy, trl_args, start=self._start_state, save=self._save_server, run=self.run
        )
        # What another process makes the same trainer of.
        self._given = {"model": inputs.model, "args": args, "clients": clients, "client_args": client_args}
        self._given |= {"peft_config": inputs.peft_config, "adapter": inputs.adapter, "tokenizer": inputs.tokenizer}
        self._given |= {"revision": base.revision, "trust_remote_code": base.trust_remote_code}
        self._given |= {"quantization": base.quantization}
        self._trl_args = trl_args
        self._resident: ResidentTrainer | None = None
        self.state: RunState | None = None
        self.unrendered: UnrenderedRows | None = None
        """Rows that the chat template cannot render, once training has begun."""

    @cached_property
    def _earlier(self) -> dict[str, Any] | None:
        return earlier_record(self._given["adapter"], self._given["model"])

    @property
    def model(self) -> Any:
        """The resident model, with the newest global adapter once training is done."""
        return self._policy.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._policy.tokenizer

    def train(self, resume_from_checkpoint: bool | str | Path | None = None, *, resume: bool = False) -> RunState:
        """Run all rounds, or those that are left, and write the finished adapter.

        Args:
            resume_from_checkpoint: TRL's name for `resume`; a path must lie in the run folder.
            resume: go on from the newest checkpoint in the run folder; start afresh where there is none.

        Returns:
            The state after the last round: the global adapter and the ledger. With `load_best` the adapter is the
            best one.

        Raises:
            ConfigError: if the run folder holds another run and `resume` is off.
            ResumeError: if the run in the folder was begun with other settings, cannot be read, or is being trained
                by another process.
            WorkerError: if one of several processes dies or fails; the run can be resumed.
        """
        resume = asks_to_resume(resume_from_checkpoint, run=self.run, resume=resume)
        check_run_folder(self.run, resume=resume)
        self.unrendered = self._check_rows()
        with locked(self.run):
            return self._train(resume=resume)

    def _check_rows(self) -> UnrenderedRows:
        """Find the rows that the chat template cannot render, and whether those it can end the assistant's turn."""
        everybody = POOLED in self._participants or len(self._participants) == len(self.clients)
        trained = self.clients if everybody else self.clients.select(self._participants)
        encode = encoder_for(self._trl_args, self.tokenizer, loss_on=self.args.loss_on)
        unrendered = find_unrendered(trained, encode)
        if self._scored is not None:
            find_unrendered(self._scored, encode)  # none of them left would end the run when they are first scored
        if unrendered.num_unrendered:
            logger.warning("%s", unrendered.line())
        if not trains_end_of_turn(self.tokenizer, marked=self.task == "sft" and self.args.loss_on == "assistant"):
            logger.warning(
                "the chat template of %r ends the assistant's turns with no token that the loss sees, so the model is "
                "not taught to stop; use a template that writes an end-of-turn token behind each answer",
                self.tokenizer.name_or_path,
            )
        return unrendered

    def _train(self, *, resume: bool) -> RunState:
        open_run_folder(self.run, self.config_record(), resume=resume)
        fix_template_day(self.tokenizer, self.run)
        write_unrendered(self.run, self.unrendered)
        self._held_shift.close()
        if not self._policy.is_base and not (self.run / "start_adapter").exists():
            write_folder(self.run / "start_adapter", partial(save_held_folder, self.model))
        warn_of_earlier(self.clients, self._earlier)
        made_rounds = (self.run / "rounds.jsonl").exists()
        state = first_state(self.run, self._start_state)
        self._privacy = begin_privacy(
            self.run,
            self.guarantee,
            self._strategy,
            self._start_state,
            self._participants,
            next_round=state.next_round,
            lost_rounds=made_rounds and state.next_round == 0,
        )
        tracker = tracked(self.args.report_to, self.run, self.config_record(), first_round=state.next_round)
        with self._engine() as engine, tracker as track:
            self.state = self._run_rounds(engine, state, [track, *self._callbacks])
        self._finish(self.state)
        return self.state

    def _run_rounds(self, engine: Engine, state: RunState, callbacks: Sequence[Callable[[Record], None]]) -> RunState:
        plan = RunPlan(
            config=self.args,
            client_ids=self._participants,
            cohort_size=self._cohort_size,
            strategy=self._strategy,
            engine=engine,
            learning_rate=self._learning_rate,
            min_learning_rate=self._min_learning_rate,
            run=self.run,
            spool=empty_spool(self.run),
            memory=self._memory,
            sizes=self.clients.sizes,
            upload=self._upload,
            privacy=self._privacy,
            held_out=self._held_out,
        )
        # accelerate collects garbage at every visit; what is alive now (models, libraries) need not be walked then.
        gc.collect()
        gc.freeze()
        try:
            state = run_rounds(plan, state, callbacks)
            if self.args.load_best:
                state = replace(state, server=load_best(self.run))
            if self._strategy.traits.personal:
                make_personal_adapters(plan, state, partial(save_client_folder, self.model, tokenizer=self.tokenizer))
        finally:
            gc.unfreeze()
        return state

    def evaluate(self, **options: Any) -> "Results":
        """Score the finished run per client on the held-out splits of the dataset it was trained on.

        Args:
            options: `settings`, `others`, `beside` and `progress` as in `fedllm_eval.run.score_run`, such as
                `settings=fedllm_eval.ScoreSettings(max_clients=50)`.

        Returns:
            The results; they are also in the run folder's `scores/`, and its card shows them.

        Raises:
            ConfigError: if the clients come from no client repo, or the run is not finished.
        """
        return score_finished_run(self.run, self.clients, **options)

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write the finished adapter, or model, with its tokenizer into a folder of its own.

        Args:
            output_dir: a folder that does not exist or is empty; the run folder, or nothing, stands for the place
                where `train` has put it already.

        Returns:
            Where it lies.

        Raises:
            ConfigError: if the run is not finished, or the folder holds something.
        """
        made = self.run / finished_folder(self.model)
        if self.state is None or not made.is_dir():
            raise ConfigError(f"{self.run} is not finished, so there is nothing to save; call train() first")
        return copy_finished(made, self.run if output_dir is None else Path(output_dir), self.tokenizer)

    def push_to_hub(self, repo_id: str | None = None, **options: Any) -> "PushResult":
        """Publish the finished run as a model repo in one commit; options as in `run_files.publish.publish_run`.

        Raises:
            ConfigError: if no repo is named, or for an option that there is not.
        """
        from fedllm_train.run_files.publish import publish_run

        if repo_id is None:
            raise ConfigError("push_to_hub needs the name of a repo; pass push_to_hub('org/name')")
        check_options("push_to_hub", publish_run, options)
        return publish_run(self.run, repo_id, **options)

    def config_record(self) -> dict[str, Any]:
        """Return the resolved settings as they stand in `config.yaml`."""
        record = resolved_settings(
            self.args,
            self._trl_args,
            self._policy,
            self.clients,
            self.start_adapter,
            learning_rate=self._learning_rate,
            min_learning_rate=self._min_learning_rate,
            cohort_size=self._cohort_size,
        )
        record |= {"earlier": self._earlier, **template_day(self.tokenizer)}
        return record if self.guarantee is None else record | {"privacy": self.guarantee.as_record()}

    def _resident_trainer(self) -> ResidentTrainer:
        if self._resident is None:
            fix_template_day(self.tokenizer, self.run)  # in a process of several, too
            folder = self.run / ".work" / "tokens"
            tokens = TokenCache(
                self.clients, self._trl_args, self._policy.tokenizer, folder, loss_on=self.args.loss_on
            )
            self._resident = ResidentTrainer(
                self._policy.model,
                self._policy.tokenizer,
                self._trl_args,
                tokens,
                self._strategy,
                self._memory,
                upload=self._upload,
                work=self._work,
                starts_from_base=self._policy.is_base,
                reference_folder=folder if self.args.reference_cache else None,
                kernel=self._kernel,
            )
        return self._resident

    def _engine(self) -> AbstractContextManager[Engine]:
        """Where clients run: on the resident trainer, or on those of several processes."""
        if self.args.num_processes == 1:
            return nullcontext(InProcessEngine(self._resident_trainer().train_client))
        return trainer_processes(**self._given)

    def _save_server(self, server: Parts, folder: Path) -> None:
        shifts = self._strategy.traits.shifts_base
        save_server_folder(self.model, server, folder, shifts_base=shifts, tokenizer=self.tokenizer)

    def _finish(self, state: RunState) -> None:
        write_folder(self.run / finished_folder(self.model), partial(self._save_server, state.server))
        if self._strategy.traits.shifts_base:
            self._held_shift.enter_context(shifted(self.model, state.server.get("base_shift")))
        write_run_card(self.run)
        shutil.rmtree(self.run / ".work")
