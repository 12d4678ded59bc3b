"""A judge with a memory: what it has judged is on disk before anything else happens, and is never asked for twice.

Every finished judgment is a file under its content in the cache folder; a run that was stopped, killed or resumed goes
on from there. Equal requests are asked once. A request that failed for good is not kept, so the next run asks again.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging.request import Backend, JudgeRequest, Judgment, judgment_from, judgment_line
from fedllm_eval.judging.store import ContentStore, read_jsonl, write_jsonl

__all__ = ["Judge"]

Progress = Callable[[int, int], None]
"""Called with (requests done, requests in all)."""


@dataclass
class Judge:
    """A judge, and where its judgments are kept."""

    backend: Backend
    cache: Path | None = None
    """Folder of finished judgments; None leaves it to the caller of `ask`."""
    record: Path | None = None
    """JSONL file that gathers all judgments used, for `Recorded`; written at the end of each `ask`, also of one that
    stops."""
    num_asked: int = 0
    num_from_cache: int = 0
    num_failed: int = 0

    @property
    def model(self) -> str:
        """The judge's name."""
        return self.backend.model

    def ask(
        self, requests: Sequence[JudgeRequest], *, cache: Path | None = None, progress: Progress | None = None
    ) -> list[Judgment]:
        """Return one judgment for each request, from the cache or from the judge.

        Args:
            requests: N of them; equal ones are asked once.
            cache: folder used where the judge has none of its own.
            progress: called after every judgment.

        Returns:
            Judgments in the order of the requests; those that could not be had carry a `failure`.

        Raises:
            JudgeError: if the judge stops. What is finished is kept, and asking again goes on from there.
        """
        folder = self.cache or cache
        store = ContentStore(folder) if folder is not None and self.backend.record_file is None else None
        unique = {request.key: request for request in requests}
        times = Counter(request.key for request in requests)
        judgments: dict[str, Judgment] = {}
        lock = threading.Lock()
        num_done = 0

        def keep(key: str, judgment: Judgment) -> None:
            nonlocal num_done
            with lock:
                judgments[key] = judgment
                num_done += times[key]
                if progress is not None:
                    progress(num_done, len(requests))

        for key, request in unique.items():
            if store is not None and (kept := self._from(store, request)) is not None:
                keep(key, kept)
        num_from_cache = len(judgments)
        missing = [request for key, request in unique.items() if key not in judgments]

        def finish(at: int, judgment: Judgment) -> None:
            if store is not None and judgment.failure is None:
                store.put(self._address(missing[at]), judgment_line(missing[at], judgment, self.model))
            keep(missing[at].key, judgment)

        try:
            if missing:
                self.backend.ask(missing, finish)
        except JudgeError as error:
            num_kept = sum(judgment.failure is None for judgment in judgments.values())
            if store is None:
                raise
            raise JudgeError(
                f"{error}. {num_kept} of {len(unique)} judgments are kept in {store.folder}; mend the "
                "cause and run again to go on"
            ) from error
        finally:
            self._count(judgments, num_from_cache)
            if self.record is not None:
                self._write_record(unique, judgments)
        return [judgments[request.key] for request in requests]

    def describe(self) -> dict[str, Any]:
        """Return what a results file says of the judge."""
        return self.backend.describe()

    def usage(self) -> dict[str, Any]:
        """Return what was asked so far, how much of it was on disk, what failed, and what an endpoint used for it."""
        counts = {"judgments": self.num_asked, "from_cache": self.num_from_cache, "failed": self.num_failed}
        return {**counts, **self.backend.usage()}

    def _address(self, request: JudgeRequest) -> str:
        return hashlib.sha256(f"{self.backend.identity()}\0{request.key}".encode()).hexdigest()

    def _from(self, store: ContentStore, request: JudgeRequest) -> Judgment | None:
        line = store.get(self._address(request))
        pair = None if line is None else judgment_from(line)
        return pair[1] if pair is not None and pair[0].key == request.key else None

    def _count(self, judgments: dict[str, Judgment], num_from_cache: int) -> None:
        self.num_asked += len(judgments)
        self.num_from_cache += num_from_cache
        self.num_failed += sum(judgment.failure is not None for judgment in judgments.values())

    def _write_record(self, requests: dict[str, JudgeRequest], judgments: dict[str, Judgment]) -> None:
        """Add what was judged to the record; the same judgments give the same file, in whatever order they came."""
        assert self.record is not None
        lines: dict[tuple[str, str], dict[str, Any]] = {}
        if self.record.exists():
            for line in read_jsonl(self.record):
                if judgment_from(line) is None:
                    raise ConfigError(f"{self.record} exists and is no record of judgments; name another file")
                lines[(line["judge"], line["key"])] = line
        for key, judgment in judgments.items():
            if judgment.failure is None:
                lines[(self.model, key)] = judgment_line(requests[key], judgment, self.model)
        write_jsonl(self.record, (lines[name] for name in sorted(lines)))
