"""The durable queue between the backend and the job workers: a retraining is asked for once, done once, and visible.

Jobs live in huey's store (SQLite by default, Redis by address) as JSON; nothing is pickled. Several workers, on several
machines, may work off one Redis queue: a worker keeps a pulse beside the job it runs, and a job whose pulse stands
still is put back for another one. Only the change of the pulse counts, so no two clocks have to agree.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from huey.consumer import Consumer
from redis.exceptions import RedisError

from ml_backend.errors import JobError
from ml_backend.job_codec import JsonSerializer
from ml_backend.job_pulse import BEATS, Watch, beating, is_gone, owner
from telemetry import request_id

RETRAIN = "retrain"
_log = logging.getLogger(__name__)
TRAININGS, SHARDS = QUEUES = ("dermloop", "dermloop-bulk")
"""The queues of the house by name: a retraining never waits for shards of bulk work."""

_ACTIVE = "active-"
_JOB = "job-"
_CANCEL = "cancel-"
_CLAIM = "claim-"
_PULSE = "pulse-"
LEASE_SECONDS = 30.0
"""So long a pulse may stand still before its job counts as left behind."""

_HEALTH_CHECKS = ("NULL", "ping", "auth", "hello", "command|docs", "client|setinfo")
"""Redis' words for the last command of a connection that only asks whether the store lives."""

_AWAY = (RedisError, OSError)
_REMOTE = ("redis://", "rediss://", "unix://")


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
    """One asked-for piece of work and its fate; moments are ISO 8601 in UTC, `detail` is a sentence on progress.

    There is one pending or running job at most for each `kind` and `subject`. `attempt` counts how often it was put
    back after a worker was lost. `request_id` is that of the request that asked for it.
    """

    id: str
    kind: str
    state: JobState
    reason: str
    requested_by: str
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    detail: str = ""
    subject: str = ""
    attempt: int = 0
    request_id: str = ""

    @property
    def claim(self) -> str:
        """What one worker alone may take: this job in this attempt."""
        return f"{self.id}-{self.attempt}"


class JobCancelled(Exception):
    """Raised inside the work when somebody cancelled the job."""


class JobHandle:
    """What the work gets in hand: its job, a way to tell progress, and the wish of others to stop."""

    def __init__(self, queue: JobQueue, job: Job, isolated: threading.Event) -> None:
        self._queue = queue
        self._isolated = isolated
        self.job = job

    def progress(self, detail: str) -> None:
        """Puts a sentence on record; raises JobCancelled where the job has been cancelled meanwhile.

        A store that is away for a moment costs the sentence, not the work.
        """
        if self.cancelled():
            raise JobCancelled(self.job.id)
        with suppress(*_AWAY):
            self._queue._save(replace(self._queue.get(self.job.id), detail=detail))

    def cancelled(self) -> bool:
        """Whether the work is to stop: somebody asked for it, or the job is no longer this worker's."""
        with suppress(*_AWAY):
            return self._queue._has(_CANCEL + self.job.id) or self.lost()
        return self._isolated.is_set()

    def lost(self) -> bool:
        """Whether the job was given to another worker, or may be, because nothing was heard of this one."""
        return self._isolated.is_set() or self._queue.get(self.job.id).attempt != self.job.attempt


Work = Callable[[JobHandle], str]
"""What a worker does for a job; the answer is a sentence for its record."""


