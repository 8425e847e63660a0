"""What a change set would do to the stack, before it is done; and what of it would lose something."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermloop.errors import DeployError

HOLDS: Mapping[str, str] = {
    "AWS::S3::Bucket": "pictures, datasets, models and results",
    "AWS::SQS::Queue": "uploads that wait or failed",
    "AWS::SecretsManager::Secret": "the token that callers show",
    "AWS::Logs::LogGroup": "logs",
    "AWS::ApiGateway::ApiKey": "a key that callers show",
    "AWS::ApiGateway::RestApi": "the address that callers ask at",
}
"""Kinds of resources that cannot be made again as they were, and what they hold."""

_VERBS: Mapping[str, str] = {"Add": "add", "Modify": "change", "Remove": "remove", "Import": "take in"}
_REPLACEMENT: Mapping[str, str] = {"True": "replace", "Conditional": "perhaps replace"}


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one resource of the template: its name and kind, the verb, and whether the old one stays."""

    resource: str
    kind: str
    verb: str
    kept: bool = False

    @property
    def loses(self) -> bool:
        """Whether something that cannot be made again would be replaced, removed, or might be."""
        return self.kind in HOLDS and self.verb not in ("add", "change", "take in")

    @property
    def sentence(self) -> str:
        """The change in a line."""
        held = f" It holds {HOLDS[self.kind]}{'; the old one stays' if self.kept else ''}." if self.loses else ""
        return f"{self.verb:<15} {self.resource} ({self.kind.removeprefix('AWS::')}){'.' if held else ''}{held}"


def change_of(row: Mapping[str, Any]) -> Change:
    """The change that CloudFormation describes as a `ResourceChange` (API reference); `Dynamic` may be any."""
    verb = _VERBS.get(row["Action"], f"perhaps {row['Action'].lower()}")
    if verb == "change":
        verb = _REPLACEMENT.get(row.get("Replacement", ""), verb)
    kept = str(row.get("PolicyAction", "")).endswith("Retain")
    return Change(row["LogicalResourceId"], row["ResourceType"], verb, kept)


def refuse_losses(changes: Sequence[Change], allowed: Collection[str] = ()) -> None:
    """Raises DeployError naming what would be lost, unless each such resource is allowed by name."""
    lost = [change for change in changes if change.loses and change.resource not in allowed]
    if lost:
        names = ", ".join(change.resource for change in lost)
        verbs = " and ".join(sorted({change.verb for change in lost}))
        flags = " ".join(f"--replace {change.resource}" for change in lost)
        cure = f"Nothing was changed. Take back what leads to it, or allow it with {flags}."
        raise DeployError(names, f"the change would {verbs} it", "what holds something to stay", cure)
