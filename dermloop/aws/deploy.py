"""Deploying, describing and destroying: the stack, the bucket that outlives it, and the queues between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dermloop.aws.buckets import Bucket
from dermloop.aws.changes import refuse_losses
from dermloop.aws.clients import Aws, told
from dermloop.aws.stack import TEMPLATE, Agree, Stack, StackEvent, StackView, Told, rendered
from dermloop.errors import AwsError, DeployError

_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
_IMAGE = "FunctionImage"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deployment left: whether anything changed, and the stack."""

    changed: bool
    view: StackView


@dataclass(frozen=True, slots=True)
class Status:
    """A stack at work: uploads waiting and failed, the endpoint's state, and what went wrong in the last change."""

    view: StackView
    waiting: int | None = None
    failed: int | None = None
    endpoint: str = ""
    failures: tuple[StackEvent, ...] = ()


def deploy(aws: Aws, stack: Stack, parameters: Mapping[str, str], agree: Agree = refuse_losses) -> Deployed:
    """The stack brought to where the template and the given parameters say, once `agree` was shown the changes.

    A bucket that an earlier stack left behind is taken into use again. Raises DeployError naming what failed.
    """
    before = stack.view()
    if not before.parameters and not parameters.get(_IMAGE):
        cure = "Name the image built from docker/lambda/Dockerfile with --set FunctionImage=ADDRESS."
        raise DeployError(f"parameter {_IMAGE}", "none", "the address of an image", cure)
    given = {**parameters, **_bucket_of_before(aws, stack, before, parameters)}
    changed = stack.deploy(given, rendered(TEMPLATE.read_text(encoding="utf-8")), agree)
    view = stack.view()
    if view.parameters.get("DataBucket"):
        Bucket(aws, view.output("Bucket")).send_uploads(view.output("UploadsQueueArn"), view.output("UploadPrefix"))
    return Deployed(changed, view)


def status(aws: Aws, stack: Stack) -> Status:
    """The stack as it is; what cannot be asked yet is None or empty."""
    view = stack.view()
    if not view.outputs:
        return Status(view, failures=stack.failures() if view.state else ())
    waiting, failed = (queue_length(aws, view.output(name)) for name in ("UploadsQueue", "FailedQueue"))
    return Status(view, waiting, failed, _endpoint(aws, stack.name), stack.failures())


def destroy(aws: Aws, stack: Stack, delete_data: bool, say: Told) -> str:
    """Name of the bucket that is kept ("" where none is); the stack is gone.

    With `delete_data` the bucket goes too, if a stack made it and it holds nothing but dermloop's folders; else
    nothing at all is destroyed. Raises AwsError or DeployError.
    """
    view = stack.view()
    lent = view.parameters.get("DataBucket", "")
    name = lent or _own_bucket(stack, view) or _left_behind(aws, stack.name)
    if delete_data and name:
        if name == lent and lent != bucket_name(aws, stack.name):
            cure = "Run it again without --delete-data; empty the bucket by hand if you mean to."
            raise DeployError(f"bucket {lent}", "not made by a stack", "an own bucket", cure)
        Bucket(aws, name).require_only_ours(view.parameters.get("UploadPrefix") or "incoming/")
    if lent:
        Bucket(aws, lent).stop_uploads(view.outputs.get("UploadsQueueArn", ""))
    stack.remove()
    if not name or not Bucket(aws, name).exists():
        return ""
    if not delete_data:
        return name
    Bucket(aws, name).delete(say)
    return ""


def queue_length(aws: Aws, url: str) -> int:
    """About how many messages a queue holds, those being worked on included."""
    with told(f"queue {url.rsplit('/', 1)[-1]}"):
        found = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))["Attributes"]
    return sum(int(found[name]) for name in _COUNTS)


def bucket_name(aws: Aws, stack: str) -> str:
    """How the template names the bucket that it makes."""
    return f"{stack}-data-{aws.account()}-{aws.region_name}"


def _bucket_of_before(aws: Aws, stack: Stack, before: StackView, given: Mapping[str, str]) -> dict[str, str]:
    """The parameter that names a bucket left behind by an earlier stack, where there is one and none is given."""
    if "DataBucket" in given or before.parameters.get("DataBucket") or _own_bucket(stack, before):
        return {}
    name = _left_behind(aws, stack.name)
    return {"DataBucket": name} if name else {}


def _own_bucket(stack: Stack, view: StackView) -> str:
    return (stack.owns("Bucket") or "") if view.state else ""


def _left_behind(aws: Aws, stack: str) -> str:
    name = bucket_name(aws, stack)
    return name if Bucket(aws, name).exists() else ""


def _endpoint(aws: Aws, name: str) -> str:
    try:
        with told(f"endpoint {name}"):
            found: Mapping[str, Any] = aws.client("sagemaker").describe_endpoint(EndpointName=name)
    except AwsError as error:
        if "Could not find" in str(error) or "ValidationException" in str(error):
            return ""
        raise
    return str(found["EndpointStatus"])