class JobQueue:
    """Jobs in one store; several processes may ask, several workers may work."""

    def __init__(self, huey: Huey, lease: float = LEASE_SECONDS, shared: bool = False) -> None:
        self._huey = huey
        self._lease = lease
        self._shared = shared
        self._works: dict[str, Work] = {}
        self._watch = Watch(lease)
        self._task = huey.task(name="run_job")(self._run)

    @classmethod
    def open(cls, address: str | Path, name: str = TRAININGS, lease: float = LEASE_SECONDS) -> JobQueue:
        """The queue of a name at a file (SQLite) or at a `redis://` address; nothing is connected to yet."""
        if str(address).startswith(_REMOTE):
            huey = RedisHuey(name, url=str(address), serializer=JsonSerializer(), results=False)
            return cls(huey, lease, shared=True)
        Path(address).parent.mkdir(parents=True, exist_ok=True)
        return cls(SqliteHuey(name, filename=str(address), serializer=JsonSerializer(), results=False), lease)

    def require_reachable(self) -> None:
        """Raises JobError where the store does not answer or refuses the login."""
        with _reached():
            self._huey.pending_count()

    def request(self, kind: str, reason: str, requested_by: str, subject: str = "") -> Job:
        """The job of this kind on this subject that is pending or running, or a new one where there is none."""
        with _reached():
            return self._requested(kind, reason, requested_by, subject)

    def _requested(self, kind: str, reason: str, requested_by: str, subject: str) -> Job:
        for _ in range(3):
            job = Job(uuid.uuid4().hex, kind, JobState.PENDING, reason, requested_by, _now(), subject=subject)
            job = replace(job, request_id=request_id.accepted(request_id.current()))
            self._save(job)
            if self._huey.put_if_empty(_active_key(job), job.id):
                self._task(job.id)
                return job
            self._huey.delete(_JOB + job.id)
            if (active := self._active(job)) is not None:
                return active
        raise JobError(f"{kind} job", "a queue in constant change", "a settled queue", "Ask again.")

    def get(self, job_id: str) -> Job:
        """The job of an id; raises JobError where there is none."""
        row = self._huey.get(_JOB + job_id, peek=True)
        if row is None:
            raise JobError("job", job_id, "the id of a known job", "List the jobs.")
        return decode_job(row)

    def jobs(self) -> tuple[Job, ...]:
        """All jobs on record, newest first; raises JobError where the store does not answer."""
        with _reached():
            rows = self._huey.storage.result_items()
        read = self._huey.serializer.deserialize
        found = [decode_job(read(row)) for key, row in rows.items() if _text(key).startswith(_JOB)]
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
        """Jobs that a killed worker left behind, put back into the queue.

        A job in nobody's hands is recognised at once where this machine can tell: its worker was here and is gone,
        or the store is a file, which has one worker. Otherwise its pulse must stand still for the lease.
        """
        queued = {str(task.args[0]) for task in self._huey.pending()}
        open_jobs = [job for job in self.jobs() if not job.state.final and job.id not in queued]
        self._watch.forget_others({job.id for job in open_jobs})
        return tuple(self._put_back(job) for job in open_jobs if self._is_lost(job))

    def _put_back(self, job: Job) -> Job:
        detail = "asked for again after an interruption"
        again = replace(job, state=JobState.PENDING, detail=detail, attempt=job.attempt + 1)
        self._huey.delete(_CLAIM + job.claim)
        self._queue(again)
        return again

    def _queue(self, job: Job) -> None:
        self._save(job)
        self._huey.put_if_empty(_active_key(job), job.id)
        self._task(job.id)

    def _is_lost(self, job: Job) -> bool:
        pulse = self._huey.get(_PULSE + job.id, peek=True) or ["", 0]
        worker = str(pulse[0])
        if is_gone(worker) if worker else not self._shared:
            return True
        return self._watch.stands_still(job.id, f"{job.attempt} {job.state} {pulse}")

    def kept(self) -> tuple[Job, ...]:
        """All jobs on record, oldest first, as a backup keeps them: one that was asked to stop is over."""
        return tuple(self._settled(job) for job in reversed(self.jobs()))

    def _settled(self, job: Job) -> Job:
        if job.state.final or not self._has(_CANCEL + job.id):
            return job
        return replace(job, state=JobState.CANCELLED, finished_at=_now(), detail="cancelled while it ran")

    def take_in(self, jobs: Iterable[Job]) -> None:
        """Puts these jobs in the place of all on record; what waited or ran waits again, in the order given.

        No worker may be at the queue meanwhile (`others`). Raises JobError where the store does not answer.
        """
        with _reached():
            self._huey.flush()
            for job in jobs:
                if job.state is JobState.RUNNING:
                    self._put_back(job)
                elif job.state is JobState.PENDING:
                    self._queue(job)
                else:
                    self._save(job)

    def others(self) -> int:
        """How many other programs are connected to a shared store; 0 for a file, which does not know."""
        if not self._shared:
            return 0
        with _reached():
            store = self._huey.storage.conn
            own = store.client_id()
            found = [row for row in store.client_list() if int(row["id"]) != own]
        return sum(row["cmd"] not in _HEALTH_CHECKS for row in found)

    def close(self) -> None:
        """Lets go of the store."""
        self._huey.storage.close()
        if self._shared:  # huey leaves a server's connections to the garbage collector
            self._huey.storage.pool.disconnect()

    def work_off(self) -> int:
        """The number of pending jobs done, one after another, in this process."""
        done = 0
        while (task := self._huey.dequeue()) is not None:
            self._huey.execute(task)
            done += 1
        return done

    def consume(self) -> None:
        """Works until the process is told to stop, and puts back what killed workers leave, now and ever again.

        Raises JobError where the store cannot be reached at the start; later it is waited for.
        """
        self.require_reachable()
        self.recover()
        stop = threading.Event()
        watch = threading.Thread(target=self._keep_recovering, args=(stop,), name="recovery", daemon=True)
        watch.start()
        try:
            Consumer(self._huey, workers=1, periodic=False, check_worker_health=True, max_delay=1.0).run()
        finally:
            stop.set()

    def _keep_recovering(self, stop: threading.Event) -> None:
        while not stop.wait(self._lease / BEATS):
            try:
                self.recover()
            except Exception as error:  # noqa: BLE001 - the watch must outlive a store that is away for a while
                _log.warning("cannot look for lost jobs: %s", error)

    def _run(self, job_id: str) -> None:
        job = self.get(job_id)
        if job.state.final or not self._huey.put_if_empty(_CLAIM + job.claim, owner()):
            return
        job = replace(job, state=JobState.RUNNING, started_at=_now(), detail="")
        self._save(job)
        own, key = owner(), _PULSE + job.id
        try:
            with beating(lambda count: self._put(key, [own, count]), self._lease, _AWAY) as isolated:
                self._work(job, JobHandle(self, job, isolated))
        finally:
            with suppress(JobError, *_AWAY):
                if self.get(job.id).attempt == job.attempt:
                    self._huey.delete(key)

    def _work(self, job: Job, handle: JobHandle) -> None:
        try:
            with request_id.bound(request_id.accepted(job.request_id)):
                detail = self._works[job.kind](handle)
        except JobCancelled:
            if not handle.lost():
                self._finished(job, JobState.CANCELLED, "cancelled while it ran")
        except KeyError as error:
            self._finished(job, JobState.FAILED, f"no work is registered for {error}")
        except Exception as error:  # the border of the worker: whatever the work raised goes on record
            if not handle.lost():
                self._finished(job, JobState.FAILED, f"{type(error).__name__}: {error}")
            raise
        else:
            if not handle.lost():
                self._finished(job, JobState.SUCCEEDED, detail)

    def _finished(self, job: Job, state: JobState, detail: str) -> Job:
        over = replace(job, state=state, finished_at=_now(), detail=detail)
        self._save(over)
        self._huey.get(_CANCEL + job.id)
        self._huey.delete(_CLAIM + job.claim)
        if self._huey.get(_active_key(job), peek=True) == job.id:
            self._huey.delete(_active_key(job))
        return over

    def _active(self, wanted: Job) -> Job | None:
        key = _active_key(wanted)
        job_id = self._huey.get(key, peek=True)
        if job_id is None or not self._has(_JOB + job_id):
            return None
        job = self.get(job_id)
        if job.state.final:
            self._huey.delete(key)
            return None
        return job

    def _save(self, job: Job) -> None:
        self._put(_JOB + job.id, asdict(job))

    def _put(self, key: str, value: Any) -> None:
        self._huey.put_result(key, value)

    def _has(self, key: str) -> bool:
        return bool(self._huey.storage.has_data_for_key(key))


def request_retrain(queue: JobQueue, reason: str, requested_by: str) -> str:
    """The id of the pending or running retraining; a new one is queued only where there is none."""
    return queue.request(RETRAIN, reason, requested_by).id


@contextmanager
def _reached() -> Iterator[None]:
    """Turns what Redis raises into one JobError that names the setting."""
    try:
        yield
    except _AWAY as error:
        reason = str(error).splitlines()[0]
        cure = "Start Redis, or correct the address and the password in it."
        raise JobError("DERMLOOP_ML_JOBS_URL", reason, "a reachable queue", cure) from error


def decode_job(row: Mapping[str, Any]) -> Job:
    """The job of its fields, as the store and a backup keep them."""
    return Job(**{**row, "state": JobState(row["state"])})


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key


def _active_key(job: Job) -> str:
    return _ACTIVE + job.kind + (f"/{job.subject}" if job.subject else "")


def _is_pending(job: Job) -> bool:
    return job.state is JobState.PENDING


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
