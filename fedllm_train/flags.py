"""Our own flags of `fedllm-train sft`, `dpo` and `kto`: read, joined with a file and a preset, refused where wrong.

Everything that can be said without TRL is said here: a flag that is misspelt or belongs to another method, a value, a
path, two settings that contradict one another. What is left over is TRL's, and goes to its parser (`arguments.py`).
`--config FILE.yaml` gives defaults that flags override; the `config.yaml` of a run is such a file, too
(`run_files/run_as_config.py`). Imports no torch.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from fedllm_data.command_line.one_line_parser import check_choice
from fedllm_data.command_line.settings_file import read_settings
from fedllm_data.command_line.spelling import dashed
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.hub.local_paths import is_local_path
from fedllm_data.repo import open_repo
from fedllm_data.roster import roster_of_repo
from fedllm_eval.policy.locate import HUB_ID
from fedllm_eval.policy.run_folder import CONFIG_FILE, MODEL
from fedllm_train.config import FederatedConfig, RunInput, check_name
from fedllm_train.engines.engine_choice import check_deployment, check_engine
from fedllm_train.fates.adapter_settings import MODEL_FATES
from fedllm_train.field_types import plain_value
from fedllm_train.flag_fields import TASK_FATES, flag_groups
from fedllm_train.flag_names import FORMER, flag_of, name_of
from fedllm_train.given import given_flags, with_given
from fedllm_train.messages.wire_settings import check_former
from fedllm_train.monitoring.evaluation_settings import check_eval_score
from fedllm_train.monitoring.trackers import check_tracker
from fedllm_train.prepare import RunPlan, prepare
from fedllm_train.presets import DECISIVE, preset_defaults
from fedllm_train.privacy.accounting import check_accountant
from fedllm_train.privacy.row_refusals import check_row_adapter_kind
from fedllm_train.privacy.secure_sum.masks import check_cryptography
from fedllm_train.run_files.open_run import check_run_folder
from fedllm_train.run_files.run_as_config import flags_of_run, is_run_config
from fedllm_train.strategies import users_of

__all__ = ["OurFlags", "check_surroundings", "parse_our_flags"]

_HELP = ("help", "help_all", "config")
_ANY_CLIENT = SimpleNamespace(
    learning_rate=1.0, train_batch_size=1, gradient_accumulation_steps=1, stands_for_any=True
)
"""Stands for TRL's settings, which are read later; no refusal rests on these values."""


@dataclass(frozen=True, kw_only=True)
class OurFlags:
    """What a command line says of the federation, and what is left of it for TRL."""

    federated: FederatedConfig
    run: RunInput
    given: frozenset[str]
    """Names that flags and the file set, TRL's among them."""
    rest: Sequence[str]
    """The flags that are TRL's."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """TRL's settings by the preset and by the file."""
    of_run: Mapping[str, Any] = field(default_factory=dict)
    """TRL's settings as a run's `config.yaml` has them, all of them."""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """What the preset sets, ours and TRL's."""


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help-all lists all flags")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        check_choice(action, value)


def parse_our_flags(task: str, argv: Sequence[str]) -> OurFlags:
    """Return what a command line says.

    Args:
        task: "sft", "dpo" or "kto".
        argv: the flags after the subcommand.

    Raises:
        ConfigError: for a flag or value that cannot be used.
    """
    argv, path = _without_config([word for word in dashed(argv, FORMER) if word != "--dry-run"])
    in_file = _read_file(path)
    if in_file.get("preset", "") is None:
        del in_file["preset"]  # as if it were left out
    of_run: dict[str, Any] = {}
    if is_run_config(in_file):
        assert path is not None
        in_file, of_run = flags_of_run(in_file, Path(path), task)
        if odd := [name for name in of_run if name not in TASK_FATES[task]]:
            raise ConfigError(f"{odd[0]} under client in --config {path} is no setting of a {task} run; take it out")
        if "preset" in given_flags(argv):
            raise ConfigError(
                f"--preset is given, and --config {path} is a run's, which says every setting itself; give one of both"
            )
    given = given_flags(argv) | frozenset(in_file)
    decisive = in_file | _values_of(argv, ("preset", *DECISIVE))
    strategy = plain_value("strategy", decisive.get("strategy", "fedavg"), str)
    in_file = {name: v for name, v in in_file.items() if v is not None or not _is_of_others(name, strategy)}
    _check_names(task, strategy, [each for each in argv if each.startswith("--")], in_file)
    preset = {} if of_run or "preset" not in decisive else preset_defaults(decisive["preset"], task, decisive)

    groups = flag_groups(strategy)
    ours = {each.name: hint for group in groups for each, hint in _typed(group)}
    mine, rest = _apart(argv, ours)
    parsed = _parser_of(ours, groups).parse_args(mine)
    values = {name: value for name, value in preset.items() if name in ours}
    values |= {name: _from_file(name, value, ours[name]) for name, value in in_file.items() if name in ours}
    values |= vars(parsed)
    of_federation = {name for group in groups[:-1] for name in (each.name for each in fields(group))}
    required = [each.name for group in groups for each in fields(group) if each.default is MISSING]
    if lacking := [flag_of(name) for name in required if name not in values]:
        raise ConfigError(f"the following arguments are required: {', '.join(lacking)}; --help-all lists all flags")
    own = {name: value for name, value in values.items() if name in of_federation}
    # A config that names every field is a copy: what a preset sets is nobody's word.
    every = {each.name: each.default for each in fields(FederatedConfig)} | own
    federated = with_given(FederatedConfig(**every), given)
    run = RunInput(**{name: value for name, value in values.items() if name not in of_federation})
    check_engine(run)
    defaults = {name: value for name, value in (preset | in_file).items() if name not in ours}
    return OurFlags(
        federated=federated, run=run, given=given, rest=rest, defaults=defaults, of_run=of_run, preset=preset
    )


