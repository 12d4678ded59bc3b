"""The fate of every field of TRL's `SFTConfig`, `DPOConfig` and `KTOConfig` in a client's training.

A resident trainer (`clients/resident.py`) takes a number of steps, at a rate that is constant inside a visit; it logs,
saves, scores and uploads nothing: rounds do. A value that would be ignored is refused, and the error names the setting
to use instead (design rule 8). Imports no torch.
"""

from fedllm_train.fates.fate import Elsewhere, Fate, NoEffect, Passed, Refused

__all__ = ["DPO_FATES", "KTO_FATES", "SFT_FATES"]

_SCORES = "eval_every scores during the run, and fedllm-eval after it"
_LOGS = "leave it out: every round is a line of rounds.jsonl, and of the tracker in FederatedConfig(report_to=...)"
_SAVES = "leave it out: every round ends with a checkpoint; keep_checkpoints and keep_every say which stay"
_PUSHES = "push_to_hub() of the federated trainer, or fedllm-train publish, does"
_ONE_DEVICE = "use a single device for a client, and num_processes to train several clients side by side"
_ROWS = "leave it out: the rows of clients are messages, or prompt, chosen and rejected, and are encoded here"
_TRACKER = "leave it out: the tracker's run has the name of the run folder (FederatedConfig(report_to=...))"
_CONSTANT = "leave it out: the learning rate is constant inside a round"
_DISTRIBUTED = "several devices only, and a client has one"
_SCRIPT = "read by scripts alone, never by a trainer"

_OF_ALL: dict[str, Fate] = {
    # what a visit is
    "output_dir": Refused("the run folder is output_dir of FederatedConfig"),
    "num_train_epochs": Refused("use local_epochs"),
    "max_steps": Refused("use local_steps"),
    "learning_rate": Elsewhere("the first round's rate, from which the cosine over rounds falls"),
    "lr_scheduler_type": Refused(
        "leave it out: the learning rate follows a cosine over rounds and is constant inside a round", ("constant",)
    ),
    "lr_scheduler_kwargs": Refused("use min_learning_rate, the floor of the cosine over rounds"),
    "warmup_steps": Refused(_CONSTANT, (0,)),
    "seed": Refused("use seed of FederatedConfig, from which every stream derives"),
    "data_seed": Refused("use seed of FederatedConfig, from which every stream derives"),
    "auto_find_batch_size": Refused("use per_device_train_batch_size", (False,)),
    "dataloader_drop_last": Refused("leave it out: clients with fewer rows than a batch would not train", (False,)),
    "full_determinism": Passed(),
    # optimizer and precision
    **dict.fromkeys(
        (
            *("per_device_train_batch_size", "gradient_accumulation_steps", "optim", "optim_args", "weight_decay"),
            *("adam_beta1", "adam_beta2", "adam_epsilon", "optim_target_modules", "max_grad_norm"),
            *("label_smoothing_factor", "neftune_noise_alpha", "bf16", "fp16", "tf32", "use_cpu"),
            *("activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing"),
            *("gradient_checkpointing_kwargs", "torch_compile", "torch_compile_backend", "torch_compile_mode"),
            *("use_liger_kernel", "liger_kernel_config", "use_cache", "torch_empty_cache_steps"),
            *("activation_offloading", "accelerator_config", "router_aux_loss_coef"),
        ),
        Passed(),
    ),
    # rows
    **dict.fromkeys(
        (
            *("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
            *("dataloader_multiprocessing_context", "dataloader_in_order", "train_sampling_strategy"),
            *("remove_unused_columns", "label_names", "max_length", "pad_to_multiple_of"),
        ),
        Passed(),
    ),
    "dataloader_pin_memory": Elsewhere("passed on where there is an accelerator, without which it means nothing"),
    "length_column_name": Refused("leave it out: a client's rows have no such column, their tokens are counted"),
    "dataset_num_proc": Refused("leave it out: a client's rows are encoded when it is first visited"),
    # model
    "model_init_kwargs": Elsewhere("models/base_settings.py"),
    "trust_remote_code": Elsewhere("models/policy.py, with FederatedTrainer(trust_remote_code=...)"),
    # logging
    "logging_strategy": Refused(_LOGS, ("no",)),
    **dict.fromkeys(("logging_steps", "logging_first_step"), Refused(_LOGS)),
    **dict.fromkeys(("logging_nan_inf_filter", "include_num_input_tokens_seen", "log_level"), Passed()),
    "skip_memory_metrics": Refused("leave it out: a visit's peak would be measured in the server's process", (True,)),
    # transformers sets it from its log level where nobody does, so no value tells that it was meant.
    "disable_tqdm": NoEffect("rounds have a progress bar, visits none"),
    "report_to": Refused(
        "it would open a run per visit, give report_to to FederatedConfig", ([], ["none"], "none", None)
    ),
    **dict.fromkeys(("run_name", "project"), Refused(_TRACKER)),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), Refused(_TRACKER)),
    "debug": Refused("train one client with TRL's own trainer to look for overflows"),
    # scores
    "eval_strategy": Refused(_SCORES, ("no",)),
    **dict.fromkeys(("eval_steps", "eval_delay", "eval_on_start", "prediction_loss_only"), Refused(_SCORES)),
    **dict.fromkeys(("eval_do_concat_batches", "eval_use_gather_object", "batch_eval_metrics"), Refused(_SCORES)),
    **dict.fromkeys(("eval_accumulation_steps", "include_for_metrics"), Refused(_SCORES)),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), Refused(_SCORES)),
    "per_device_eval_batch_size": Elsewhere("monitoring/held_out.py, with eval_every"),
    "load_best_model_at_end": Refused("use load_best, with eval_every", (False,)),
    "metric_for_best_model": Refused("use eval_score, with eval_every"),
    "greater_is_better": Refused("leave it out: every eval_score knows its direction"),
    # checkpoints and the Hub
    "save_strategy": Refused(_SAVES, ("no",)),
    "save_total_limit": Refused("use keep_checkpoints"),
    "save_steps": Refused(_SAVES),
    **dict.fromkeys(("save_only_model", "enable_jit_checkpoint"), Refused(_SAVES, (False,))),
    "resume_from_checkpoint": Refused("use train(resume_from_checkpoint=True), or --resume, for the whole run"),
    **dict.fromkeys(
        ("ignore_data_skip", "restore_callback_states_from_checkpoint"),
        Refused("leave it out: a resumed run goes on to the same bits", (False,)),
    ),
    "push_to_hub": Refused(_PUSHES, (False,)),
    "hub_token": Refused(f"{_PUSHES}, as whom `hf auth login` knows", is_secret=True),
    "hub_private_repo": Refused("use push_to_hub(repo_id, private=...) of the federated trainer"),
    "hub_model_id": Refused("use push_to_hub(repo_id) of the federated trainer"),
    **dict.fromkeys(("hub_strategy", "hub_always_push", "hub_revision"), Refused(_PUSHES)),
    # several devices
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), Refused(_ONE_DEVICE)),
    **dict.fromkeys(
        (
            *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"),
            *("ddp_backend", "ddp_timeout", "local_rank", "average_tokens_across_devices"),
            *("log_on_each_node", "log_level_replica", "save_on_each_node"),
        ),
        NoEffect(_DISTRIBUTED),
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), NoEffect(_SCRIPT)),
}

