"""The help of `fedllm-train sft`, `dpo` and `kto`: what must be given first, then group by group, examples at the end.

Each group is one owner of settings (`config.py` joins them), so a setting that is added to an owner is shown without a
change here. Choices and defaults come from the fields. Imports no torch.
"""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedllm_data.command_line.examples import examples
from fedllm_data.command_line.one_line_parser import DashedHelp, OneLineParser, ShowVersion
from fedllm_train.clients.local_work import LocalWorkSettings
from fedllm_train.config import FederatedConfig, RunInput
from fedllm_train.fates.adapter_settings import MODEL_FATES
from fedllm_train.flag_fields import TASK_FATES, setting_names
from fedllm_train.flag_names import flag_of, in_flags
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.monitoring.evaluation_settings import EvaluationSettings
from fedllm_train.monitoring.trackers import TRACKERS
from fedllm_train.participation.cohort_rules import COHORT_RULES
from fedllm_train.participation.participation_settings import ParticipationSettings
from fedllm_train.privacy.privacy_settings import PrivacySettings
from fedllm_train.privacy.secure_sum.sum_settings import SecureSumSettings
from fedllm_train.strategies import STRATEGIES, settings_class

__all__ = ["EXAMPLES", "add_every_flag", "add_missing_flags", "help_parser"]

_CHOICES = {"cohort_rule": tuple(COHORT_RULES), "report_to": ("none", *TRACKERS)}
_METAVARS = {
    **{"data": "DIR_OR_ID", "model": "DIR_OR_ID", "adapter": "RUN_OR_ID", "output_dir": "DIR", "strategy": "METHOD"},
    **{"preset": "NAME", "data_revision": "REVISION", "eval_split": "SPLIT", "eval_score": "SCORE"},
    **{"cohort_clients": "ID,ID,...", "local_client": "ID", "client_ranks": "RULE", "client_layers": "RULE"},
    **{"personal_clients": "WHICH"},
    **{"client_table": "FILE_OR_PROFILE", "deployment": "FOLDER", "round_deadline": "SECONDS"},
    **{"ray_address": "ADDRESS"},
}
_FIRST = ("data", "model", "output_dir")
_MOSTLY = ("strategy", "num_rounds", "preset", "resume", "seed")
_WHO = ("cohort_rule", "cohort_size", "cohort_clients", "min_clients")
"""What every run may set of `ParticipationSettings`; the others need a client table."""
_WHERE = ("engine", "num_processes", "deployment", "min_sites", "round_deadline", "num_actors", "ray_address")
_WIDEST_CHOICES = 34
"""Longer lists of choices stand in the text, where they can be wrapped."""
_OF_TRL = {
    "learning_rate": ("X", "learning rate of the first round; it falls in a cosine over rounds"),
    "per_device_train_batch_size": ("N", "rows in a step"),
    "max_length": ("N", "tokens that a row keeps"),
    "lora_r": ("N", "rank of the adapter"),
    "lora_alpha": ("X", "scale of the adapter, in relation to its rank"),
    "beta": ("X", "how strongly the policy is held to the reference"),
}
"""Settings of TRL's configs that most runs set -> metavar, what it is."""

