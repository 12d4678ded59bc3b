"""A report that lies there already, taken instead of computed: only where all that it follows from is the same.

Beside every report of a client repo lies `report_inputs.json`: what the report was made from, and the SHA-256 of each
of its files. Inputs are the bytes of all rows, the settings, and whatever computes: each file of this package,
Python, the kind of machine and the versions of the libraries it depends on. A report is taken where the inputs agree
and its files are as they were written, so that what is taken has the bytes that would be computed. Reports of
profiles, and those with scorers that are files or functions, leave no inputs and are always computed.
"""

import json
import platform
import re
from collections.abc import Mapping
from functools import cache
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fedllm_data.build_filter import least_client_rows
from fedllm_data.in_place import write_file
from fedllm_data.repo import open_repo

if TYPE_CHECKING:
    from fedllm_data.codebook import Codebook

__all__ = [
    "REPORT_INPUTS",
    "code_digest",
    "forget_inputs",
    "keep_inputs",
    "library_versions",
    "report_inputs",
    "take_report",
]

REPORT_INPUTS = "report_inputs.json"
_DOCUMENT = "heterogeneity.json"
_ALWAYS = ("codebook.json", "report.html", _DOCUMENT)
"""What every report consists of; the figures that it has depend on its axes."""
_BELOW = ("contourpy", "fonttools", "kiwisolver", "markupsafe", "pandas")
"""Libraries that those we depend on compute and draw with."""


def report_inputs(
    folder: Path,
    *,
    name: str | None = None,
    seed: int = 0,
    split: str | None = None,
    codebook: "Codebook | None" = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Return what a report of a client repo follows from, as plain JSON values.

    Args:
        folder: the repo.
        name: what the report calls the dataset; by default the last part of the folder's path.
        seed: seeds the null and the bootstrap.
        split: one split; None: all rows of all clients.
        codebook: the one that was given; None: it is made from the repo's rows.
        language: of the page alone; None: it carries all languages.

    Raises:
        ReportError: if the repo's build.json is broken.
        HubError: if there is no such folder.

    >>> report_inputs(Path("no/such/folder"))
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    repo = open_repo(folder)
    return {
        "name": name or folder.resolve().name,
        "rows": repo.revision,
        "min_client_rows": 1 if split else least_client_rows(repo),
        "split": split,
        "seed": seed,
        "codebook": codebook.digest if codebook else None,
        "language": language,
        "code": code_digest(),
        "versions": library_versions(),
    }


def take_report(repo_or_dir: str | Path, out: Path, **settings: Any) -> tuple[Path, dict[str, Any]] | None:
    """Put the report that a client repo or the output folder holds into the output folder, if it is the one asked for.

    Args:
        repo_or_dir: a client repo. Reports of a repo on the Hub are always computed.
        out: folder for the report; it may be the client repo itself.
        settings: name, seed, split, codebook and language, as `report_inputs` takes them.

    Returns:
        The folder that the report was taken from and the content of `heterogeneity.json`, or None if neither folder
        has a report that was made from the same inputs, whole and as it was written.

    Raises:
        ReportError: if the repo's build.json is broken.

    >>> take_report("org/name", Path("report")) is None
    True
    """
    repo = Path(repo_or_dir)
    if not repo.is_dir() or (out.exists() and not out.is_dir()):
        return None
    inputs = report_inputs(repo, **settings)
    for folder in (repo, out):
        files = _read_whole(folder, inputs)
        if files is not None:
            if folder.resolve() != out.resolve():
                _put(files, out)
                keep_inputs(out, inputs)
            return folder, cast(dict[str, Any], json.loads(files[_DOCUMENT]))
    return None


def keep_inputs(out: Path, inputs: Mapping[str, Any]) -> None:
    """Write down what the report in a folder was made from; nothing, where it is not all there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     keep_inputs(Path(out), {})
    ...     list(Path(out).iterdir())
    []
    """
    if all((out / name).is_file() for name in _ALWAYS):
        names = [*_ALWAYS, *(name for name in _figures(out) if (out / name).is_file())]
        files = {name: sha256((out / name).read_bytes()).hexdigest() for name in sorted(names)}
        write_file(out / REPORT_INPUTS, json.dumps({"inputs": inputs, "files": files}, indent=2) + "\n")


def forget_inputs(out: Path) -> None:
    """Remove what says from what the report in a folder was made: before it is written over.

    >>> forget_inputs(Path("no/such/folder"))
    """
    (out / REPORT_INPUTS).unlink(missing_ok=True)


@cache
def code_digest(folder: Path = Path(__file__).parent) -> str:
    """Return the SHA-256 over the files of a package, this one by default: a changed line may change a figure.

    >>> len(code_digest())
    64
    """
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            with path.open("rb") as file:
                content = file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of Python, the kind of machine, this package and every library that it depends on.

    What extras bring (encoders, parsers) enters by a codebook alone, which holds their revisions.

    >>> {"python", "machine", "numpy", "scipy", "matplotlib"} <= set(library_versions())
    True
    """
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    needs = [need for need in requires("fedllm-commons") or () if "extra ==" not in need]
    names = {"fedllm-commons", *_BELOW, *(re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs)}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _figures(folder: Path) -> list[str]:
    """Paths of the figures that the report in a folder may have; none where there is no report."""
    try:
        axes = json.loads((folder / _DOCUMENT).read_bytes())["axes"]
        return [f"figures/{name}.svg" for name in ("overview", *axes, "similarity")]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _read_whole(folder: Path, inputs: Mapping[str, Any]) -> dict[str, bytes] | None:
    """The files of the report in a folder, if it was made from these inputs and no file was changed since."""
    try:
        record = json.loads((folder / REPORT_INPUTS).read_bytes())
        names = set(record["files"])
        # No name leads anywhere but to a report's files.
        if record["inputs"] != inputs or not set(_ALWAYS) <= names <= {*_ALWAYS, *_figures(folder)}:
            return None
        contents = {name: (folder / name).read_bytes() for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_whole = {name: sha256(content).hexdigest() for name, content in contents.items()} == record["files"]
    return contents if is_whole else None


def _put(files: Mapping[str, bytes], out: Path) -> None:
    earlier = _figures(out)
    forget_inputs(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_file(out / name, content)
    for name in {*earlier, *_figures(out)}:
        if name not in files:
            (out / name).unlink(missing_ok=True)
        # Of a release that wrote a picture of pixels beside each figure.
        (out / name).with_suffix(".png").unlink(missing_ok=True)
