"""The data bucket: what lies in it by folder, where its uploads go, and its removal with every version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from dermloop.aws.clients import Aws, told
from dermloop.errors import AwsMissingError, DeployError

FOLDERS = ("images/", "datasets/", "models/", "promotions/", "champion.json", "runs/", "backfill/", "labelling/")
"""What dermloop writes in its bucket, besides the folder of uploads; four of these are a shared registry."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_OURS = "dermloop-"
_SHOWN = 3


class Bucket:
    """One bucket by name."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.name = name
        self._aws = aws

    def exists(self) -> bool:
        """Whether the bucket is there; raises AwsError where it belongs to somebody else or cannot be asked."""
        try:
            with told(f"bucket {self.name}"):
                self._s3.head_bucket(Bucket=self.name)
        except AwsMissingError:
            return False
        return True

    def require_only_ours(self, uploads: str) -> None:
        """Raises DeployError naming objects outside dermloop's folders, before anything is deleted."""
        folders = (*FOLDERS, uploads) if uploads else FOLDERS
        foreign = [key for key, _ in self._versions() if not key.startswith(folders)]
        if foreign:
            shown = ", ".join(sorted(set(foreign))[:_SHOWN]) + (", …" if len(set(foreign)) > _SHOWN else "")
            cure = "Move them elsewhere, or run it again without --delete-data. Nothing was deleted."
            raise DeployError(
                f"bucket {self.name}", f"{len(set(foreign))} foreign files ({shown})", "only dermloop's folders", cure
            )

    def delete(self, say: Callable[[str], None]) -> None:
        """Deletes every version of every object, then the bucket."""
        done, found = 0, self._versions()
        while part := list(islice(found, 1000)):
            rows = [{"Key": key, "VersionId": version} for key, version in part]
            with told(f"bucket {self.name}"):
                answer = self._s3.delete_objects(Bucket=self.name, Delete={"Objects": rows, "Quiet": True})
            if refused := answer.get("Errors"):
                first = f"{refused[0].get('Key')}: {refused[0].get('Code')}"
                cure = "Allow s3:DeleteObjectVersion and run the same command again."
                raise DeployError(f"bucket {self.name}", first, "every object deleted", cure)
            done += len(rows)
            say(f"{done} object versions deleted from {self.name}.")
        with told(f"bucket {self.name}"):
            self._s3.delete_bucket(Bucket=self.name)

    def send_uploads(self, queue: str, prefix: str) -> None:
        """Has new pictures below a prefix told to a queue; what else the bucket tells to others stays."""
        known = self._notifications()
        kept = [row for row in known.get("QueueConfigurations", ()) if not row.get("Id", "").startswith(_OURS)]
        ours = [_told_to(queue, prefix, suffix) for suffix in SUFFIXES]
        with told(f"bucket {self.name}"):
            self._s3.put_bucket_notification_configuration(
                Bucket=self.name, NotificationConfiguration={**known, "QueueConfigurations": [*kept, *ours]}
            )

    def stop_uploads(self, queue: str) -> None:
        """Has nothing told to a queue any more; what else the bucket tells to others stays."""
        known = self._notifications()
        kept = [row for row in known.get("QueueConfigurations", ()) if row.get("QueueArn") != queue]
        with told(f"bucket {self.name}"):
            self._s3.put_bucket_notification_configuration(
                Bucket=self.name, NotificationConfiguration={**known, "QueueConfigurations": kept}
            )

    @property
    def _s3(self) -> Any:
        return self._aws.client("s3")

    def _notifications(self) -> dict[str, Any]:
        with told(f"bucket {self.name}"):
            found: Mapping[str, Any] = self._s3.get_bucket_notification_configuration(Bucket=self.name)
        return {name: rows for name, rows in found.items() if name != "ResponseMetadata"}

    def _versions(self) -> Iterator[tuple[str, str]]:
        with told(f"bucket {self.name}"):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self.name):
                for row in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    yield row["Key"], row["VersionId"]


def _told_to(queue: str, prefix: str, suffix: str) -> dict[str, Any]:
    rules = [{"Name": "prefix", "Value": prefix}, {"Name": "suffix", "Value": suffix}]
    case = "upper" if suffix.isupper() else "lower"
    return {
        "Id": f"{_OURS}{suffix.strip('.').lower()}-{case}",
        "QueueArn": queue,
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": rules}},
    }
