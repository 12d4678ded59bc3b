"""The coefficients of a matrix mechanism, in a file: read, checked and, for one form, made by formula.

JSON, or safetensors with the numbers as tensors of the same names:

    {"coefficients": [1.0, 0.5, ...]}                Toeplitz: the first column of C, as far as it is not zero
    {"rows": [[1.0, 0.0], [1.0, 0.5], ...]}          banded: rows[t][j] = C[t, t - j], a row for each round
    {"theta": [0.9, 0.3], "omega": [0.4, 0.2]}       BLT: c_0 = 1, c_j = sum_i omega_i theta_i^(j-1)

and in JSON, if wanted, "source": a sentence. Good coefficients are made offline, by jax_privacy for instance. What is
wrong with them can cost score and never privacy: the sensitivity is worked out from what the file holds
(`sensitivity.py`).

`square_root_coefficients` needs no optimisation: the square root of the matrix of ones, C = A^(1/2), has
c_j = binom(2j, j) / 4^j; cut to a few bands it is the banded square root factorisation (Kalinin and Lampert 2024,
arXiv 2405.13763, section 4). Imports no torch.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.noise_forms import Banded, Blt, NoiseForm, Toeplitz

__all__ = ["MOST_BANDS", "MOST_BUFFERS", "matrix_text", "read_matrix", "square_root_coefficients"]

MOST_BANDS = 1024
"""Each is a noise of the adapter's size that the server keeps."""
MOST_BUFFERS = 32
"""Of a BLT."""
_MOST_ROWS = 4096
"""Rounds of a matrix that differs from round to round: its inverse is worked out whole."""
_MOST_BYTES = 64 * 2**20
_NUMBERS = ("coefficients", "rows", "theta", "omega")
_FORMS = (("coefficients",), ("rows",), ("omega", "theta"))

Array = npt.NDArray[np.float64]


