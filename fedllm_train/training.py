"""What `FederatedTrainer.train` does, in order: lock the run folder, begin or resume in it, run the rounds, finish."""

import gc
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from fedllm_data.in_place import fill_folder
from fedllm_eval.policy.run_folder import ROUNDS_FILE, SCORES, START_ADAPTER, START_SCORES, WORK
from fedllm_eval.policy.training_template import trains_end_of_turn
from fedllm_train.aggregation.robust import heuristic_note
from fedllm_train.clients.objectives import objective_of
from fedllm_train.clients.token_cache import encoder_for
from fedllm_train.clients.unrendered import UnrenderedRows, find_unrendered, unrendered_at_sites, write_unrendered
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.loaded_run import LoadedRun
from fedllm_train.monitoring.held_out import load_best
from fedllm_train.monitoring.observer import Record
from fedllm_train.monitoring.site_scores import score_finished
from fedllm_train.monitoring.trackers import tracked
from fedllm_train.privacy.beginning import begin_privacy
from fedllm_train.privacy.clipping_note import clipping_note
from fedllm_train.rounds import run_rounds
from fedllm_train.run_files.checkpoint import RunState
from fedllm_train.run_files.earlier import warn_of_earlier
from fedllm_train.run_files.finished import finished_folder, save_client_folder, save_held_folder
from fedllm_train.run_files.machines_record import write_machines
from fedllm_train.run_files.open_run import open_run_folder
from fedllm_train.run_files.personal import make_personal_adapters
from fedllm_train.run_files.resume import first_state, restore_folders
from fedllm_train.run_files.run_card import write_run_card
from fedllm_train.run_files.run_lock import locked
from fedllm_train.run_files.run_writing import may_be_replaced
from fedllm_train.run_files.sites_record import write_sites
from fedllm_train.run_files.template_day import fix_template_day
from fedllm_train.strategy import POOLED

__all__ = ["find_rows_left_out", "train_run"]

logger = logging.getLogger(__name__)


def find_rows_left_out(run: LoadedRun) -> UnrenderedRows:
    """Find the rows that the chat template cannot render; warn if those it can do not end the assistant's turn.

    Rows at sites are not looked at: each site says with every visit how many there were (`unrendered_at_sites`).

    Raises:
        ConfigError: if no row is left for training or for scoring.
    """
    plan, clients = run.plan, run.clients
    if isinstance(clients, SiteClients):
        _warn_of_endless_turns(run)
        return UnrenderedRows({}, sum(clients.sizes[client_id] for client_id in plan.participants))
    everybody = POOLED in plan.participants or len(plan.participants) == len(clients)
    trained = clients if everybody else clients.select(plan.participants)
    encode = encoder_for(run.trl_args, run.tokenizer, loss_on=plan.config.loss_on)
    unrendered = find_unrendered(trained, encode)
    if run.scored is not None:
        find_unrendered(run.scored, encode)  # none of them left would end the run when they are first scored
    if unrendered.num_unrendered:
        logger.warning("%s", unrendered.line())
    _warn_of_endless_turns(run)
    return unrendered


def _warn_of_endless_turns(run: LoadedRun) -> None:
    """Warn if the loss sees no token that ends the assistant's turns."""
    marked = objective_of(run.client_args).name == "sft" and run.plan.config.loss_on == "assistant"
    if not trains_end_of_turn(run.tokenizer, marked=marked):
        logger.warning(
            "the chat template of %r ends the assistant's turns with no token that the loss sees, so the model is "
            "not taught to stop; use a template that writes an end-of-turn token behind each answer",
            run.tokenizer.name_or_path,
        )


