"""Files of coefficients: what is read, what is refused, and the command that writes one."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedllm_data.errors import ConfigError
from fedllm_train.cli import main
from fedllm_train.privacy.matrix_file import read_matrix, square_root_coefficients
from fedllm_train.privacy.noise_forms import Banded, Blt, Toeplitz
from fedllm_train.privacy.sensitivity import toeplitz_matrix


def written(folder, content, name="matrix.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ({"coefficients": [1, 0.5, 0.0]}, Toeplitz(coefficients=(1.0, 0.5))),
        ({"coefficients": [2.0, -0.5], "source": "by hand"}, Toeplitz(coefficients=(2.0, -0.5))),
        ({"coefficients": [1.0, 0.5, 0.4, 0.3, 0.2]}, Toeplitz(coefficients=(1.0, 0.5, 0.4))),
        ({"rows": [[1, 0], [1, 0.5], [2, 0.1], [9, 9]]}, Banded(rows=((1.0, 0.0), (1.0, 0.5), (2.0, 0.1)))),
        ({"theta": [0.9], "omega": [0.3]}, Blt(theta=(0.9,), omega=(0.3,))),
    ],
)
def test_the_forms_are_read_from_json_and_safetensors(tmp_path, content, form):
    assert read_matrix(written(tmp_path, content), 3) == form
    tensors = {name: np.array(value, dtype=np.float64) for name, value in content.items() if name != "source"}
    save_file(tensors, tmp_path / "matrix.safetensors")
    assert read_matrix(tmp_path / "matrix.safetensors", 3) == form


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1, 2]", "holds no object"),
        ('{"coefficients": [1.0, NaN]}', "NaN is no number"),
        ('{"coefficients": [1.0, 1e999]}', "not finite"),
        ("[" * 100_000, "is no JSON"),
        ({}, "holds nothing"),
        ({"coefficients": [1.0], "theta": [0.5]}, "holds coefficients and theta"),
        ({"theta": [0.5]}, "holds theta"),
        ({"coefficients": [1.0], "bands": 3}, "'bands', which nothing reads"),
        ({"coefficients": []}, "shape"),
        ({"coefficients": 3.0}, "shape"),
        ({"coefficients": [[1.0]]}, "shape"),
        ({"coefficients": ["a"]}, "no list of numbers"),
        ({"coefficients": [1.0, None]}, "not finite"),
        ({"coefficients": {"a": 1}}, "no list of numbers"),
        ({"coefficients": [0.0, 1.0]}, "first of its coefficients must be positive"),
        ({"coefficients": [-1.0]}, "first of its coefficients must be positive"),
        ({"coefficients": [0.0]}, "first of its coefficients must be positive"),
        ({"coefficients": [1.0, -9.0]}, "grow without end"),
        ({"coefficients": [1e-300]}, "grow without end"),
        ({"rows": [[1.0, 0.5], [1.0]]}, "no list of numbers of one length"),
        ({"rows": [[1.0, 0.5]] * 9}, "rows for 9 rounds, and the run has 20"),
        ({"rows": [[0.0, 0.5]] * 20}, "first number of every row"),
        ({"rows": [1.0] * 20}, "list of lists"),
        ({"rows": [[1.0]] * 5000}, "at most 4096"),
        ({"theta": [0.5, 0.5], "omega": [0.5]}, "2 theta and 1 omega"),
        ({"theta": [1.0], "omega": [0.5]}, "below 1"),
        ({"theta": [-0.1], "omega": [0.5]}, "0 or more"),
        ({"theta": [0.5] * 33, "omega": [0.0] * 33}, "at most 32"),
        ({"theta": [0.5], "omega": [99.0]}, "grow without end"),
    ],
)
def test_what_is_no_matrix_is_refused_in_one_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ConfigError, match=message) as refused:
        read_matrix(path, 20)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "matrix.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="no safetensors file"):
        read_matrix(path, 3)


def test_too_many_bands_are_refused(tmp_path):
    path = written(tmp_path, {"coefficients": [1.0] + [0.5] * 2000})
    with pytest.raises(ConfigError, match="2001 bands"):
        read_matrix(path, 3000)


def test_the_square_root_is_one():
    root = toeplitz_matrix(square_root_coefficients(6))
    np.testing.assert_allclose(root @ root, np.tril(np.ones((6, 6))))


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_what_a_run_reads_and_says_what_it_buys(tmp_path, capsys):
    out = tmp_path / "matrix.json"
    flags = ["--bands", "8", "--num-rounds", "64", "--min-separation", "8", "--out", str(out)]
    assert main(["privacy-matrix", *flags, "--dry-run"]) == 0
    assert not out.exists()
    capsys.readouterr()
    assert main(["privacy-matrix", *flags, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    form = read_matrix(out, 64)
    assert form == Toeplitz(coefficients=tuple(square_root_coefficients(8).tolist()))
    assert told["sensitivity"] == pytest.approx(form.sensitivity(64, 8, 64))
    # Independent noise: sensitivity sqrt(8) turns, deviation sqrt(64) on the sum.
    ratio = form.sensitivity(64, 8, 64) * form.sum_deviations(64)[-1] / (8**0.5 * 8)
    assert told["noise_against_independent"] == pytest.approx(ratio)
    assert ratio < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bands", "0", "--num-rounds", "9"], "--bands is 0"),
        (["--bands", "9", "--num-rounds", "3"], "no more than there are rounds"),
        (["--bands", "2", "--num-rounds", "3", "--max-participations", "0"], "max-participations is 0"),
    ],
)
def test_flags_that_make_no_matrix_are_refused(tmp_path, capsys, flags, message):
    assert main(["privacy-matrix", *flags, "--out", str(tmp_path / "matrix.json")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "matrix.json").exists()


def test_a_file_that_is_there_is_kept(tmp_path, capsys):
    out = written(tmp_path, "mine")
    assert main(["privacy-matrix", "--bands", "2", "--num-rounds", "3", "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == "mine"