def read_matrix(path: Path, num_rounds: int) -> NoiseForm:
    """Return the form that a file describes.

    Args:
        path: of the file.
        num_rounds: rounds of the run.

    Raises:
        ConfigError: naming the file and what is wrong with it.

    >>> read_matrix(Path("none.json"), 3)
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: dp_matrix none.json cannot be read (No such file or directory); \
fedllm-train privacy-matrix writes one
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"dp_matrix {path} is over {_MOST_BYTES >> 20} MB, which no coefficients need")
        content = _of_safetensors(path) if path.suffix == ".safetensors" else _of_json(path)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"dp_matrix {path} cannot be read ({reason}); fedllm-train privacy-matrix writes one"
        ) from None
    found = tuple(sorted(name for name in _NUMBERS if name in content))
    if found not in _FORMS:
        raise ConfigError(
            f"dp_matrix {path} holds {' and '.join(sorted(content)) or 'nothing'}; give coefficients, or rows, or "
            "theta and omega, and nothing else but a source"
        )
    if odd := sorted(content.keys() - {*_NUMBERS, "source"}):
        raise ConfigError(f"dp_matrix {path} holds {odd[0]!r}, which nothing reads; leave it out")
    numbers = {name: _numbers(content[name], name, path) for name in found}
    if "rows" in numbers:
        return _banded(numbers["rows"], path, num_rounds)
    for name, values in numbers.items():
        if values.ndim != 1 or not values.size:
            raise ConfigError(f"dp_matrix {path}: {name} has shape {values.shape}; give a list of numbers")
    if "theta" in numbers:
        return _blt(numbers["theta"], numbers["omega"], path, num_rounds)
    values = np.trim_zeros(numbers["coefficients"], "b")
    if not values.size or not values[0] > 0:
        raise ConfigError(f"dp_matrix {path}: the first of its coefficients must be positive")
    _check_bands(len(values[:num_rounds]), path)
    return _checked(Toeplitz(coefficients=tuple(values[:num_rounds].tolist())), path, num_rounds)


def square_root_coefficients(num_bands: int) -> Array:
    """Return the first coefficients of the square root of the matrix of ones.

    Args:
        num_bands: at least 1.

    >>> square_root_coefficients(4).tolist()
    [1.0, 0.5, 0.375, 0.3125]
    """
    steps = np.arange(1, num_bands)
    return np.concatenate([[1.0], np.cumprod((2 * steps - 1) / (2 * steps))])


def matrix_text(coefficients: Array, source: str) -> str:
    """Return the content of a file with Toeplitz coefficients.

    >>> matrix_text(np.array([1.0, 0.5]), "by hand").strip()
    '{"source": "by hand", "coefficients": [1.0, 0.5]}'
    """
    return json.dumps({"source": source, "coefficients": coefficients.tolist()}) + "\n"


def _of_json(path: Path) -> Mapping[str, Any]:
    def refuse(word: str) -> float:
        raise ValueError(f"{word} is no number")

    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"dp_matrix {path} is no JSON ({error}); see fedllm-train privacy-matrix --help") from None
    if not isinstance(content, dict):
        raise ConfigError(f"dp_matrix {path} holds no object; see fedllm-train privacy-matrix --help")
    return content


def _of_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"dp_matrix {path} is no safetensors file ({error}); write it again") from None


def _numbers(value: Any, name: str, path: Path) -> Array:
    try:
        numbers = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(f"dp_matrix {path}: {name} is no list of numbers of one length; write it again") from None
    if not np.isfinite(numbers).all():
        raise ConfigError(f"dp_matrix {path}: {name} has numbers that are not finite; write it again")
    return numbers


def _check_bands(num_bands: int, path: Path) -> None:
    if num_bands > MOST_BANDS:
        raise ConfigError(
            f"dp_matrix {path} has {num_bands} bands, and the server keeps a noise of the adapter's size for each; "
            f"use at most {MOST_BANDS}, or a BLT"
        )


def _banded(rows: Array, path: Path, num_rounds: int) -> NoiseForm:
    if rows.ndim != 2 or not rows.size:
        raise ConfigError(f"dp_matrix {path}: rows has shape {rows.shape}; give a list of lists of one length")
    if len(rows) < num_rounds:
        raise ConfigError(f"dp_matrix {path} has rows for {len(rows)} rounds, and the run has {num_rounds}")
    if len(rows) > _MOST_ROWS:
        raise ConfigError(
            f"dp_matrix {path} has rows for {len(rows)} rounds; give at most {_MOST_ROWS}, or coefficients"
        )
    if not (rows[:, 0] > 0).all():
        raise ConfigError(f"dp_matrix {path}: the first number of every row must be positive")
    _check_bands(rows.shape[1], path)
    used = rows[:num_rounds, :num_rounds].tolist()
    return _checked(Banded(rows=tuple(tuple(row) for row in used)), path, num_rounds)


def _blt(theta: Array, omega: Array, path: Path, num_rounds: int) -> NoiseForm:
    if theta.shape != omega.shape or len(theta) > MOST_BUFFERS:
        raise ConfigError(
            f"dp_matrix {path} has {len(theta)} theta and {len(omega)} omega; give as many, and at most {MOST_BUFFERS}"
        )
    if ((theta < 0) | (theta >= 1)).any():
        raise ConfigError(f"dp_matrix {path}: theta must be 0 or more and below 1")
    return _checked(Blt(theta=tuple(theta.tolist()), omega=tuple(omega.tolist())), path, num_rounds)


def _checked(form: Toeplitz | Banded | Blt, path: Path, num_rounds: int) -> NoiseForm:
    """Refuse coefficients under which noise grows without end."""
    with np.errstate(over="ignore", invalid="ignore"):
        largest = float(form.sum_deviations(num_rounds).max())
    if not largest <= 1e6 * math.sqrt(num_rounds):
        raise ConfigError(
            f"dp_matrix {path}: its inverse makes the noise grow without end (to {largest:.3g} times one round's "
            f"within {num_rounds} rounds); write other coefficients"
        )
    return form
