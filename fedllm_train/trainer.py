"""`FederatedTrainer`: federated SFT, DPO and KTO with the face of a TRL trainer.

Settings and clients become a plan (`prepare.py`), the plan and the model a run (`loaded_run.py`), which is trained
(`training.py`) by `rounds.py`. The task follows from the settings: `SFTConfig` trains on an `sft` dataset, `DPOConfig`
and `KTOConfig` on a `preference` dataset.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from fedllm_data.errors import ConfigError
from fedllm_data.roster import roster_of
from fedllm_train.adapters.shifted_model import shifted
from fedllm_train.client_inputs import ClientInput
from fedllm_train.clients.objectives import ClientArgs, objective_of
from fedllm_train.clients.unrendered import UnrenderedRows
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.remote.seats import RemoteOptions
from fedllm_train.inputs import asks_to_resume, check_options, fit_of, read_inputs
from fedllm_train.loaded_run import EngineMaker, load_run
from fedllm_train.monitoring.evaluation import score_finished_run
from fedllm_train.monitoring.observer import Record
from fedllm_train.prepare import prepare
from fedllm_train.privacy.row_refusals import check_row_adapter
from fedllm_train.run_files.checkpoint import RunState
from fedllm_train.run_files.finished import copy_finished, finished_folder
from fedllm_train.run_files.open_run import check_run_folder
from fedllm_train.training import find_rows_left_out, train_run

if TYPE_CHECKING:
    from fedllm_data.hub.push import PushResult
    from fedllm_eval.policy.run_records import RunConfig
    from fedllm_eval.results import Results

__all__ = ["FederatedTrainer"]


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
        engine: EngineMaker | None = None,
        at_sites: RemoteOptions | None = None,
        **of_trl: Any,
    ) -> None:
        """Check every setting and load the model; nothing is trained or written yet.

        Args:
            model: folder, Hub id or loaded model; a `PeftModel`'s own adapter is trained.
            args: settings of the federation.
            clients: the training clients, from `load_clients`; or a dict of datasets by client id, a `Dataset` with a
                `client_id` column, or what `load_clients` would be given.
            client_args: TRL's settings for a client's training; TRL's defaults for the dataset's task if not given.
            peft_config: the adapter's settings; LoRA of rank 8 on all linear layers if not given.
            adapter: run folder, PEFT folder or Hub id of an adapter to start from; DPO's reference is then the base
                with this adapter.
            tokenizer: by default the model's own.
            revision: revision of the base model on the Hub.
            trust_remote_code: run code that comes with the model.
            quantization: a `BitsAndBytesConfig` to load the base model with.
            eval_dataset: held-out rows scored during the run, with `eval_every`; by default the training clients' own
                `eval_split`.
            callbacks: functions called with each round's record once it is on disk, or observers
                (`monitoring/observer.py`).
            engine: where clients are visited: called with the run's spec and a function that makes a host of the
                clients here, it returns a context manager of an engine (`engines/engine.py`). By default this process,
                or `num_processes` of them.
            at_sites: with clients whose rows are at sites (`clients_at_sites`): how long to wait for them, and for how
                many.
            of_trl: TRL's names for the same: `train_dataset` for clients, `processing_class` for tokenizer,
                `quantization_config` for quantization.

        Raises:
            ConfigError: for a setting that cannot be honoured.
        """
        given = {"model": model, "args": args, "clients": clients, "client_args": client_args}
        given |= {"peft_config": peft_config, "adapter": adapter, "tokenizer": tokenizer, "revision": revision}
        given |= {"trust_remote_code": trust_remote_code, "quantization": quantization}
        inputs = read_inputs(given | {"eval_dataset": eval_dataset, "callbacks": callbacks} | of_trl)
        self.args, self.clients = inputs.args, inputs.clients
        self.task = objective_of(inputs.client_args).name
        self.run = Path(inputs.args.output_dir)
        if inputs.args.protects_rows:
            check_row_adapter(inputs.peft_config)
        self.plan = prepare(
            inputs.args,
            roster_of(inputs.clients),
            inputs.client_args,
            model_is_named=isinstance(inputs.model, str),
            fit=fit_of(inputs),
        )
        """The run before anything was loaded."""
        self.loaded = load_run(self.plan, inputs, make_engine=engine, at_sites=at_sites)
        """The run with its model."""
        self.start_adapter = self.loaded.start_adapter
        self.guarantee = self.plan.guarantee
        """What a run with differential privacy guarantees; None for others."""
        self.state: RunState | None = None
        self.unrendered: UnrenderedRows | None = None
        """Rows that the chat template cannot render, once training has begun."""
        self._callbacks = inputs.callbacks
        self._held_shift = ExitStack()

    @property
    def model(self) -> Any:
        """The resident model, with the newest global adapter once training is done."""
        return self.loaded.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.loaded.tokenizer

    def train(self, resume_from_checkpoint: bool | str | Path | None = None, *, resume: bool = False) -> RunState:
        """Run all rounds, or those that are left, and write the finished adapter.

        Args:
            resume_from_checkpoint: TRL's name for `resume`; a path must lie in the run folder.
            resume: go on from the newest checkpoint in the run folder; start afresh if there is none.

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
        self.unrendered = find_rows_left_out(self.loaded)
        self._held_shift.close()
        self.state = train_run(self.loaded, self.unrendered, self._callbacks, resume=resume)
        if self.plan.strategy.traits.shifts_base:
            self._held_shift.enter_context(shifted(self.model, self.state.server.get("base_shift")))
        return self.state

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
        """Publish the finished run as a model repo in one commit; options as in `run_files.publish_run.publish_run`.

        Raises:
            ConfigError: if no repo is named, or an option does not exist.
        """
        from fedllm_train.run_files.publish_run import publish_run

        if repo_id is None:
            raise ConfigError("push_to_hub needs the name of a repo; pass push_to_hub('org/name')")
        check_options("push_to_hub", publish_run, options)
        return publish_run(self.run, repo_id, **options)

    def config_record(self) -> "RunConfig":
        """Return the resolved settings as `config.yaml` holds them."""
        return self.loaded.config_record()