SFT_FATES: dict[str, Fate] = _OF_ALL | {
    **dict.fromkeys(
        (
            *("chat_template_path", "eos_token", "pad_token", "truncation_mode", "packing", "packing_strategy"),
            *("padding_free", "loss_type"),
        ),
        Passed(),
    ),
    "dataset_text_field": Refused(_ROWS, ("messages",)),
    "dataset_kwargs": Refused(_ROWS),
    "shuffle_dataset": Refused("leave it out: a client's rows are shuffled in every round"),
    "eval_packing": Refused(f"leave it out: {_SCORES}, row by row"),
    "completion_only_loss": Refused(
        "use loss_on of FederatedConfig: 'assistant', the default, trains on the assistant's turns, 'all' on all"
    ),
    "assistant_only_loss": Elsewhere("loss_on of FederatedConfig, whose default is the same"),
}
"""Of `SFTConfig`."""

_REFERENCE = "leave it out: the reference is fixed for the run, the policy that it starts from"
_OF_PREFERENCES: dict[str, Fate] = {
    **dict.fromkeys(("disable_dropout", "loss_type", "beta", "precompute_ref_batch_size"), Passed()),
    "label_smoothing_factor": Refused("leave it out: the losses of preferences do not look at it"),
    "precompute_ref_log_probs": Refused("use reference_cache of FederatedConfig, which is on by default"),
    **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), Refused(_REFERENCE)),
}

DPO_FATES: dict[str, Fate] = (
    _OF_ALL
    | _OF_PREFERENCES
    | dict.fromkeys(
        (
            *("truncation_mode", "padding_free", "loss_weights", "ld_alpha", "f_divergence_type", "pad_token"),
            *("f_alpha_divergence_coef", "label_smoothing", "use_weighting", "discopop_tau"),
        ),
        Passed(),
    )
)
"""Of `DPOConfig`."""

KTO_FATES: dict[str, Fate] = (
    _OF_ALL | _OF_PREFERENCES | dict.fromkeys(("desirable_weight", "undesirable_weight"), Passed())
)
"""Of `KTOConfig`."""
