"""How many rows a client needed to get into a client repo, as its build.json tells it."""

import json

from fedllm_data.errors import ReportError
from fedllm_data.repo import ClientRepo

__all__ = ["least_client_rows"]


def least_client_rows(repo: ClientRepo) -> int:
    """Return the least number of rows a client needed to get into the repo, 1 where there is no build.json.

    Raises:
        ReportError: if the build.json is broken.

    >>> import tempfile
    >>> from fedllm_data.repo import open_repo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     least_client_rows(open_repo(folder))
    1
    """
    try:
        with repo.open("build.json") as file:
            facts = json.load(file)
            # Unseen clients that lost rows whose prompt trains may be smaller than the filter, and so may artificial
            # ones, unless they have the sizes of natural ones.
            is_cut = bool(facts.get("split_counts", {}).get("num_unseen_rows_dropped"))
            record = facts.get("partition")
            while record:
                is_cut |= record["rule"] == "quantity" or not {"num_clients", "random_sizes"}.isdisjoint(
                    record["parameters"]
                )
                record = record["parent"].get("partition")
            return 1 if is_cut else int(facts["filters"]["min_rows"])
    except FileNotFoundError:
        return 1
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReportError(f"build.json of {repo.name} names no filters.min_rows: build the repo again") from error
