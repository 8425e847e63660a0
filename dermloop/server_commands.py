"""What the commands for a server do, once their options are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from dermloop.console import Steps
from dermloop.errors import ProvisionError
from dermloop.home import Home


def provision(home: Path | None, people: Path | None, patience: float, as_json: bool) -> None:
    """Sets a server up and prints what changed; raises ProvisionError where something could not be done."""
    from dermloop.provision import LOGINS
    from dermloop.provision import provision as run
    from review_workflow.settings import read

    place = Home.at(home)
    steps = Steps(Console(stderr=True))
    try:
        report = run(place, read(), people, steps.say, patience)
    finally:
        steps.end()
    if as_json:
        print(json.dumps(asdict(report), ensure_ascii=False))
    else:
        print("\n".join(report.changes) or "Everything was as it should be.")
        if report.new_accounts:
            print(f"First passwords of {len(report.new_accounts)} new accounts: {place.root / LOGINS}")
    if report.problems:
        cure = "Mend that and run it again; what was done stays."
        raise ProvisionError("set-up", "; ".join(report.problems), "everything in its place", cure)


def backup(target: Path, home: Path | None, as_json: bool) -> None:
    """Writes an archive and prints where it is."""
    from dermloop.backup import Places, take

    steps = Steps(Console(stderr=True))
    try:
        report = take(Places.of(Home.at(home)), target, steps.say)
    finally:
        steps.end()
    if as_json:
        print(json.dumps({**asdict(report), "archive": str(report.archive)}))
        return
    print(f"{report.archive}: {report.parts} parts, {report.size / 1e6:.1f} MB")
    for note in report.notes:
        print(f"  {note}")


def restore(archive: Path, home: Path | None, check: bool, replace: bool, as_json: bool) -> None:
    """Gives an archive back, or only verifies it, and prints what came of it."""
    from dermloop.backup import Places, restoring

    steps = Steps(Console(stderr=True))
    try:
        if check:
            report = restoring.check(archive)
        else:
            report = restoring.restore(Places.of(Home.at(home)), archive, replace, steps.say)
    finally:
        steps.end()
    if as_json:
        print(json.dumps({**asdict(report), "archive": str(report.archive)}))
        return
    what = "is whole" if check else "is back"
    log = "" if report.audit_entries is None else f"; {report.audit_entries} audit entries verify"
    print(f"{archive} of {report.created} {what}: {report.parts} parts{log}")
