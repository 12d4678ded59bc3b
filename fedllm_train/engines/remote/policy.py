"""An organisation's own limits: what it lets a server do on its machine, checked by its worker alone.

Written as `worker.yaml`. What a policy forbids is refused before anything is loaded, with the reason, and every
request is logged (`worker_log.py`). Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.unique_keys import read_yaml
from fedllm_train.engines.remote.messages import Begin, SplitFacts

__all__ = ["Policy", "read_policy"]

_TASK_OF = {"SFTConfig": "sft", "DPOConfig": "dpo", "KTOConfig": "kto"}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The limits; the defaults let any kind of training through, and tell no more than it needs."""

    bases: tuple[str, ...] = ()
    """Digests of base models, as `fedllm-train worker --dry-run` prints them; empty for the worker's own alone."""
    strategies: tuple[str, ...] = ()
    """Methods; empty for all."""
    tasks: tuple[str, ...] = ()
    """sft, dpo, kto; empty for all."""
    max_rounds: int | None = None
    max_steps: int | None = None
    """Optimizer steps of a visit."""
    max_epsilon: float | None = None
    """Only runs whose guarantee of differential privacy is at least so strong, for the unit below."""
    epsilon_unit: Literal["client", "example"] = "client"
    """What `max_epsilon` is of: a client with all of its rows, or one row. A run that guarantees clients so much
    guarantees each row at least as much; one that guarantees rows says what that means for a whole client."""
    needs_secure_sum: bool = False
    """Only runs in which the server sees no single update."""
    clients: tuple[str, ...] | None = None
    """Those that may be asked; None for all."""
    columns: tuple[str, ...] = ("main_language",)
    """Columns of the clients table that the server may see, beside ids and counts."""
    scores: bool = True
    """Whether held-out scores are computed and sent."""
    min_rows: int = 1
    """Scores and counts of clients with fewer held-out rows are withheld."""
    profile: bool = False
    """Whether profiles of clients are made and sent."""
    approve: Literal["auto", "ask"] = field(default="ask")
    """Whether somebody must approve each run (`fedllm-train worker approve`)."""

    def problem(self, begin: Begin, *, base: str | None) -> str | None:
        """Return why a run may not begin, in one line; None where it may.

        Args:
            begin: what the server asks.
            base: digest of the worker's own base model.
        """
        spec = begin.spec
        wanted, strategy = _of(spec, "digests", "base model"), _of(spec, "strategy")
        task = _TASK_OF.get(str(_of(spec, "client_args", "kind")))
        allowed = self.bases or (base,)
        if wanted not in allowed:
            return f"base model {wanted} is not one that this organisation allows"
        if self.strategies and strategy not in self.strategies:
            return f"strategy {strategy} is not one that this organisation allows ({', '.join(self.strategies)})"
        if self.tasks and task not in self.tasks:
            return f"task {task} is not one that this organisation allows ({', '.join(self.tasks)})"
        if self.max_rounds is not None and begin.num_rounds > self.max_rounds:
            return f"{begin.num_rounds} rounds are more than the {self.max_rounds} that this organisation allows"
        if self.max_steps is not None and (begin.max_steps is None or begin.max_steps > self.max_steps):
            steps = "as many steps as its rows make" if begin.max_steps is None else f"{begin.max_steps} steps"
            return f"a visit of {steps} may be longer than the {self.max_steps} steps that this organisation allows"
        if self.needs_secure_sum and not begin.secure_sum:
            return "this organisation asks for a secure sum, and the server would see its updates"
        if reason := self._epsilon_problem(begin):
            return reason
        if self.clients is not None and (others := sorted(set(begin.clients) - set(self.clients))):
            return f"client {others[0]!r} may not be asked by this organisation's policy"
        return None

    def _epsilon_problem(self, begin: Begin) -> str | None:
        """Why a run's guarantee is too weak; None where it is not, or nobody asks."""
        if self.max_epsilon is None:
            return None
        asks = f"this organisation asks for epsilon {self.max_epsilon:g} or less, unit: {self.epsilon_unit}"
        privacy = begin.privacy
        if privacy is None:
            return f"the run has no guarantee, and {asks}"
        of_clients = privacy.unit == "example" and self.epsilon_unit == "client"
        epsilon = privacy.client_epsilon if of_clients else privacy.epsilon
        if epsilon is None:
            return f"the run guarantees rows alone, and {asks}"
        if epsilon > self.max_epsilon:
            return f"the run guarantees epsilon {epsilon:g}, and {asks}"
        return None

    def visible(self, splits: Mapping[str, SplitFacts]) -> dict[str, SplitFacts]:
        """Return what the server may know of each split: the clients that may be asked, and those with enough rows."""
        return {
            name: facts.model_copy(
                update={
                    "rows": {
                        client_id: count
                        for client_id, count in facts.rows.items()
                        if (self.clients is None or client_id in self.clients)
                        and (name == "train" or count >= self.min_rows)
                    }
                }
            )
            for name, facts in splits.items()
        }


def _of(spec: Mapping[str, Any], *path: str) -> Any:
    value: Any = spec
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def read_policy(path: Path | None) -> Policy:
    """Read a policy from a file; without one, the defaults, which ask for approval of each run.

    Args:
        path: a YAML file, or None.

    Raises:
        ConfigError: naming the file and the key that is unknown or has a value of a wrong kind.
    """
    if path is None:
        return Policy()
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"{path}, the worker's policy, cannot be read: {' '.join(str(error).split())[:200]}"
        ) from None
    content = {} if content is None else content
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} is no list of keys and values; write for example max_rounds: 50")
    known = {each.name: each for each in fields(Policy)}
    made = {}
    for name, value in content.items():
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ConfigError(f"{path} has {name!r}, which no policy has; {hint}choose from {', '.join(known)}")
        made[name] = _checked(str(path), name, value, getattr(Policy(), name))
    return Policy(**made)


_NUMBERS = {"max_rounds": 1, "max_steps": 1, "min_rows": 1}
_CHOICES = {
    "tasks": ("sft", "dpo", "kto"),
    "approve": ("auto", "ask"),
    "epsilon_unit": ("client", "example"),
}


def _checked(where: str, name: str, value: Any, default: Any) -> Any:
    """Return a value of the kind that a key has."""
    if value is None and default is None:
        return None
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{where}: {name} is {value!r}; write true or false")
        return value
    if name in _NUMBERS or name == "max_epsilon":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _NUMBERS and not (isinstance(value, int) and is_number and value >= _NUMBERS[name]):
            raise ConfigError(f"{where}: {name} is {value!r}; write a whole number from {_NUMBERS[name]}")
        if not is_number or not 0 < value < float("inf"):
            raise ConfigError(f"{where}: {name} is {value!r}; write a positive number")
        return value
    if name in ("approve", "epsilon_unit"):
        if value not in _CHOICES[name]:
            raise ConfigError(f"{where}: {name} is {value!r}; write {' or '.join(_CHOICES[name])}")
        return value
    if name == "clients" and value == "all":
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ConfigError(f"{where}: {name} is {value!r}; write a list of names, such as [{_example(name)}]")
    if name in _CHOICES and (wrong := [each for each in value if each not in _CHOICES[name]]):
        raise ConfigError(f"{where}: {name} has {wrong[0]!r}; choose from {', '.join(_CHOICES[name])}")
    return tuple(value)


def _example(name: str) -> str:
    return {"tasks": "sft", "strategies": "fedavg", "columns": "main_language"}.get(name, "name")
