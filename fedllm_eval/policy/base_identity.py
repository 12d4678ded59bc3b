"""Which base model an adapter was trained on, and whether it is the one that it is put on.

An adapter fits every base of the same shapes, and means something on one alone. What is known of its base stands in
the `config.yaml` of the run that made it (name, commit, digest of the weights) or in PEFT's `adapter_config.json`
(name, perhaps a commit). Digests that are known and differ are refused. Where one of them is not known and the names
or commits differ, nobody can tell: that is a warning. Equal digests are enough, whatever the folders are called.

The digest is over the names, precisions, shapes and values of all tensors, so that it is the same for one file and for
several. Of a tensor larger than 64 KiB it reads 16 blocks of 4 KiB, evenly spaced: any training moves those, and 15 GB
take a second, not a minute. Imports no torch but for `*.bin` files.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import find_config, section

__all__ = ["BaseIdentity", "check_same_base", "recorded_base", "snapshot_folder", "weights_digest"]

logger = logging.getLogger(__name__)

_WHOLE_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 12
_NUM_BLOCKS = 16
_HEADER_BYTES = 1 << 27
"""More than the header of any safetensors file takes."""
_TORCH_DTYPES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8"},
}
"""torch's name of a precision -> that of safetensors."""


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """What is known of a base model."""

    name: str | None = None
    """Folder or Hub id."""
    revision: str | None = None
    """Commit on the Hub."""
    weights: str | None = None
    """From `weights_digest`."""


def weights_digest(folder: Path | None) -> str | None:
    """Return a digest of the weights of a model in a folder; None where they cannot be read.

    >>> weights_digest(None) is None
    True
    """
    if folder is None or not folder.is_dir():
        return None
    try:
        lines = sorted(_tensors(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # whoever loads it will say what is wrong
        return None
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}" if lines else None


def recorded_base(adapter: Path) -> BaseIdentity | None:
    """Return what is known of the base that an adapter was trained on; None where nothing is.

    Args:
        adapter: a folder with `adapter_config.json`, alone or in the folder of the run that made it.
    """
    # adapter/, best/ and start_adapter/ lie in the run's folder, personal/NAME/ one below; published, it is the root.
    for folder in (adapter, *list(adapter.resolve().parents)[:2]):
        if (base := _from_run(folder)) is not None:
            return base
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        name, revision = config.get("base_model_name_or_path"), config.get("revision")
    except (OSError, ValueError, AttributeError):
        return None
    return BaseIdentity(name=_text(name), revision=_commit(revision)) if _text(name) else None


def snapshot_folder(name: str | None, revision: str | None = None) -> Path | None:
    """Return where the files of a base model lie: its folder, or that of its commit in the Hub's cache.

    Args:
        name: folder or Hub id.
        revision: for a Hub id, the commit that was loaded.
    """
    if name is None:
        return None
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def check_same_base(recorded: BaseIdentity | None, actual: BaseIdentity, *, adapter: str) -> None:
    """Refuse an adapter on a base that is known to be another one; warn where that cannot be known.

    Args:
        recorded: the base that the adapter was trained on.
        actual: the base that it is put on.
        adapter: as it was given.

    Raises:
        ConfigError: if the digests of the weights are known and differ.

    >>> one, other = BaseIdentity(name="a", weights="sha256:1"), BaseIdentity(name="a", weights="sha256:2")
    >>> check_same_base(one, BaseIdentity(name="b", weights="sha256:1"), adapter="runs/a")
    >>> check_same_base(one, other, adapter="runs/a")
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: adapter 'runs/a' was trained on base 'a' with other weights (sha256:1) than those \
of 'a' (sha256:2); restore that base, or name it
    """
    if recorded is None or (recorded.name is None and recorded.weights is None):
        if actual.name is not None:
            logger.warning(
                "adapter %r does not say which base model it was trained on, so nobody can tell whether %r is that "
                "one; make sure of it",
                adapter,
                actual.name,
            )
        return
    trained_on = recorded.weights
    if trained_on is None and not _same_name(recorded.name, actual.name):
        trained_on = weights_digest(snapshot_folder(recorded.name, recorded.revision))
    if trained_on is not None and actual.weights is not None:
        if trained_on != actual.weights:
            raise ConfigError(
                f"adapter {adapter!r} was trained on base {recorded.name!r} with other weights "
                f"({trained_on[:19]}) than those of {actual.name!r} ({actual.weights[:19]}); restore that base, or "
                "name it"
            )
        return
    if not _same_name(recorded.name, actual.name):
        logger.warning(
            "adapter %r was trained on base %r and is put on %r; whether their weights are the same cannot be told "
            "from here, so make sure of it",
            adapter,
            recorded.name,
            actual.name,
        )
    elif recorded.revision is not None and actual.revision is not None and recorded.revision != actual.revision:
        logger.warning(
            "adapter %r was trained on revision %s of base %r and is put on revision %s; name that revision if the "
            "weights have changed since",
            adapter,
            recorded.revision,
            recorded.name,
            actual.revision,
        )


def _same_name(a: str | None, b: str | None) -> bool:
    if a is None or b is None:
        return a == b
    return a == b or (Path(a).exists() and Path(b).exists() and Path(a).resolve() == Path(b).resolve())


def _from_run(run: Path) -> BaseIdentity | None:
    config = find_config(run)
    model = {} if config is None else section(config, "model")
    if not _text(model.get("name")):
        return None  # some other program's
    return BaseIdentity(
        name=_text(model.get("name")), revision=_commit(model.get("revision")), weights=_text(model.get("weights"))
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _commit(value: object) -> str | None:
    """A commit of the Hub; of a folder, runs record a digest of its files in the same place."""
    text = _text(value)
    return None if text is None or text.startswith("sha256:") else text


def _tensors(folder: Path) -> Iterator[str]:
    """One line a tensor of all weight files of a model: its name, precision, shape and a digest of its values."""
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    for path in files:
        yield from _safetensors(path)
    if not files:
        for path in sorted(folder.glob("pytorch_model*.bin")):
            yield from _pickled(path)


def _safetensors(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < _HEADER_BYTES:
            raise ValueError(f"{path} has no header")
        header: dict[str, Any] = json.loads(file.read(length))
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = about["data_offsets"]
            digest = hashlib.sha256()
            for start, stop in _blocks(end - begin):
                file.seek(8 + length + begin + start)
                digest.update(file.read(stop - start))
            yield _line(name, about["dtype"], about["shape"], digest.hexdigest())


def _pickled(path: Path) -> Iterator[str]:
    import torch

    for name, tensor in torch.load(path, map_location="cpu", mmap=True, weights_only=True).items():
        values = tensor.detach().contiguous().flatten().view(torch.uint8)
        digest = hashlib.sha256()
        for start, stop in _blocks(values.numel()):
            digest.update(values[start:stop].numpy().tobytes())
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield _line(name, _TORCH_DTYPES.get(dtype, dtype), list(tensor.shape), digest.hexdigest())


def _blocks(num_bytes: int) -> Iterator[tuple[int, int]]:
    """Where the bytes that count begin and end: all of a small tensor, some of a large one."""
    if num_bytes <= _WHOLE_BYTES:
        yield 0, num_bytes
        return
    for number in range(_NUM_BLOCKS):
        start = number * (num_bytes - _BLOCK_BYTES) // (_NUM_BLOCKS - 1)
        yield start, start + _BLOCK_BYTES


def _line(name: str, dtype: str, shape: list[int], digest: str) -> str:
    return f"{name}\0{dtype}\0{shape}\0{digest}\n"