def check_surroundings(flags: OurFlags) -> RunPlan | None:
    """Refuse folders and packages that are not there, before anything heavy is imported.

    For clients on this machine, what their roster tells is refused, too: a cohort that is too large, a method that
    cannot do what is asked.

    Returns:
        The plan of a run on clients on this machine, or None for clients on the Hub. TRL's settings are not in it yet.

    Raises:
        ConfigError: for a model, an adapter, a run folder, or a package that an extra brings.
        FedLLMError: for a dataset.
    """
    run = flags.run
    check_deployment(run)
    check_tracker(flags.federated.report_to)
    if flags.federated.adds_noise and not flags.federated.secure_sum_skellam:
        check_accountant()
    if flags.federated.secure_sum:
        check_cryptography()
    if flags.federated.protects_rows:
        check_row_adapter_kind(run.peft_type)
    check_run_folder(Path(flags.federated.output_dir), resume=run.resume)
    plan = None
    if run.data is not None and (is_local_path(run.data) or "/" not in run.data):
        repo = open_repo(run.data, run.data_revision)
        roster = roster_of_repo(repo)
        plan = prepare(flags.federated, roster, _ANY_CLIENT)
        if flags.federated.eval_every is not None:
            repo.split_files(flags.federated.eval_split)
            check_eval_score(flags.federated.eval_score, roster.task)
    for name, value in (("model", run.model), ("adapter", run.adapter)):
        if value is not None and is_local_path(value) and not Path(value).exists():
            raise ConfigError(f"{name} {value!r} is no folder here; give one, or a Hub id, which is org/name")
    _check_model(run.model)
    if run.adapter is not None and (whole := _whole_model(Path(run.adapter))) is not None:
        raise ConfigError(
            f"adapter {run.adapter!r} is a run that trained all weights; name {whole} as --model instead"
        )
    return plan


def _check_model(name: str) -> None:
    """Refuse a folder that holds no model, and what is neither a folder nor the id of one on the Hub."""
    place = Path(name)
    remedy = "give a folder with config.json and safetensors, or a Hub id"
    if place.is_dir():
        if not any((place / mark).is_file() for mark in ("config.json", "adapter_config.json")):
            if (whole := _whole_model(place)) is not None:
                remedy = f"its model is {whole}"
            elif (place / CONFIG_FILE).is_file():
                remedy = f"it is a run's folder: name the run's base, and {name} as --adapter to start from it"
            raise ConfigError(f"model {name!r} cannot be loaded (it holds no config.json); {remedy}")
    elif not place.exists() and not HUB_ID.fullmatch(name):
        raise ConfigError(f"model {name!r} is neither a folder here nor a Hub id; {remedy}")


def _whole_model(run: Path) -> Path | None:
    """The model that a run with full fine-tuning left in its folder."""
    is_there = (run / CONFIG_FILE).is_file() and (run / MODEL / "config.json").is_file()
    return run / MODEL if is_there else None


def _without_config(argv: Sequence[str]) -> tuple[list[str], str | None]:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parsed, rest = parser.parse_known_args(list(argv))
    return rest, parsed.config


