"""The registry: reports beside bundles, promotion and rollback with an append-only log of who, when and why."""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import orjson

from converters.dataset import Split
from ml_backend import bundle as bundles
from ml_backend.bundle import ModelBundle
from ml_backend.errors import BundleError
from training import report as reports
from training.errors import RegistryError
from training.gate import GateDecision
from training.report import EvaluationReport

LOG = "promotions.jsonl"
_LOCK = ".promotion.lock"


class Change(StrEnum):
    """Why the champion changed."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Promotion:
    """One line of the log: which version took over from which, by whom, when, why, and under which policy it passed.

    `forced` names the reasons that were overruled; it is empty for a version that passed the gate. `signed_by` is the
    dermatologist who signed, where the policy asks for that.
    """

    change: Change
    version: str
    previous: str | None
    who: str
    when: str
    why: str
    policy: str = ""
    forced: tuple[str, ...] = ()
    signed_by: str = ""


class Shared(Protocol):
    """A registry that other machines share: it keeps the bundle, and every change of champion in one order."""

    def push_model(self, bundle: ModelBundle) -> int:
        """Takes in a bundle."""

    def record(self, entry: Promotion) -> None:
        """Takes in a change; raises RegistryError where the champion is another by now."""


def promote(
    models: Path,
    version: str,
    decision: GateDecision | None,
    *,
    why: str,
    who: str | None = None,
    force: bool = False,
    signed_by: str = "",
    shared: Shared | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Promotion:
    """The logged promotion of a version that passed the gate; the backend follows the pointer by itself.

    With a `shared` registry the bundle and the change go there first: what it refuses does not happen here either.

    Raises RegistryError for a refused version (or one without a decision) unless `force`, which the log then tells.
    """
    reasons = ("no gate decision",) if decision is None else decision.reasons
    if decision is not None and decision.candidate != version:
        reasons = (f"the decision is on {decision.candidate}",)
    elif decision is not None and decision.needs_sign_off and not signed_by:
        reasons = (*reasons, f"{decision.policy} asks for a dermatologist's signature (--signed-by)")
    if reasons and not force:
        raise RegistryError(version, "; ".join(reasons), "a version that passed the gate", "Train on, or force it.")
    policy = decision.policy if decision else ""
    change = _Wanted(Change.PROMOTE, version, who, why, policy, reasons, signed_by)
    return _switch(models, change, shared, now)


def rollback(
    models: Path,
    *,
    why: str,
    to: str | None = None,
    who: str | None = None,
    shared: Shared | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Promotion:
    """The logged return to the champion before the present one, or to `to`; raises RegistryError where none was."""
    current = bundles.champion_version(models)
    served = [entry.version for entry in history(models)]
    target = to or _before(history(models), current)
    if target is None or target not in served:
        raise RegistryError("rollback", target, "a version that was champion before", "See `dermloop models`.")
    return _switch(models, _Wanted(Change.ROLLBACK, target, who, why), shared, now)


def history(models: Path) -> tuple[Promotion, ...]:
    """Every promotion and rollback, oldest first; raises RegistryError for a line that cannot be read."""
    path = models / LOG
    if not path.is_file():
        return ()
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        found.append(decode_promotion(line, f"{path}, line {number}"))
    return tuple(found)


def decode_promotion(line: bytes, item: str) -> Promotion:
    """The promotion of a JSON object; raises RegistryError naming `item` where it is none."""
    try:
        row = orjson.loads(line)
        return Promotion(**{**row, "change": Change(row["change"]), "forced": tuple(row["forced"])})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise RegistryError(item, str(error), "a promotion", "Restore the log.") from error


def champion(models: Path) -> ModelBundle | None:
    """The bundle that is served, checked, or None before the first promotion."""
    version = bundles.champion_version(models)
    return bundles.load_bundle(models / version) if version else None


def follow(models: Path, entry: Promotion) -> None:
    """Makes a version that another machine promoted the champion here too, with that machine's line in the log."""
    load_bundle(models, entry.version)
    with (models / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if bundles.champion_version(models) != entry.version:
            with _logged(models, entry):
                bundles.set_champion(models, entry.version)


def load_bundle(models: Path, version: str) -> ModelBundle:
    """A bundle by version, or the champion for `champion`; raises RegistryError where there is none."""
    wanted = bundles.champion_version(models) if version == "champion" else version
    if wanted is None or not (models / wanted / bundles.HEADER).is_file():
        known = ", ".join(bundles.list_bundles(models)) or "none yet"
        raise RegistryError("model version", version, f"one of: {known}", "Name a version from `dermloop models`.")
    try:
        return bundles.load_bundle(models / wanted)
    except BundleError as error:
        raise RegistryError(error.item, error.value, error.expected, error.cure) from error


def report_path(bundle: ModelBundle, split: Split, split_digest: str) -> Path:
    """Where the report of a bundle on a split lies, named by the split's content."""
    return bundle.root / f"evaluation-{split.value}-{split_digest[:12]}.json"


def save_report(bundle: ModelBundle, report: EvaluationReport) -> Path:
    """Stores a report beside its bundle; the path says on which content it was measured."""
    path = report_path(bundle, Split(report.split), report.split_digest)
    reports.save(report, path)
    return path


def load_report(bundle: ModelBundle, split: Split, split_digest: str) -> EvaluationReport | None:
    """The stored report of a bundle on a split, or None where it was not measured there yet."""
    path = report_path(bundle, split, split_digest)
    return reports.load(path) if path.is_file() else None


def _before(entries: tuple[Promotion, ...], current: str | None) -> str | None:
    """The version that the present champion took over from; a rollback is stepped over, not undone."""
    stack: list[str] = []
    for entry in entries:
        if entry.change is Change.ROLLBACK and entry.version in stack:
            del stack[stack.index(entry.version) + 1 :]
        elif not stack or stack[-1] != entry.version:
            stack.append(entry.version)
    if stack and stack[-1] == current:
        stack.pop()
    return stack[-1] if stack else None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A change before it is known from whom the version takes over."""

    change: Change
    version: str
    who: str | None
    why: str
    policy: str = ""
    forced: tuple[str, ...] = ()
    signed_by: str = ""


def _switch(models: Path, wanted: _Wanted, shared: Shared | None, now: Callable[[], datetime]) -> Promotion:
    bundle = load_bundle(models, wanted.version)
    with (models / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entry = Promotion(
            change=wanted.change,
            version=wanted.version,
            previous=bundles.champion_version(models),
            who=wanted.who or getpass.getuser(),
            when=now().isoformat(),
            why=wanted.why,
            policy=wanted.policy,
            forced=wanted.forced,
            signed_by=wanted.signed_by,
        )
        if shared is not None:
            shared.push_model(bundle)
            shared.record(entry)
        with _logged(models, entry):
            bundles.set_champion(models, wanted.version)
    return entry


@contextmanager
def _logged(models: Path, entry: Promotion) -> Iterator[None]:
    """A line in the log for what the block does; not even half of one where the disk refuses the line or the block."""
    with (models / LOG).open("ab", buffering=0) as stream:
        before, line = stream.tell(), orjson.dumps(asdict(entry), option=orjson.OPT_APPEND_NEWLINE)
        try:
            if stream.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(models / LOG))
            os.fsync(stream.fileno())
            yield
        except OSError:
            stream.truncate(before)
            raise