_TINY = "--num-rounds 2 --local-steps 2 --cohort-size 4"
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "sft": (
        ("Tune on the clients of a folder", f"fedllm-train sft --data fed-synth --model base --out runs/sft {_TINY}"),
        (
            "Another method, with a setting of its own",
            f"fedllm-train sft --data fed-synth --model base --out runs/prox --strategy fedprox --prox-mu 0.1 {_TINY}",
        ),
        (
            "The same run again, longer",
            "fedllm-train sft --config runs/sft/config.yaml --out runs/long --num-rounds 3",
        ),
    ),
    "dpo": (
        (
            "Align the tuned adapter with clients' preferences",
            f"fedllm-train dpo --data fed-synth-pa --model base --adapter runs/sft --out runs/dpo {_TINY}",
        ),
        (
            "Keep an adapter of its own for each client",
            f"fedllm-train dpo --data fed-synth-pa --model base --out runs/ditto --strategy ditto {_TINY}",
        ),
        (
            "Score during the run and finish with the best adapter",
            f"fedllm-train dpo --data fed-synth-pa --model base --out runs/best --eval-every 1 --load-best {_TINY}",
        ),
    ),
    "kto": (
        (
            "Align with answers that are good or bad",
            f"fedllm-train kto --data fed-synth-pa --model base --out runs/kto {_TINY}",
        ),
        (
            "Send a tenth of each change",
            f"fedllm-train kto --data fed-synth-pa --model base --out runs/topk --wire topk {_TINY}",
        ),
        (
            "With a smaller adapter",
            f"fedllm-train kto --data fed-synth-pa --model base --out runs/small --lora-r 4 --lora-alpha 8 {_TINY}",
        ),
    ),
}
"""Task -> what for, and a command that runs beside the corpora and the model that `fedllm-train tiny` makes of one."""


def help_parser(task: str) -> argparse.ArgumentParser:
    """Return a parser that only prints the help of a command: our own flags, and where TRL's are.

    Args:
        task: "sft", "dpo" or "kto".
    """
    kinds = {
        "sft": "on conversations",
        "dpo": "on pairs of answers, the better and the worse",
        "kto": "on answers that are good or bad",
    }
    parser = argparse.ArgumentParser(
        prog=f"fedllm-train {task}",
        usage=f"fedllm-train {task} --data DIR_OR_ID --model DIR_OR_ID --out DIR [flags]",
        description=f"Federated {task.upper()}: tune one model {kinds[task]}, where each client's rows stay apart.",
        epilog=examples(*EXAMPLES[task]),
        formatter_class=DashedHelp,
        add_help=False,
    )
    _add_flags(parser, task)
    return parser


def add_every_flag(parser: OneLineParser, task: str) -> None:
    """Add the flags of a command to a parser that is there to be completed: those of the help, and TRL's others.

    Args:
        parser: without any flag.
        task: "sft", "dpo" or "kto".
    """
    _add_flags(parser, task)
    taken = {flag for _, action in parser.every_argument() for flag in action.option_strings}
    for name in sorted({*TASK_FATES[task], *MODEL_FATES}):
        if flag_of(name) not in taken:
            parser.add_argument(flag_of(name))


def add_missing_flags(parser: OneLineParser, task: str) -> None:
    """Add the flags of a run that a parser which is there to be completed does not have yet.

    Args:
        parser: with flags of its own.
        task: "sft", "dpo" or "kto".
    """
    taken = {flag for _, action in parser.every_argument() for flag in action.option_strings}
    settings = {each.name for each in (*fields(RunInput), *fields(FederatedConfig))} - {"method"}
    settings |= {each.name for method in STRATEGIES for each in fields(settings_class(method))}
    for name in sorted({*settings, *TASK_FATES[task], *MODEL_FATES}):
        if flag_of(name) not in taken:
            parser.add_argument(flag_of(name))


