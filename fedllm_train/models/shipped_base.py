"""The small base model that comes with the package: trained once, checked by its digests, copied where it is wanted.

The folder `tiny_base/` is what `fedllm-train tiny` makes from the public split of `fed-synth` with seed 0, with its
weights rounded to bfloat16 (half the size; they load as float32). `RECIPE.json` beside them has the commands, the
digest of the rows, the versions and what the model scores; `base_recipe.py` makes the folder again, and a slow test
compares the two.

No torch: copying is all that happens here.
"""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder

__all__ = ["BASE_SEED", "RECIPE_FILE", "SHIPPED_BASE", "copy_shipped_base", "read_recipe"]

SHIPPED_BASE = Path(__file__).parent / "tiny_base"
RECIPE_FILE = "RECIPE.json"
BASE_SEED = 0
"""Of the corpus that it was trained on, and of its training. A corpus of another seed holds out other rows."""


def read_recipe(folder: Path = SHIPPED_BASE) -> dict[str, Any]:
    """Return how a base model was made.

    Args:
        folder: the shipped one, or one that `base_recipe.py` made.

    >>> read_recipe()["seed"]
    0
    """
    recipe: dict[str, Any] = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    return recipe


def copy_shipped_base(out: Path) -> dict[str, Any]:
    """Copy the shipped base model, whole or not at all, and return its recipe.

    Args:
        out: folder to write; an earlier model there is replaced.

    Raises:
        ConfigError: if a file of the installed package is not the one that was shipped, or `out` holds something that
            is no model folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recipe = copy_shipped_base(Path(folder) / "base")
    >>> recipe["num_parameters"]
    1115264
    """
    recipe = read_recipe()
    with fill_folder(out, mark="config.json") as folder:
        for name, digest in recipe["files"].items():
            path = SHIPPED_BASE / name
            if not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest:
                raise ConfigError(f"{path} is not the file that was shipped; install fedllm-commons again")
            shutil.copyfile(path, folder / name)
        shutil.copyfile(SHIPPED_BASE / RECIPE_FILE, folder / RECIPE_FILE)
    return recipe