def train_run(
    run: LoadedRun, unrendered: UnrenderedRows, callbacks: Sequence[Callable[[Record], None]], *, resume: bool
) -> RunState:
    """Run all rounds, or those that are left, and write the finished adapter.

    Args:
        run: the run, with its model loaded.
        unrendered: rows that are left out.
        callbacks: called with each round's record once it is on disk.
        resume: whether to resume a run that is in the folder.

    Returns:
        The state after the last round, or, with `load_best`, after the best one.

    Raises:
        ConfigError: if the run folder holds another run and `resume` is off.
        ResumeError: if the run in the folder was begun with other settings, cannot be read, or is being trained by
            another process.
        WorkerError: if one of several processes dies or fails; the run can be resumed.
    """
    with locked(run.folder):
        state = _run_all_rounds(run, unrendered, callbacks, resume=resume)
        if isinstance(run.clients, SiteClients):
            write_unrendered(run.folder, unrendered_at_sites(run.folder / ROUNDS_FILE, unrendered.num_rows))
        with fill_folder(run.folder / finished_folder(run.model), check=may_be_replaced) as finished:
            run.save_server(state.server, finished)
        write_run_card(run.folder)
        shutil.rmtree(run.folder / WORK)
    return state


def _run_all_rounds(
    run: LoadedRun, unrendered: UnrenderedRows, callbacks: Sequence[Callable[[Record], None]], *, resume: bool
) -> RunState:
    plan, config, folder = run.plan, run.plan.config, run.folder
    record = run.config_record()
    open_run_folder(folder, record, resume=resume)
    restore_folders(folder)
    fix_template_day(run.tokenizer, folder)
    write_unrendered(folder, unrendered)
    if plan.machines is not None:
        write_machines(folder, plan.machines, plan.participants)
    if not run.policy.is_base and not (folder / START_ADAPTER).exists():
        with fill_folder(folder / START_ADAPTER) as start:
            save_held_folder(run.model, start)
    if isinstance(run.clients, SiteClients):
        write_sites(folder, run.clients)
        if run.earlier is not None:
            logger.warning(
                "the run starts from what was trained before, and held-out rows lie at the sites: whether they are "
                "new to it is not known"
            )
    else:
        warn_of_earlier(run.clients, run.earlier)
    made_rounds = (folder / ROUNDS_FILE).exists()
    state = first_state(folder, run.start_state)
    if plan.guarantee is not None and (note := clipping_note(config.wire, plan.guarantee)):
        logger.warning(note)
    sent = plan.strategy.expects(run.start_state, plan.participants[0], 0).get("adapter", {})
    if note := heuristic_note(config, sent):
        logger.warning(note)
    privacy = begin_privacy(
        folder,
        plan.guarantee,
        plan.strategy,
        run.start_state,
        plan.participants,
        next_round=state.next_round,
        lost_rounds=made_rounds and state.next_round == 0,
        remembered=state.privacy,
        is_shared=plan.sums is not None,
    )
    tracker = tracked(config.report_to, folder, record, first_round=state.next_round)
    with run.engine(state.run_key) as engine, tracker as track:
        rounds = run.round_plan(engine, state, privacy, [track, *callbacks])
        # accelerate collects garbage at every visit; what is alive now (models, libraries) need not be walked then.
        gc.collect()
        gc.freeze()
        try:
            state = run_rounds(rounds, state)
            if config.load_best:
                state = replace(state, server=load_best(folder))
            if plan.strategy.traits.personal:
                save = partial(save_client_folder, run.model, tokenizer=run.tokenizer)
                make_personal_adapters(
                    rounds,
                    state,
                    save,
                    config=config,
                    client_ids=plan.participants,
                    stay_at_sites=isinstance(run.clients, SiteClients),
                )
            if run.remote is not None:
                _score_at_sites(run, state)
                run.remote.finish()
        finally:
            gc.unfreeze()
    return state


def _score_at_sites(run: LoadedRun, state: RunState) -> None:
    """Let the sites score what the run ended with and what it started from, on the rows that they held out."""
    if not run.at_sites.scores_at_end or run.remote is None or not isinstance(run.clients, SiteClients):
        return
    if any(facts.policy.get("scores") is False for facts in run.clients.facts.values()):
        logger.warning("some sites send no scores, so the finished adapter was not scored at any")
        return
    states = {
        "run": (state.server, run.folder / SCORES),
        "start": (run.start_state, run.folder / START_SCORES),
    }
    score_finished(run.remote, run.clients, states, run.plan.config)
