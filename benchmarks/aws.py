"""Processor time of one uploaded picture, as the function on AWS reads it: from bytes in S3 to the stored result.

Prints a JSON object a line: `{"bench", "ours", "unit", "note"}`. Processor time, not the clock: it hardly depends on
what else the machine does, and a function's processors are known. The store is moto's, in a process of its own.
Takes a home with a champion (the one that `make bench NAME=serve` leaves, unless another is named).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import boto3

HOME = Path(os.environ.get("DERMLOOP_HOME", ".dermloop")) / "bench" / "serve" / "both"
PICTURES = 32
PORT = 9591
BUCKET = "bench"


def main(home: Path) -> None:
    """Measures reading the home's pictures, one after the other, on one thread."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
    }
    command = [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as store:
        try:
            _measure(home)
        finally:
            store.terminate()


def _measure(home: Path) -> None:
    from ml_backend.composition import build
    from ml_backend.objects import analyse_object
    from ml_backend.settings import read_settings

    keys = _filled(sorted((home / "images").glob("[0-9]*.jpg"))[:PICTURES])
    parts = build(read_settings(home=home, threads=1, allowed_buckets=BUCKET))
    analyse_object(parts.store, parts.service, BUCKET, keys[0], 10**8)
    began, clock = time.process_time(), time.perf_counter()
    for key in keys[1:]:
        analyse_object(parts.store, parts.service, BUCKET, key, 10**8)
    spent, took = time.process_time() - began, time.perf_counter() - clock
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = (
        f"{len(keys) - 1} JPEGs of 1024×768, both stages, one thread; by the clock {took / (len(keys) - 1):.3f} s each"
    )
    _line("aws.read", spent / (len(keys) - 1), "processor s/image", note)
    _line("aws.memory", memory, "MB", "largest resident size of the process, both models loaded")
    parts.store.client.close()
    parts.close()


def _filled(files: list[Path]) -> list[str]:
    store = boto3.client("s3")
    for _ in range(100):
        try:
            store.create_bucket(Bucket=BUCKET)
            break
        except Exception:  # noqa: BLE001 - not up yet
            time.sleep(0.1)
    for path in files:
        store.put_object(Bucket=BUCKET, Key=f"incoming/{path.name}", Body=path.read_bytes())
    return [f"incoming/{path.name}" for path in files]


def _line(bench: str, ours: float, unit: str, note: str) -> None:
    print(json.dumps({"bench": bench, "ours": round(ours, 3), "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HOME)
