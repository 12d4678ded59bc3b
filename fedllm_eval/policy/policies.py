"""Policies: a base model with at most one adapter switched on, loaded from a run, an adapter or a model folder.

Policy and reference that stand on the same base share its weights in memory (a `Backbone`), so a reference costs an
adapter, not a second model. Imports torch, transformers and peft when a policy is loaded, not before.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.adapter_fit import check_leaves_base_alone, check_loaded, without_warnings_about_keys
from fedllm_eval.policy.base_identity import BaseIdentity, check_same_base, recorded_base, weights_digest
from fedllm_eval.policy.causal_base import load_causal_base
from fedllm_eval.policy.locate import Location, locate
from fedllm_eval.policy.rendering import fix_date
from fedllm_eval.texts import text_bytes

__all__ = ["Backbone", "Policy", "adapter_digest", "load_policy", "load_reference"]

DIGEST_BYTES = 1 << 20


@dataclass
class Backbone:
    """A base model in memory, and the adapters loaded onto it."""

    model: Any
    """A `PreTrainedModel`, or the `PeftModel` around it once an adapter is loaded."""
    name: str
    folder: Path | None = None
    """Where the base came from; None for a model made in memory, which is shared with nothing."""
    revision: str | None = None
    adapters: dict[Path, str] = field(default_factory=dict)
    """Adapter folder -> name inside the `PeftModel`."""
    _num_loaded: int = 0

    def load_adapter(self, folder: Path) -> str:
        """Load an adapter folder once and return its name inside the model."""
        from peft import PeftConfig, PeftModel

        key = folder.resolve()
        if key not in self.adapters:
            name = f"adapter{self._num_loaded}"
            self._num_loaded += 1
            try:
                check_leaves_base_alone(self.model, PeftConfig.from_pretrained(str(folder)), str(folder))
                with without_warnings_about_keys():
                    if self.adapters:
                        self.model.load_adapter(str(folder), adapter_name=name)
                    else:
                        self.model = PeftModel.from_pretrained(self.model, str(folder), adapter_name=name)
                self._check_loaded(name, folder)
            except ConfigError:
                raise
            except (OSError, ValueError, RuntimeError) as error:
                raise ConfigError(
                    f"adapter {folder} does not fit base model {self.name!r}: {_one_line(error)}; name the base it "
                    "was trained on"
                ) from error
            self.model.eval()
            self.adapters[key] = name
        return self.adapters[key]

    def _check_loaded(self, name: str, folder: Path) -> None:
        """Refuse an adapter that does not fit, and leave the model as it was without it."""
        try:
            check_loaded(self.model, name, str(folder))
        except ConfigError:
            if self.adapters:
                self.model.delete_adapter(name)
            else:
                self.model = self.model.unload()
            raise

    def unload_adapter(self, folder: Path) -> None:
        """Forget an adapter, so that scoring many of them one after the other takes the memory of one."""
        if len(self.adapters) > 1 and (name := self.adapters.pop(folder.resolve(), None)) is not None:
            self.model.set_adapter(next(iter(self.adapters.values())))  # PEFT warns when it deletes the active one
            self.model.delete_adapter(name)


@dataclass(frozen=True)
class Policy:
    """A base model with one adapter or none, and the tokenizer it reads with."""

    name: str
    backbone: Backbone
    tokenizer: Any
    adapter: Path | None = None
    location: Location | None = None

    @property
    def model(self) -> Any:
        """The model in memory; only `active` decides which adapter is on."""
        return self.backbone.model

    @contextmanager
    def active(self) -> Iterator[Any]:
        """Switch this policy's adapter on, or all adapters off, and give the model."""
        model = self.backbone.model
        if not self.backbone.adapters:
            yield model
        elif self.adapter is None:
            with model.disable_adapter():
                yield model
        else:
            model.set_adapter(self.backbone.load_adapter(self.adapter))
            yield model

    def describe(self) -> dict[str, str | None]:
        """Return what identifies this policy in a results file."""
        return {
            "name": self.name,
            "revision": self.location.revision if self.location else None,
            "base": self.backbone.name,
            "base_revision": self.backbone.revision,
            "base_digest": None if self.backbone.folder is None else _base_digest(self.backbone.folder),
            "adapter_sha256": None if self.adapter is None else adapter_digest(self.adapter),
        }


