"""What a SageMaker job prints, read off CloudWatch a little behind."""

from __future__ import annotations

from collections.abc import Iterator

from dermloop.aws.clients import Aws, told
from dermloop.errors import AwsMissingError

_GROUP = "/aws/sagemaker/TrainingJobs"


class JobLog:
    """The log of one job; each line is given once."""

    def __init__(self, aws: Aws, job: str, group: str = _GROUP) -> None:
        self._aws = aws
        self._job = job
        self._group = group
        self._seen: set[str] = set()
        self._since = 0

    def lines(self) -> Iterator[str]:
        """Lines that came since the last call; none before the job has a log."""
        try:
            with told(f"log of {self._job}"):
                pages = self._aws.client("logs").get_paginator("filter_log_events")
                found = pages.paginate(
                    logGroupName=self._group, logStreamNamePrefix=f"{self._job}/", startTime=self._since
                )
                events = [event for page in found for event in page["events"]]
        except AwsMissingError:
            return
        for event in events:
            if event["eventId"] not in self._seen:
                self._seen.add(event["eventId"])
                self._since = max(self._since, int(event["timestamp"]))
                yield str(event["message"])
