"""One run at a site: the host of its clients, and what the run may ask of it."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder
from fedllm_eval.plain_json import without_nan
from fedllm_eval.policy.run_folder import PERSONAL
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.host import ClientHost
from fedllm_train.clients.run_spec import RunSpec, most_steps, policy_digests
from fedllm_train.engines.engine import Task
from fedllm_train.engines.remote.messages import Begin, Result, ScoreJob, VisitJob, job_key
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.spec_text import read_spec
from fedllm_train.engines.remote.start_folder import write_start
from fedllm_train.messages import codec
from fedllm_train.monitoring.held_out import scored_state
from fedllm_train.run_files.finished import save_client_folder
from fedllm_train.run_files.run_writing import may_be_replaced

__all__ = ["SiteRun"]


class SiteRun:
    """A run that has begun here."""

    def __init__(self, begin: Begin, tensors: bytes, site: Organisation, folder: Path) -> None:
        """Load the base and make the host; nothing of the message names a path or a model.

        Args:
            begin: what the server says of the run.
            tensors: the starting adapter as safetensors; empty for a fresh one.
            site: what the site has.
            folder: the run's own here.

        Raises:
            ConfigError: naming what is wrong, or differs from the run's other machines.
        """
        torch.set_num_threads(begin.num_threads)
        adapter = write_start(begin.adapter, tensors, folder / "start") if begin.adapter is not None else None
        self.spec: RunSpec = read_spec(
            begin.spec,
            model=site.model,
            adapter=None if adapter is None else str(adapter),
            revision=site.revision,
            trust_remote_code=site.trust_remote_code,
        )
        if begin.max_steps != most_steps(self.spec):
            raise ConfigError(
                f"the run tells of {begin.max_steps} steps a visit, and its settings make {most_steps(self.spec)}"
            )
        clients = site.clients("train")
        if clients.revision != begin.data:
            raise ConfigError(
                f"the rows here ({str(clients.revision)[:12]}) are not those that the run was planned with "
                f"({str(begin.data)[:12]}); start the worker with those, or begin another run"
            )
        if missing := [client_id for client_id in begin.clients if client_id not in clients.sizes]:
            raise ConfigError(f"client {missing[0]!r} has no rows here")
        self.host = ClientHost.load(self.spec, clients.select(begin.clients), folder)
        self._begin, self._site, self._folder = begin, site, folder

    @property
    def digests(self) -> dict[str, str | None]:
        """What this machine trains from."""
        return policy_digests(self.host.policy, self.host.resident.start_adapter)

    def stop_when(self, is_stopped: Callable[[], bool]) -> None:
        """Ask a function after every optimizer step whether the visit is to end."""
        self.host.resident.is_stopped = is_stopped

    def visit(self, job: VisitJob, message: bytes) -> tuple[Result, bytes]:
        """Make a visit; a personal adapter stays here and only its digest is told.

        Raises:
            VisitStopped: if the visit was ended between two steps.
        """
        key = job_key(self._begin.run, job, message)
        if job.client_id not in self._begin.clients:
            return Result(key=key, reason="the run did not name this client when it began"), b""
        task = Task(run=self._begin.run, message=message, **job.model_dump(exclude={"job"}))
        reply = self.host.visit(task)
        facts = without_nan(reply.facts)
        if reply.message is None:
            return Result(key=key, reason=reply.reason, num_rows=reply.num_rows, facts=facts), b""
        if job.purpose == "personal":
            facts["adapter_sha256"] = self._keep_personal(job.client_id, reply.message)
            return Result(key=key, num_rows=reply.num_rows, facts=facts), b""
        return Result(key=key, has_body=True, num_rows=reply.num_rows, facts=facts), reply.message

    def score(self, job: ScoreJob, state: bytes, *, min_rows: int) -> tuple[Result, bytes]:
        """Score the server's state on held-out rows of the clients that are named.

        Args:
            job: whom to score.
            state: the server's parts, as `messages/codec.py` writes them.
            min_rows: clients with fewer held-out rows are left out and counted.
        """
        key = job_key(self._begin.run, job, state)
        clients = self._site.clients(job.split)
        known = [client_id for client_id in job.clients if client_id in clients.sizes]
        chosen = [client_id for client_id in known if clients.sizes[client_id] >= min_rows]
        withheld = len(job.clients) - len(chosen)
        if not chosen:
            return Result(key=key, num_withheld=withheld, scores={}), b""
        policy = self.host.policy
        start = self.host.start_state
        table = scored_state(
            policy.model,
            policy.tokenizer,
            self.host.resident.trainer.args,
            clients.select(chosen),
            states=({**start, **codec.decode(state)}, start),
            max_clients=None,
            max_rows_per_client=job.max_rows_per_client,
            seed=job.seed,
        ).table
        columns = without_nan(table.to_pydict())
        return Result(key=key, num_rows=len(chosen), num_withheld=withheld, scores=columns), b""

    def _keep_personal(self, client_id: str, message: bytes) -> str:
        """Put a client's own adapter into the site's folder; return its digest."""
        adapter = codec.decode(message)["adapter"]
        digest = adapter_sha256(adapter)
        place = self._folder / PERSONAL / digest[:32]
        with fill_folder(place, check=may_be_replaced) as own:
            save_client_folder(self.host.policy.model, adapter, own, tokenizer=self.host.policy.tokenizer)
        note = self._folder / PERSONAL / "clients.jsonl"
        with note.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"client_id": client_id, "folder": place.name}) + "\n")
        return digest