def _read_file(path: str | None) -> dict[str, Any]:
    """The settings of a `--config` file; `env` in it sets environment variables, as TRL's parser lets it."""
    if path is None:
        return {}
    content = read_settings(path)
    variables = content.pop("env", {})
    if not isinstance(variables, dict):
        raise ConfigError(f"env in --config {path} is no mapping; write names and values below it")
    os.environ.update({str(name): str(value) for name, value in variables.items()})
    settings: dict[str, Any] = {}
    for key, value in content.items():
        name = name_of(key)
        if name in settings:
            raise ConfigError(f"--config {path} says {name} twice, in two spellings; leave one out")
        settings[name] = value
    return settings


def _values_of(argv: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in names:
        parser.add_argument(flag_of(name), dest=name)
    return vars(parser.parse_known_args(list(argv))[0])


def _is_of_others(name: str, strategy: str) -> bool:
    """Whether a setting belongs to other methods alone."""
    return bool(users_of(name)) and all(name != each.name for group in flag_groups(strategy) for each in fields(group))


def _apart(argv: Sequence[str], ours: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return our flags and TRL's, each with the values behind it."""
    mine: list[str] = []
    rest: list[str] = []
    names = ours.keys() | {f"no_{name}" for name, hint in ours.items() if hint is bool}
    part = rest
    for each in argv:
        if each.startswith("--"):
            part = mine if name_of(each) in names else rest
        part.append(each)
    return mine, rest


def _check_names(task: str, strategy: str, flags: Sequence[str], in_file: Mapping[str, Any]) -> None:
    """Refuse a name that nobody knows, or that is another method's."""
    ours = {each.name for group in flag_groups(strategy) for each in fields(group)} - {"method"}
    known = ours | TASK_FATES[task].keys() | MODEL_FATES.keys() | {*_HELP}
    spelt = [(flag, name_of(flag)) for flag in flags if flag != "--"]
    if odd := sorted(in_file.keys() & {*_HELP}):
        raise ConfigError(f"{odd[0]} stands in the --config file; it is a flag of the command line alone")
    for shown, name in [*spelt, *((name, name) for name in in_file)]:
        is_flag = shown.startswith("--")
        if name in known or (is_flag and name.removeprefix("no_") in known):
            continue
        check_former(name, shown.partition("=")[0])
        if users_of(name):
            check_name(name, strategy)
        shown = shown.partition("=")[0]
        hint = did_you_mean(shown, map(flag_of, sorted(known)) if is_flag else sorted(known))
        raise ConfigError(f"{shown} is no flag of fedllm-train {task}; {hint}--help-all lists all flags")


def _typed(group: type) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(group)
    return [(each, hints[each.name]) for each in fields(group) if each.name != "method"]


def _parser_of(ours: Mapping[str, Any], groups: Sequence[type]) -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for group in groups:
        for each, hint in _typed(group):
            flag = flag_of(each.name)
            if bool in _plain(hint):
                parser.add_argument(flag, dest=each.name, nargs="?", const=True, type=_boolean)
                if each.default is True:
                    parser.add_argument(flag_of(f"no_{each.name}"), dest=each.name, action="store_const", const=False)
            elif get_origin(hint) is Literal:
                parser.add_argument(flag, dest=each.name, choices=get_args(hint))
            else:
                kind = _plain(hint)[0]
                left_out = NoneType in get_args(hint) and kind is not str
                parser.add_argument(flag, dest=each.name, type=_OrNone(kind) if left_out else kind)
    return parser


def _plain(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return [type(value) for value in get_args(hint)]
    return [each for each in (get_args(hint) or (hint,)) if each is not NoneType]


class _OrNone:
    """Reads a number, or the words that stand for none in TRL's flags, too."""

    def __init__(self, kind: type) -> None:
        self._kind, self.__name__ = kind, kind.__name__

    def __call__(self, text: str) -> Any:
        return None if text.lower() in ("none", "null") else self._kind(text)


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("yes", "true", "t", "y", "1"):
        return True
    if lowered in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _from_file(name: str, value: Any, hint: Any) -> Any:
    """A value of a file, where text may stand for a number."""
    kind = _plain(hint)[0]
    if not isinstance(value, str) or kind is str:
        return value
    try:
        if kind is bool:
            return _boolean(value)
        return _OrNone(kind)(value) if NoneType in get_args(hint) else kind(value)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ConfigError(f"{name} is {value!r} in the --config file; it takes {kind.__name__}") from error
