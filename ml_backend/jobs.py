"""The durable queue between the backend and the job worker: a retraining is asked for once, done once, and visible.

Jobs live in huey's store (SQLite by default, Redis by address) as JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

from ml_backend.errors import JobError

RETRAIN = "retrain"
_QUEUE = "dermloop"
_ACTIVE = "active-"
_JOB = "job-"
_CANCEL = "cancel-"


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Job:
    """One asked-for piece of work and its fate; moments are ISO 8601 in UTC, `detail` is a sentence on progress."""

    id: str
    kind: str
    state: JobState
    reason: str
    requested_by: str
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    detail: str = ""


class JobCancelled(Exception):
    """Raised inside the work when somebody cancelled the job."""


class JobHandle:
    """What the work gets in hand: its job, a way to tell progress, and the wish of others to stop."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self._queue = queue
        self.job = job

    def progress(self, detail: str) -> None:
        """Puts a sentence on record; raises JobCancelled where the job has been cancelled meanwhile."""
        if self.cancelled():
            raise JobCancelled(self.job.id)
        self._queue._save(replace(self._queue.get(self.job.id), detail=detail))

    def cancelled(self) -> bool:
        """Whether somebody asked the job to stop."""
        return self._queue._has(_CANCEL + self.job.id)


Work = Callable[[JobHandle], str]
"""What a worker does for a job; the answer is a sentence for its record."""


class JobQueue:
    """Jobs in one store; several processes may ask, one worker works."""

    def __init__(self, huey: Huey) -> None:
        self._huey = huey
        self._works: dict[str, Work] = {}
        self._task = huey.task(name="run_job")(self._run)

    @classmethod
    def open(cls, address: str | Path) -> JobQueue:
        """The queue at a file (SQLite) or at a `redis://` address."""
        if str(address).startswith(("redis://", "rediss://", "unix://")):
            return cls(RedisHuey(_QUEUE, url=str(address), serializer=_JsonSerializer(), results=False))
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        return cls(SqliteHuey(_QUEUE, filename=str(address), serializer=_JsonSerializer(), results=False))

    def request(self, kind: str, reason: str, requested_by: str) -> Job:
        """The job of this kind that is pending or running, or a new one where there is none."""
        for _ in range(3):
            job = Job(uuid.uuid4().hex, kind, JobState.PENDING, reason, requested_by, _now())
            self._save(job)
            if self._huey.put_if_empty(_ACTIVE + kind, job.id):
                self._task(job.id)
                return job
            self._huey.delete(_JOB + job.id)
            if (active := self._active(kind)) is not None:
                return active
        raise JobError(f"{kind} job", "a queue in constant change", "a settled queue", "Ask again.")

    def get(self, job_id: str) -> Job:
        """The job of an id; raises JobError where there is none."""
        row = self._huey.get(_JOB + job_id, peek=True)
        if row is None:
            raise JobError("job", job_id, "the id of a known job", "List the jobs.")
        return Job(**{**row, "state": JobState(row["state"])})

    def jobs(self) -> tuple[Job, ...]:
        """All jobs on record, newest first."""
        keys = (key.decode() if isinstance(key, bytes) else str(key) for key in self._huey.storage.result_items())
        found = [self.get(key.removeprefix(_JOB)) for key in keys if key.startswith(_JOB)]
        return tuple(sorted(found, key=lambda job: (job.created_at, job.id), reverse=True))

    def cancel(self, job_id: str) -> Job:
        """The job, cancelled if it was pending, asked to stop if it runs; raises JobError where it is over."""
        job = self.get(job_id)
        if job.state.final:
            raise JobError(f"job {job_id}", job.state.value, "a pending or running job", "Nothing is left to cancel.")
        self._huey.put(_CANCEL + job_id, True)
        return self._finished(job, JobState.CANCELLED, "cancelled before it began") if _is_pending(job) else job

    def register(self, kind: str, work: Work) -> None:
        """Names what the worker of this process does for jobs of a kind."""
        self._works[kind] = work

    def recover(self) -> tuple[Job, ...]:
        """Jobs that a killed worker left behind, put back into the queue; call before work begins."""
        queued = {str(task.args[0]) for task in self._huey.pending()}
        lost = [job for job in self.jobs() if not job.state.final and job.id not in queued]
        for job in lost:
            self._save(replace(job, state=JobState.PENDING, detail="asked for again after an interruption"))
            self._huey.put_if_empty(_ACTIVE + job.kind, job.id)
            self._task(job.id)
        return tuple(lost)

    def close(self) -> None:
        """Lets go of the store."""
        self._huey.storage.close()

    def work_off(self) -> int:
        """The number of pending jobs done, one after another, in this process."""
        done = 0
        while (task := self._huey.dequeue()) is not None:
            self._huey.execute(task)
            done += 1
        return done

    def consume(self) -> None:
        """Works until the process is told to stop; recovers what a killed worker left first."""
        self.recover()
        Consumer(self._huey, workers=1, periodic=False, check_worker_health=True, max_delay=1.0).run()

    def _run(self, job_id: str) -> None:
        job = self.get(job_id)
        if job.state.final:
            return
        job = replace(job, state=JobState.RUNNING, started_at=_now(), detail="")
        self._save(job)
        try:
            detail = self._works[job.kind](JobHandle(self, job))
        except JobCancelled:
            self._finished(job, JobState.CANCELLED, "cancelled while it ran")
        except KeyError as error:
            self._finished(job, JobState.FAILED, f"no work is registered for {error}")
        except Exception as error:  # the border of the worker: whatever the work raised goes on record
            self._finished(job, JobState.FAILED, f"{type(error).__name__}: {error}")
            raise
        else:
            self._finished(job, JobState.SUCCEEDED, detail)

    def _finished(self, job: Job, state: JobState, detail: str) -> Job:
        over = replace(job, state=state, finished_at=_now(), detail=detail)
        self._save(over)
        self._huey.get(_CANCEL + job.id)
        if self._huey.get(_ACTIVE + job.kind, peek=True) == job.id:
            self._huey.delete(_ACTIVE + job.kind)
        return over

    def _active(self, kind: str) -> Job | None:
        job_id = self._huey.get(_ACTIVE + kind, peek=True)
        if job_id is None or not self._has(_JOB + job_id):
            return None
        job = self.get(job_id)
        if job.state.final:
            self._huey.delete(_ACTIVE + kind)
            return None
        return job

    def _save(self, job: Job) -> None:
        self._huey.put_result(_JOB + job.id, asdict(job))

    def _has(self, key: str) -> bool:
        return bool(self._huey.storage.has_data_for_key(key))


def request_retrain(queue: JobQueue, reason: str, requested_by: str) -> str:
    """The id of the pending or running retraining; a new one is queued only where there is none."""
    return queue.request(RETRAIN, reason, requested_by).id


def list_jobs(queue: JobQueue) -> tuple[Job, ...]:
    """All jobs on record, newest first."""
    return queue.jobs()


class _JsonSerializer(Serializer):  # type: ignore[misc]
    def _serialize(self, data: Any) -> bytes:
        if isinstance(data, Message):
            return json.dumps({"task": [data.id, data.name, list(data.args or ())]}).encode()
        return json.dumps({"value": data}).encode()

    def _deserialize(self, data: bytes) -> Any:
        row = json.loads(data)
        if "task" in row:
            task_id, name, args = row["task"]
            return Message(task_id, name, None, 0, 0, None, tuple(args), {}, None, None)
        return row["value"]


def _is_pending(job: Job) -> bool:
    return job.state is JobState.PENDING


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
