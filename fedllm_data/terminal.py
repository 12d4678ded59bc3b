"""What the three console commands share: libraries that keep quiet where nobody watches."""

import os
import sys

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """Switch the libraries' own progress bars off where stderr is no terminal: there they would fill a log.

    Must be called before huggingface_hub or datasets is imported, because they read these variables then; a value that
    is set already stays.

    >>> quiet_libraries()
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
