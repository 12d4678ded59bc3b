"""Log-probabilities that were calculated once, for whoever asks for them again.

In one evaluation the same reference is read for the policy, for the base, for every group of personal adapters; in the
next one, of a run that started from this one, this policy is the reference. What a model says of a sequence depends
on its weights and the tokens alone, so that is what the key is made of: base, adapter, precision and kind of device,
library versions, and for each sequence its token ids with the marks of what is scored. Names, paths and settings play
no part.

One Parquet file a policy (`<digest of the key>.parquet`: 16 bytes and a number for each sequence), whose metadata hold
the key and a checksum. A file that is damaged, or holds another key than its name says, is named and made again. No
torch here.
"""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import write_file
from fedllm_eval.policy.adapter_content import adapter_content

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["Kept", "KeptLogps", "KeptOfOne", "KnownLogps"]

VERSION = 1
"""Counted up when a change of code moves log-probabilities by more than rounding."""
_META = b"fedllm_logps"


@dataclass
class KnownLogps:
    """Log-probabilities of sequences under one policy, by `encoded_rows.sequence_key`."""

    name: str
    values: dict[bytes, float] = field(default_factory=dict)
    num_taken: int = 0
    """How many were asked for and were there."""
    num_new: int = 0
    """How many came since it was read or saved."""

    def get(self, key: bytes) -> float:
        """Return the sum in nats, NaN where it is not known.

        >>> known = KnownLogps("policy")
        >>> known.put(b"a", -1.5)
        -1.5
        >>> known.get(b"a"), known.get(b"b")
        (-1.5, nan)
        """
        value = self.values.get(key, math.nan)
        self.num_taken += key in self.values
        return value

    def put(self, key: bytes, value: float) -> float:
        """Keep a sum and return it; one that is known stays as it is and is returned, so that equals score equal."""
        if key not in self.values:
            self.values[key] = value
            self.num_new += 1
        return self.values[key]


class Kept(Protocol):
    """Where log-probabilities are looked up."""

    def of(self, policy: "Policy") -> KnownLogps | None:
        """Return what is known of a policy; None where nothing is to be kept of it."""
        ...


@dataclass(frozen=True)
class KeptOfOne:
    """What is kept of one policy alone: of the reference, while personal adapters come and go before it."""

    kept: Kept
    policy: "Policy | None"

    def of(self, policy: "Policy") -> KnownLogps | None:
        """Return what is known of that policy, None for every other."""
        return self.kept.of(policy) if policy is self.policy else None


@dataclass
class KeptLogps:
    """The log-probabilities of all policies of an evaluation, and where they are kept.

    Without a folder they live as long as the evaluation.
    """

    folder: Path | None = None
    """Where they are read and written; made where it is missing."""
    beside: Sequence[Path] = ()
    """Folders that are read as well, such as those of earlier evaluations; never written."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each file that could not be used."""
    _known: dict[str, KnownLogps] = field(default_factory=dict)
    _keys: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, policy: "Policy") -> KnownLogps | None:
        """Return what is known of a policy; None for one that cannot be recognised, such as a model made in memory."""
        key = _policy_key(policy)
        if key is None:
            return None
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        if name not in self._known:
            found = KnownLogps(policy.name)
            for folder in (*([self.folder] if self.folder else ()), *self.beside):
                for each, value in self._read(folder / f"{name}.parquet", key).items():
                    found.values.setdefault(each, value)
            self._known[name], self._keys[name] = found, key
        return self._known[name]

    def save(self) -> None:
        """Write what is new.

        Raises:
            ConfigError: if the folder cannot be written.
        """
        if self.folder is None:
            return
        try:
            for name, known in self._known.items():
                if known.num_new:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    _write(self.folder / f"{name}.parquet", self._keys[name], known.values)
                    known.num_new = 0
        except OSError as error:
            raise ConfigError(
                f"log-probabilities cannot be kept in {self.folder}: {error.strerror}; name another folder by --cache"
            ) from error

    def taken(self) -> list[str]:
        """Return a phrase for each policy of which log-probabilities were known."""
        return [
            f"log-probabilities of {known.num_taken:,} sequences under {known.name}"
            for known in self._known.values()
            if known.num_taken
        ]

    def _read(self, path: Path, key: dict[str, Any]) -> dict[bytes, float]:
        if not path.is_file():
            return {}
        try:
            table = pq.read_table(path)
            meta = json.loads((table.schema.metadata or {})[_META])
            keys, values = table["key"].to_pylist(), table["logp"].to_numpy()
            if meta["key"] != key:
                reason = "it belongs to another policy than its name says"
            elif meta["sha256"] != _checksum(keys, values):
                reason = "its content does not have its checksum"
            else:
                return dict(zip(keys, values.tolist(), strict=True))
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
        self.problems.append(f"kept log-probabilities {path} are not used and are made again: {reason}")
        return {}


def _policy_key(policy: "Policy") -> dict[str, Any] | None:
    """What settles a policy's log-probabilities of given tokens; None where that cannot be told."""
    describe = getattr(policy, "describe", None)
    base = describe()["base_digest"] if describe is not None else None
    adapter = adapter_content(policy.adapter) if base is not None else None
    if base is None or adapter is None:
        return None
    first = next(policy.model.parameters())
    return {
        "version": VERSION,
        "base": base,
        "adapter": adapter,
        "dtype": str(first.dtype),
        "device": first.device.type,
        "attention": str(getattr(policy.model.config, "_attn_implementation", None)),
        **{package: importlib.metadata.version(package) for package in ("torch", "transformers", "peft")},
    }


def _checksum(keys: Sequence[bytes], values: Any) -> str:
    return hashlib.sha256(b"".join(keys) + np.asarray(values, dtype="<f8").tobytes()).hexdigest()


def _write(path: Path, key: dict[str, Any], known: dict[bytes, float]) -> None:
    keys = sorted(known)
    values = np.array([known[each] for each in keys], dtype=np.float64)
    meta = json.dumps({"key": key, "sha256": _checksum(keys, values)}, sort_keys=True)
    table = pa.table({"key": pa.array(keys, pa.binary(16)), "logp": pa.array(values, pa.float64())})
    # Sound or unusable, by its checksum: no need to wait for the disk.
    write_file(path, lambda place: pq.write_table(table.replace_schema_metadata({_META: meta}), place), sync=False)
