"""The stack on CloudFormation: brought to where the template says by change sets, followed, described, removed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dermloop.aws.changes import Change, change_of, refuse_losses
from dermloop.aws.clients import Aws, told
from dermloop.aws.states import Step, is_good, is_settled, next_step
from dermloop.errors import AwsError, DeployError

TEMPLATE = Path(__file__).with_name("template.yaml")
_NOTHING_NEW = ("didn't contain changes", "No updates are to be performed")
_CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
_AGAIN = "Correct the cause and run the same command again: it goes on from what is there."
_LONGEST = 3 * 3600.0

Told = Callable[[str], None]
Agree = Callable[[Sequence[Change]], None]
"""Shown every change before it is made; raises where it is not to be made."""


@dataclass(frozen=True, slots=True)
class StackEvent:
    """One thing that happened to a resource of the stack."""

    identity: str
    resource: str
    kind: str
    state: str
    reason: str

    @property
    def sentence(self) -> str:
        """The event in a line."""
        return f"{self.state.lower().replace('_', ' ')}: {self.resource}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True, slots=True)
class StackView:
    """A stack as it is: its state ("" where there is none), why, its outputs and its parameters."""

    name: str
    state: str = ""
    reason: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def output(self, name: str, cure: str = "Run `dermloop aws deploy`.") -> str:
        """An output of a finished stack; raises AwsError where it has none or has no value yet."""
        found = self.outputs.get(name, "-")
        if found == "-":
            raise AwsError(f"stack {self.name}", self.state or "not there", f"a finished stack with {name}", cure)
        return found


class Stack:
    """One stack by name; every method says in sentences what goes on."""

    def __init__(self, aws: Aws, name: str, told: Told, poll_seconds: float = 5.0) -> None:
        self.name = name
        self._aws = aws
        self._told = told
        self._poll = poll_seconds

    def view(self) -> StackView:
        """The stack as it is now."""
        try:
            with told(f"stack {self.name}"):
                found = self._cloud.describe_stacks(StackName=self.name)["Stacks"][0]
        except AwsError as error:
            if "does not exist" in str(error):
                return StackView(self.name)
            raise
        outputs = {row["OutputKey"]: row["OutputValue"] for row in found.get("Outputs", ())}
        given = {row["ParameterKey"]: row.get("ParameterValue", "") for row in found.get("Parameters", ())}
        return StackView(self.name, found["StackStatus"], found.get("StackStatusReason", ""), outputs, given)

    def deploy(self, parameters: Mapping[str, str], template: str, agree: Agree = refuse_losses) -> bool:
        """Whether anything changed; parameters that are not given keep their values.

        What `agree` raises is raised, and nothing is changed.

        Remains of a creation that failed are removed first, an interrupted rollback is finished, and what another
        command has begun is waited for. Raises DeployError naming what failed and why.
        """
        for _ in range(len(Step) + 1):
            found = self.view()
            step = next_step(found.state)
            if step in (Step.CREATE, Step.UPDATE):
                return self._change(found, step, _merged(parameters, _kept(found, step), template), template, agree)
            self._prepare(found, step)
        raise DeployError(f"stack {self.name}", found.state, "a state to go on from", "Look at it in AWS's console.")

    def remove(self) -> bool:
        """Whether there was a stack to remove; raises DeployError where something of it stays."""
        found = self.view()
        if next_step(found.state) is Step.CREATE and found.state != "REVIEW_IN_PROGRESS":
            return False
        if next_step(found.state) is Step.WAIT:
            self._settle()
        self._delete()
        return True

    def failures(self) -> tuple[StackEvent, ...]:
        """What failed in the latest change, first cause first; nothing where it went well."""
        found: list[StackEvent] = []
        for event in self._events():
            if event.kind == "AWS::CloudFormation::Stack" and event.reason == "User Initiated":
                break
            if event.state.endswith("_FAILED") and "cancelled" not in event.reason.lower():
                found.append(event)
        return tuple(reversed(found))

    def owns(self, resource: str) -> str | None:
        """Name of what the stack made for a resource of the template, or None where it made none."""
        try:
            with told(f"{resource} of stack {self.name}"):
                found = self._cloud.describe_stack_resource(StackName=self.name, LogicalResourceId=resource)
        except AwsError as error:
            if "does not exist" in str(error):
                return None
            raise
        detail = found["StackResourceDetail"]
        return None if detail.get("ResourceStatus", "").startswith("DELETE") else detail.get("PhysicalResourceId")

    @property
    def _cloud(self) -> Any:
        return self._aws.client("cloudformation")

    def _prepare(self, found: StackView, step: Step) -> None:
        self._told(f"{found.name} is {found.state}: {step.value}.")
        if step is Step.WAIT:
            self._settle()
        elif step is Step.REMOVE_REMAINS:
            self._delete()
        elif step is Step.FINISH_ROLLBACK:
            seen = self._seen()
            with told(f"stack {self.name}"):
                self._cloud.continue_update_rollback(StackName=self.name)
            self._follow(seen)

    def _change(
        self, found: StackView, step: Step, parameters: list[dict[str, Any]], template: str, agree: Agree
    ) -> bool:
        name = f"dermloop-{datetime.now(UTC):%Y%m%d%H%M%S%f}"
        if not self._ask(name, step, parameters, template) or not self._is_made(name):
            return False
        try:
            agree(self._changes(name))
        except BaseException:
            self._take_back(name, found)
            raise
        seen = self._seen()
        with told(f"change set of {self.name}"):
            self._cloud.execute_change_set(StackName=self.name, ChangeSetName=name)
        state = self._follow(seen)
        if not is_good(state):
            raise self._failed(state)
        return True

    def _changes(self, name: str) -> tuple[Change, ...]:
        """What a change set would do, in the order in which CloudFormation lists it."""
        found: list[Change] = []
        more: dict[str, str] = {}
        while True:
            with told(f"change set of {self.name}"):
                page = self._cloud.describe_change_set(StackName=self.name, ChangeSetName=name, **more)
            found += [change_of(row["ResourceChange"]) for row in page.get("Changes", ()) if "ResourceChange" in row]
            if not page.get("NextToken"):
                return tuple(found)
            more = {"NextToken": page["NextToken"]}

    def _take_back(self, name: str, found: StackView) -> None:
        """Removes a change set that was not agreed to, and the empty stack that was made to hold it."""
        with told(f"change set of {self.name}"):
            self._cloud.delete_change_set(StackName=self.name, ChangeSetName=name)
        if found.state in ("", "DELETE_COMPLETE") and self.view().state == "REVIEW_IN_PROGRESS":
            with told(f"stack {self.name}"):
                self._cloud.delete_stack(StackName=self.name)

    def _ask(self, name: str, step: Step, parameters: list[dict[str, Any]], template: str) -> bool:
        """Asks for a change set; False where it is known at once to change nothing."""
        try:
            with told(f"change set of {self.name}"):
                self._cloud.create_change_set(
                    StackName=self.name,
                    ChangeSetName=name,
                    ChangeSetType=step.name,
                    TemplateBody=template,
                    Parameters=parameters,
                    Capabilities=_CAPABILITIES,
                    Tags=[{"Key": "dermloop-stack", "Value": self.name}],
                )
        except AwsError as error:
            if any(words in str(error) for words in _NOTHING_NEW):
                return False
            raise
        return True

    def _is_made(self, name: str) -> bool:
        """Waits until a change set can be executed; False, and it is removed, where it changes nothing."""
        for _ in self._patience("a change set"):
            with told(f"change set of {self.name}"):
                found = self._cloud.describe_change_set(StackName=self.name, ChangeSetName=name)
            if found["Status"] == "CREATE_COMPLETE":
                return True
            if found["Status"] == "FAILED":
                break
        with told(f"change set of {self.name}"):
            self._cloud.delete_change_set(StackName=self.name, ChangeSetName=name)
        reason = str(found.get("StatusReason", ""))
        if any(words in reason for words in _NOTHING_NEW):
            return False
        raise DeployError(f"change set of {self.name}", reason, "a template and parameters that fit", _AGAIN)

    def _delete(self) -> None:
        seen = self._seen()
        identity = self._identity()
        with told(f"stack {self.name}"):
            self._cloud.delete_stack(StackName=self.name)
        state = self._follow(seen, identity)
        if state not in ("", "DELETE_COMPLETE"):
            raise self._failed(state)

    def _identity(self) -> str:
        """The stack's full name, under which it can be asked for after its removal."""
        with told(f"stack {self.name}"):
            return str(self._cloud.describe_stacks(StackName=self.name)["Stacks"][0]["StackId"])

    def _follow(self, seen: set[str], identity: str | None = None) -> str:
        """Tells of each event that was not seen yet until one of them ends the change; the stack's state then."""
        for _ in self._patience(f"stack {self.name}"):
            fresh = [event for event in self._events(identity) if event.identity not in seen]
            for event in reversed(fresh):
                seen.add(event.identity)
                self._told(event.sentence)
            ends = [event.state for event in fresh if event.resource == self.name and is_settled(event.state)]
            if ends:
                return ends[0]
            if identity is not None and not self.view().state:
                break
        return ""

    def _settle(self) -> None:
        """Waits for what another command has begun."""
        for _ in self._patience(f"stack {self.name}"):
            if is_settled(self.view().state):
                return

    def _events(self, identity: str | None = None) -> Iterator[StackEvent]:
        """Events of the stack, latest first; none where there is no stack."""
        try:
            with told(f"events of {self.name}"):
                pages = self._cloud.get_paginator("describe_stack_events").paginate(StackName=identity or self.name)
                rows = [row for page in pages for row in page["StackEvents"]]
        except AwsError as error:
            if "does not exist" in str(error):
                return
            raise
        for row in rows:
            reason = " ".join(str(row.get("ResourceStatusReason") or "").split())
            name, kind = row.get("LogicalResourceId") or "", row.get("ResourceType") or ""
            yield StackEvent(row["EventId"], name, kind, row.get("ResourceStatus") or "", reason)

    def _seen(self) -> set[str]:
        return {event.identity for event in self._events()}

    def _patience(self, item: str) -> Iterator[None]:
        deadline = time.monotonic() + _LONGEST
        while time.monotonic() < deadline:
            yield
            time.sleep(self._poll)
        raise DeployError(item, f"nothing new for {_LONGEST / 3600:.0f} h", "an end", "Look at `dermloop aws status`.")

    def _failed(self, state: str) -> DeployError:
        causes = self.failures()
        said = "; ".join(f"{event.resource}: {event.reason}" for event in causes[:3]) or "no reason given"
        return DeployError(f"stack {self.name}", f"{state}, {said}", "every resource in place", _AGAIN)


def rendered(text: str) -> str:
    """The template with the digest of the API's methods in its deployment's name, so that a change is published."""
    parts = [block for block in text.split("\n\n") if "AWS::ApiGateway::Method" in block or "::Resource\n" in block]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]
    return text.replace("ApiDeployment:", f"ApiDeployment{digest}:").replace(
        "!Ref ApiDeployment\n", f"!Ref ApiDeployment{digest}\n"
    )


def _kept(found: StackView, step: Step) -> Mapping[str, str]:
    return found.parameters if step is Step.UPDATE else {}


def _merged(given: Mapping[str, str], known: Mapping[str, str], template: str) -> list[dict[str, Any]]:
    """Parameters as CloudFormation wants them; those that are not given and still exist keep their values."""
    kept = [name for name in known if name not in given and f"\n  {name}:\n" in template]
    return [
        *({"ParameterKey": name, "ParameterValue": value} for name, value in given.items()),
        *({"ParameterKey": name, "UsePreviousValue": True} for name in kept),
    ]