def _add_flags(parser: argparse.ArgumentParser, task: str) -> None:
    """Add the flags of the help, group by group."""
    known = setting_names()
    hints = get_type_hints(FederatedConfig) | get_type_hints(RunInput)
    by_name = {each.name: each for each in (*fields(RunInput), *fields(FederatedConfig)) if each.name != "method"}
    taken: set[str] = set()

    def show(title: str, names: Sequence[str], text: str | None = None) -> None:
        group = parser.add_argument_group(title, text)
        for name in names:
            if name not in taken:
                _show(group, by_name[name], hints[name], known)
                taken.add(name)

    def of(*owners: type) -> list[str]:
        return [each.name for owner in owners for each in fields(owner)]

    show("needed", _FIRST)
    show("mostly", _MOSTLY)
    trl = parser.add_argument_group(
        f"the training itself, flags of TRL's {task.upper()}Config and ModelConfig",
        "these and all their others (--help-all lists them)",
    )
    for name, (metavar, text) in _OF_TRL.items():
        if name != "beta" or task != "sft":
            trl.add_argument(flag_of(name), metavar=metavar, help=text)
    show("who takes part, and how long a client trains", [*_WHO, *of(LocalWorkSettings)])
    show("slow, late and lost clients, by a simulated clock", of(ParticipationSettings))
    show("where clients are visited", _WHERE)
    show("what the adapter is and where it starts", [each.name for each in fields(RunInput)])
    _show_methods(parser, known)
    show("scores during the run", of(EvaluationSettings))
    show("differential privacy of clients", of(PrivacySettings))
    show("sums that hide single updates from the server", of(SecureSumSettings))
    show("what travels, and how it is packed", of(WireSettings))
    show("seldom needed", list(by_name))
    last = parser.add_argument_group("this command")
    last.add_argument(
        "--config", metavar="FILE.yaml", help="settings of a file, or a run's config.yaml; flags override it"
    )
    last.add_argument(
        "--dry-run", action="store_true", help="say what would be run and written, load no weights, write nothing"
    )
    last.add_argument("--version", action=ShowVersion)
    last.add_argument("--help", "-h", action="store_true", help="show this and leave")
    last.add_argument("--help-all", action="store_true", help="show every flag, TRL's and PEFT's too, and leave")


def _show_methods(parser: argparse.ArgumentParser, known: frozenset[str]) -> None:
    """Show the settings of single methods, each once, with the methods that read it."""
    group = parser.add_argument_group(
        "settings of single methods",
        "each is refused with a --strategy that does not read it; `fedllm-train methods` lists them",
    )
    shown: dict[str, tuple[Field[Any], Any]] = {}
    users: dict[str, list[str]] = {}
    for method in STRATEGIES:
        hints = get_type_hints(settings_class(method))
        for each in fields(settings_class(method)):
            shown.setdefault(each.name, (each, hints[each.name]))
            users.setdefault(each.name, []).append(method)
    for name, (each, hint) in shown.items():
        _show(group, each, hint, known, users[name])


def _show(group: Any, each: "Field[Any]", hint: Any, known: frozenset[str], users: Sequence[str] = ()) -> None:
    """Show a field as a flag: metavar or choices, help, the methods that read it, default."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    choices = tuple(get_args(hint)) if get_origin(hint) is Literal else _CHOICES.get(each.name, ())
    text = in_flags(str(each.metadata["help"]), known).rstrip(".")
    if users:
        text += _users_in_words(users, text)
    if kinds == [bool] and NoneType not in get_args(hint):
        flag = flag_of(f"no_{each.name}") if each.default is True else flag_of(each.name)
        group.add_argument(flag, action="store_true", help=f"{'Do not: ' if each.default is True else ''}{text}")
        return
    metavar: str | None
    if choices and len(shown := "{" + ",".join(choices) + "}") <= _WIDEST_CHOICES:
        metavar = shown
    else:
        usual = {bool: "{true,false}", int: "N", float: "X"}.get(kinds[0], each.name.rpartition("_")[2].upper())
        metavar = _METAVARS.get(each.name, usual)
        text += f"; one of {', '.join(choices)}" if choices and not all(word in text for word in choices) else ""
    default = "" if each.default in (MISSING, None) else f" (default: {each.default})"
    group.add_argument(flag_of(each.name), metavar=metavar, help=(text + default).replace("%", "%%"))


def _users_in_words(users: Sequence[str], text: str) -> str:
    """The methods that read a setting, as far as its help does not name them."""
    if all(name in text.replace(",", " ").replace(":", " ").split() for name in users):
        return ""
    others = [name for name in STRATEGIES if name not in users]
    if len(others) < len(users):
        return f" [every method but {', '.join(others)}]"
    return f" [{', '.join(users)}]"
