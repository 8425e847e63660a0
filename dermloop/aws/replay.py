"""Failed uploads sent back to be read again: each object once, and a message is let go only after it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from dermloop.aws.clients import Aws, told
from dermloop.aws.deploy import queue_length

_AT_ONCE = 10
_HELD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay went: messages sent again, messages on an object that was sent already, and what stays and why."""

    sent: int = 0
    doubled: int = 0
    left: tuple[tuple[str, str], ...] = ()


def replay(aws: Aws, failed: str, uploads: str) -> Replayed:
    """What was sent from the queue of failures to the queue of uploads; doing it again sends what is left, no more.

    A message that names no object stays where it is. Killed in between, a message is at worst in both queues, and
    reading a picture twice changes nothing. Raises AwsError.
    """
    sqs, known, sent, doubled = aws.client("sqs"), set[tuple[str, str]](), 0, 0
    left: dict[str, str] = {}
    for message in _messages(aws, failed, queue_length(aws, failed)):
        objects = _objects(message["Body"])
        if not objects:
            left[message["MessageId"]] = message["ReceiptHandle"]
            continue
        with told("queue of uploads"):
            if objects - known:
                sqs.send_message(QueueUrl=uploads, MessageBody=message["Body"])
                sent += 1
            else:
                doubled += 1
            sqs.delete_message(QueueUrl=failed, ReceiptHandle=message["ReceiptHandle"])
        known |= objects
    for handle in left.values():
        with told("queue of failed uploads"):
            sqs.change_message_visibility(QueueUrl=failed, ReceiptHandle=handle, VisibilityTimeout=0)
    return Replayed(sent, doubled, tuple((name, "names no object of a bucket") for name in sorted(left)))


def _messages(aws: Aws, queue: str, count: int) -> Iterator[Mapping[str, Any]]:
    """At most as many messages as there were at the start: what fails again meanwhile waits for the next replay."""
    met = 0
    while met < count:
        with told("queue of failed uploads"):
            found = aws.client("sqs").receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=min(_AT_ONCE, count - met),
                VisibilityTimeout=_HELD_SECONDS,
                WaitTimeSeconds=1,
            )
        if not (messages := found.get("Messages", ())):
            return
        met += len(messages)
        yield from messages


def _objects(body: str) -> set[tuple[str, str]]:
    """Bucket and key of every object that S3's event in a message names; empty for anything else."""
    try:
        records = orjson.loads(body)["Records"]
        return {(str(row["s3"]["bucket"]["name"]), str(row["s3"]["object"]["key"])) for row in records}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return set()
