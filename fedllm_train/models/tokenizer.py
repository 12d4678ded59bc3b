"""The tokenizer a run trains with: settled before the first row is encoded, known again by its digest.

TRL changes a tokenizer while it builds a trainer: another chat template (`chat_template_path`), end token or padding.
Rows are encoded before that (`clients/token_cache.py`), so the same changes are made here first, on a copy of the
tokenizer, and TRL finds nothing left to change.
"""

import json
from copy import copy, deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.rendering import own_template
from fedllm_train.clients.objectives import ClientArgs

__all__ = ["prepared_tokenizer", "tokenizer_record", "with_settled_tokenizer"]

_TEMPLATE_FILES = (".jinja", ".j2")


def prepared_tokenizer(tokenizer: Any, args: ClientArgs) -> Any:
    """Return the tokenizer as TRL's trainer would leave it; the one given is not changed.

    Args:
        tokenizer: beside the model, or given by the caller.
        args: TRL's settings; `chat_template_path`, `eos_token` and `pad_token` where it has them.

    Raises:
        ConfigError: if a setting cannot be honoured, or there is no chat template in the end.
    """
    path, eos, pad = (getattr(args, name, None) for name in ("chat_template_path", "eos_token", "pad_token"))
    if path is not None or eos is not None or pad is not None or tokenizer.pad_token is None:
        tokenizer = deepcopy(tokenizer)
        if eos is not None:
            tokenizer.eos_token = _known(tokenizer, "eos_token", eos)
        if path is not None:
            _take_template(tokenizer, path)
        pad = pad or tokenizer.pad_token or tokenizer.eos_token
        if pad is not None:
            tokenizer.pad_token = _known(tokenizer, "pad_token", pad)
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"the tokenizer of model {tokenizer.name_or_path!r} has no chat template; use an instruct model, give one "
            "by chat_template_path, or set tokenizer.chat_template and save it beside the model"
        )
    return tokenizer


def with_settled_tokenizer(args: ClientArgs, tokenizer: Any) -> ClientArgs:
    """Return TRL's settings for a trainer whose tokenizer `prepared_tokenizer` made: without the template's path.

    TRL would read the template once more, and for a folder resize the model's embeddings. The end token of the
    template's own tokenizer stays among the settings: TRL tells the model of it.
    """
    if getattr(args, "chat_template_path", None) is None:
        return args
    args = copy(args)
    if not args.chat_template_path.endswith(_TEMPLATE_FILES):
        args.eos_token = tokenizer.eos_token
    args.chat_template_path = None
    return args


def tokenizer_record(tokenizer: Any) -> dict[str, str]:
    """Return the digests by which a resumed run knows its tokenizer and its chat template again."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        known: Any = tokenizer.get_vocab()
    else:
        known = json.loads(backend.to_str())
        # Every call that truncates or pads sets these again.
        known.pop("truncation", None)
        known.pop("padding", None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    content = json.dumps([known, special], sort_keys=True, ensure_ascii=False)
    return {
        "sha256": sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
        "chat_template_sha256": sha256(own_template(tokenizer).encode("utf-8", "surrogatepass")).hexdigest(),
    }


def _known(tokenizer: Any, name: str, token: str) -> str:
    if token not in tokenizer.get_vocab():
        raise ConfigError(
            f"{name} {token!r} is no token of {tokenizer.name_or_path!r}; name one that is, such as "
            f"{tokenizer.all_special_tokens[:1] or list(tokenizer.get_vocab())[:1]}"
        )
    return token


def _take_template(tokenizer: Any, path: str) -> None:
    if path.endswith(_TEMPLATE_FILES):
        try:
            tokenizer.chat_template = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"chat_template_path {path!r} cannot be read ({reason}); name a template file"
            ) from error
        return
    try:
        source = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"chat_template_path {path!r} is neither a .jinja file nor a tokenizer that can be loaded ({reason}); "
            "name one"
        ) from error
    if source.chat_template is None:
        raise ConfigError(f"chat_template_path {path!r} is a tokenizer without a chat template; name another one")
    added = [token.content for token in source.added_tokens_decoder.values() if token.content not in tokenizer.vocab]
    if added:
        raise ConfigError(
            f"chat_template_path {path!r} brings {len(added)} tokens that {tokenizer.name_or_path!r} does not have "
            f"(such as {added[0]!r}); the base has no trained embeddings for them and an adapter would not hold any. "
            "Give the template alone as a .jinja file, or add the tokens to the base by trl.clone_chat_template first"
        )
    tokenizer.chat_template = source.get_chat_template()
    if source.eos_token is not None:
        tokenizer.eos_token = _known(tokenizer, "eos_token", source.eos_token)
