"""What a month on AWS is expected to cost: from the measured time for a picture and declared prices; asks nobody."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DAYS = 30
PRICES = Path(__file__).with_name("prices.toml")
_MB_IN_GB = 1024
_HOURS = 24


@dataclass(frozen=True, slots=True)
class Sheet:
    """Prices in dollars by name, measured figures, assumed figures, and where and when the prices were looked up."""

    region: str
    looked_up: str
    prices: Mapping[str, float]
    sources: Mapping[str, str]
    measured: Mapping[str, float]
    assumed: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars of a month with so many pictures a day: each part of the upload path, and two other ways to read them.

    `storage` is what one month's pictures cost to keep for a month; it is paid again every month they stay.
    """

    images_a_day: int
    functions: float
    queue: float
    objects: float
    storage: float
    api: float
    rest: float
    batch: float
    endpoint: float
    endpoint_instances: int

    @property
    def uploads(self) -> float:
        """The whole upload path: read at once, asked for over the API, kept for a month."""
        return self.functions + self.queue + self.objects + self.storage + self.api + self.rest

    @property
    def for_a_thousand(self) -> float:
        """The upload path for a thousand pictures."""
        return 1000 * self.uploads / (self.images_a_day * DAYS)


def read(path: Path = PRICES) -> Sheet:
    """The sheet that ships with the package, or another."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    prices = {name: float(row["price"]) for name, row in raw["prices"].items()}
    sources = {name: str(row["source"]) for name, row in raw["prices"].items()}
    measured = {name: float(value) for name, value in raw["measured"].items() if not isinstance(value, str)}
    assumed = {name: float(value) for name, value in raw["assumed"].items()}
    return Sheet(str(raw["region"]), str(raw["looked_up"]), prices, sources, measured, assumed)


def month(images_a_day: int, sheet: Sheet) -> Cost:
    """The cost of a month with so many pictures a day."""
    images, price, own = images_a_day * DAYS, sheet.prices, sheet.assumed
    asked = images * own["asked_again"]
    invocations = 2 * images + asked
    instances = _instances(images_a_day, sheet)
    return Cost(
        images_a_day,
        functions=_function_seconds(images, asked, sheet) * own["function_mb"] / _MB_IN_GB * price["lambda_gb_second"]
        + invocations / 1e6 * price["lambda_million_requests"],
        queue=(6 * images + own["idle_receives"]) / 1e6 * price["sqs_million_requests"],
        objects=3 * images / 1e3 * price["s3_thousand_writes"]
        + (6 * images + asked) / 1e3 * price["s3_thousand_reads"],
        storage=images * (2 * own["picture_mb"] + own["result_kb"] / 1024) / _MB_IN_GB * price["s3_gb_month"],
        api=asked / 1e6 * price["api_million_requests"],
        rest=invocations * own["log_kb"] / 1024**2 * price["logs_gb"] + price["secret_month"],
        batch=_batch_hours(images_a_day, sheet) * DAYS * price["instance_hour"],
        endpoint=instances * _HOURS * DAYS * price["instance_hour"],
        endpoint_instances=instances,
    )


def table(costs: Iterable[Cost]) -> str:
    """The costs as a table in Markdown."""
    head = ("pictures a day", "functions", "queue", "S3 requests", "S3 storage", "API", "logs, secret",
            "upload path", "for 1,000 pictures", "batch instead", "endpoint instead")  # fmt: skip
    rows = [
        (
            f"{cost.images_a_day:,}",
            *(_dollars(part) for part in (cost.functions, cost.queue, cost.objects, cost.storage, cost.api, cost.rest)),
            f"**{_dollars(cost.uploads)}**",
            f"${cost.for_a_thousand:.3f}",
            _dollars(cost.batch),
            f"{_dollars(cost.endpoint)} ({cost.endpoint_instances})",
        )
        for cost in costs
    ]
    lines = [head, tuple("---:" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _function_seconds(images: float, asked: float, sheet: Sheet) -> float:
    """Billed seconds of a month: one thread's time and waiting for the store; more processors are taken as no gain."""
    read = sheet.measured["processor_seconds"] * sheet.assumed["margin"] + sheet.assumed["store_seconds"]
    again = sheet.assumed["current_seconds"]
    return images * (read + again) + asked * again


def _batch_hours(images_a_day: int, sheet: Sheet) -> float:
    """Hours of one instance a day, its start included."""
    work = (
        images_a_day * sheet.measured["processor_seconds"] * sheet.assumed["margin"] / sheet.assumed["instance_cores"]
    )
    return work / 3600 + sheet.assumed["start_minutes"] / 60


def _instances(images_a_day: int, sheet: Sheet) -> int:
    """Instances of an endpoint that keep up with the busiest hour."""
    busiest = images_a_day / _HOURS / 3600 * sheet.assumed["peak"]
    seconds = sheet.measured["processor_seconds"] * sheet.assumed["margin"] / sheet.assumed["instance_cores"]
    return max(1, math.ceil(busiest * seconds))


def _dollars(value: float) -> str:
    return f"${value:,.2f}"
