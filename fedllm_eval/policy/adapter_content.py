"""What an adapter folder amounts to, as a digest: equal content is the same policy, whoever holds it.

The digest covers what settles the policy: every tensor's name, type, shape and bytes, and the settings that scale it.
Where a LoRA adapter changes nothing (every B is 0, as at the start of training, and nothing else is saved) its content
is `UNCHANGED`: it is the base. Reads the safetensors files themselves, so it needs no torch.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["UNCHANGED", "adapter_content"]

UNCHANGED = "unchanged"
"""Content of what leaves its base as it is, and of no adapter at all."""
SETTINGS_THAT_DO_NOT_COUNT = frozenset(
    ("base_model_name_or_path", "revision", "inference_mode", "init_lora_weights", "lora_dropout", "peft_version")
)
"""Where the base lies, how training began, and what is off when a policy is scored."""
ADAPTER_FILE = "adapter_model.safetensors"


def adapter_content(folder: Path | None) -> str | None:
    """Return a digest of what an adapter (or a whole model) does to its base.

    Args:
        folder: a PEFT adapter or a whole model; None is the base itself.

    Returns:
        `UNCHANGED`, or a digest that folders of equal content share; None where the files cannot tell.

    >>> adapter_content(None)
    'unchanged'
    >>> adapter_content(Path("no/such/folder")) is None
    True
    """
    if folder is None:
        return UNCHANGED
    config_file = folder / "adapter_config.json"
    try:
        if not config_file.is_file():
            return _digest_of_model(folder)
        config = json.loads(config_file.read_text(encoding="utf-8"))
        tensors, digest = _read(folder / ADAPTER_FILE)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if _changes_nothing(config, tensors):
        return UNCHANGED
    # PEFT writes sets as lists, in an order that differs from process to process.
    settings = {
        name: sorted(value, key=str) if isinstance(value, list) else value
        for name, value in config.items()
        if name not in SETTINGS_THAT_DO_NOT_COUNT
    }
    return hashlib.sha256(f"{digest}\0{json.dumps(settings, sort_keys=True)}".encode()).hexdigest()


def _changes_nothing(config: dict[str, Any], tensors: dict[str, bool]) -> bool:
    """Whether LoRA adds A B with B = 0 everywhere, and does nothing besides."""
    plain = config.get("peft_type") == "LORA" and not config.get("use_dora") and not config.get("modules_to_save")
    if not plain or config.get("trainable_token_indices") or config.get("lora_bias"):
        return False
    second = {name: zero for name, zero in tensors.items() if "lora_B" in name or "lora_embedding_B" in name}
    others = [
        name for name in tensors if name not in second and "lora_A" not in name and "lora_embedding_A" not in name
    ]
    return bool(second) and all(second.values()) and not others


def _read(path: Path) -> tuple[dict[str, bool], str]:
    """Tensor name -> whether all of it is 0, and a digest over all tensors that does not hang on their order."""
    zeros: dict[str, bool] = {}
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header, begin = _header(file, path.stat().st_size)
        for name in sorted(header):
            about = header[name]
            first, last = about["data_offsets"]
            file.seek(begin + first)
            content = file.read(last - first)
            zeros[name] = not any(content)
            digest.update(f"{name}\0{about['dtype']}\0{about['shape']}\0".encode())
            digest.update(content)
    return zeros, digest.hexdigest()


def _header(file: BinaryIO, num_bytes: int) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file (8 bytes of length, then JSON), and where the tensors begin."""
    length = int.from_bytes(file.read(8), "little")
    if length > num_bytes:
        raise ValueError(f"a header of {length} bytes in a file of {num_bytes}")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _digest_of_model(folder: Path) -> str | None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