def load_policy(
    run_or_model: str | Path, revision: str | None = None, *, share: Policy | None = None, device: str | None = None
) -> Policy:
    """Load a policy from a run folder, a PEFT adapter or a plain model; each a local folder or a Hub id.

    Args:
        run_or_model: what to load. A run folder gives its `adapter/` on the base that its `config.yaml` names, or its
            `model/`.
        revision: branch, tag or commit of a Hub id.
        share: a policy already in memory; its base model is used again where both stand on the same.
        device: torch device; a CUDA device where there is one, else the CPU. Weights are float32 on either.

    Raises:
        ConfigError: if the folder is none of the three, or its base model cannot be found or loaded, lacks weights, is
            no decoder-only causal language model, or is known not to be the one that the adapter was trained on.
        HubError: if the Hub id cannot be fetched.
    """
    location = locate(run_or_model, revision)
    if location.model is not None:
        base = Location(name=location.name, kind="model", folder=location.model, revision=location.revision)
    else:
        base = (
            location if location.base is None else _locate_base(location.name, location.base, location.base_revision)
        )
    if base.kind != "model":
        raise ConfigError(
            f"base {base.name!r} of {location.name!r} is itself a {base.kind}, not a plain model; "
            "merge its adapter and save it first"
        )
    if location.adapter is not None:
        _check_base(location.adapter, base, called=location.name)
    tokenizer = _load_tokenizer(location.adapter, base)
    if location.template_date is not None:
        _fix_date(tokenizer, location)
    if share is not None and share.backbone.folder == base.folder.resolve():
        backbone = share.backbone
    else:
        backbone = Backbone(_load_model(base, device), base.name, base.folder.resolve(), base.revision)
    if location.adapter is not None:
        backbone.load_adapter(location.adapter)
    return Policy(location.name, backbone, tokenizer, location.adapter, location)


def _locate_base(name: str, base: str, revision: str | None) -> Location:
    """Find a base; a published run calls one that was a folder `./` and its last part."""
    if base.startswith("./") and not Path(base).is_dir():
        raise ConfigError(
            f"{name!r} was trained on a local folder, of which it tells the name alone ({base}); put that base model "
            "into the working folder under this name"
        )
    return locate(base, revision)


def load_reference(run: Policy | str | Path, revision: str | None = None) -> Policy:
    """Load the policy that a run started from: its base with its `start_adapter/`, or the base alone.

    A run with full fine-tuning shares no weights with its base, which is loaded beside it.

    Args:
        run: a policy in memory, whose base model is shared, or what `load_policy` takes.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ConfigError: if the policy is a plain model, which started from nothing that its folder knows.
    """
    policy = run if isinstance(run, Policy) else load_policy(run, revision)
    if policy.location is not None and policy.location.model is not None:
        base = load_policy(str(policy.location.base), policy.location.base_revision)
        if base.location is not None:
            _check_base(policy.location.model, base.location, called=policy.name)
        return base
    if policy.adapter is None:
        raise ConfigError(f"{policy.name!r} is a plain model and has no reference of its own; name one by --reference")
    start_adapter = policy.location.start_adapter if policy.location else None
    if start_adapter is not None:
        policy.backbone.load_adapter(start_adapter)
    name = policy.backbone.name if start_adapter is None else f"{policy.name} (start adapter)"
    return Policy(name, policy.backbone, policy.tokenizer, start_adapter)


def _check_base(adapter: Path, base: Location, *, called: str) -> None:
    """Refuse what was trained on other weights than those of the base that it is scored on."""
    actual = BaseIdentity(name=base.name, revision=base.revision, weights=weights_digest(base.folder))
    check_same_base(recorded_base(adapter), actual, adapter=called)


def _load_model(base: Location, device: str | None) -> Any:
    import torch

    try:
        model: Any = load_causal_base(base.folder, dtype=torch.float32, local_files_only=True)
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{base.name!r} cannot be loaded as a causal language model: {_one_line(error)}; name a "
            "transformers checkpoint with safetensors weights"
        ) from error
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _load_tokenizer(adapter: Path | None, base: Location) -> Any:
    from transformers import AutoTokenizer

    # A run saves the tokenizer and the chat template it trained with beside its adapter.
    folder = adapter if adapter is not None and (adapter / "tokenizer_config.json").is_file() else base.folder
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} holds no tokenizer that can be loaded: {_one_line(error)}; save the tokenizer beside the model"
        ) from error


def _fix_date(tokenizer: Any, location: Location) -> None:
    """Let a template that writes the date write the one it was trained with."""
    try:
        fix_date(tokenizer, date.fromisoformat(str(location.template_date)))
    except ValueError as error:
        raise ConfigError(
            f"template_date in the config.yaml of {location.name!r} is {location.template_date!r}, which is no day; "
            "name the one the run began on, such as 2026-01-31"
        ) from error


def _base_digest(folder: Path) -> str:
    """Digest of a base model that is the same whatever the folder is called.

    Reading 15 GB to name a model takes longer than scoring a few clients, so each weight file counts by its size, its
    header and its last bytes: any training moves those.
    """
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        num_bytes = path.stat().st_size
        digest.update(text_bytes(f"{path.name}\0{num_bytes}\n"))
        with path.open("rb") as file:
            digest.update(file.read(DIGEST_BYTES))
            file.seek(max(0, num_bytes - DIGEST_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def adapter_digest(adapter: Path) -> str | None:
    """Return the SHA-256 of an adapter's weight file; None if there is no such file."""
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
