"""The watcher of a bucket as a process: it reads what is uploaded, counts it, and writes JSON lines."""

from __future__ import annotations

import sys
from pathlib import Path

from builders_processes import free_ports, running, until
from builders_registry import BUCKET, LOGIN, shared_registry
from builders_serving import bundle, encoded, pixels


def test_a_watcher_counts_what_it_reads(tmp_path: Path) -> None:
    bundle(tmp_path)
    (port,) = free_ports(1)
    with shared_registry() as store:
        given = {**LOGIN, "DERMLOOP_ML_HOME": str(tmp_path), "DERMLOOP_ML_S3_ENDPOINT": store.endpoint}
        given["DERMLOOP_WORKER_METRICS"] = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "dermloop", "watch-bucket", "--bucket", BUCKET, "--every", "0.2"]
        with running(command, port, tmp_path / "log", "/metrics", **given) as watcher:
            assert 'dermloop_pictures_total{outcome="analysed"} 0.0' in watcher.ask("/metrics")[2].decode()
            store.client.put_object(Bucket=BUCKET, Key="in/a.png", Body=encoded(pixels()))
            until(lambda: b'pictures_total{outcome="analysed"} 1.0' in watcher.ask("/metrics")[2], 60, watcher.log)
            lines = watcher.log.read_text(encoding="utf-8").splitlines()
            assert any('"program": "watcher"' in line and "serves" in line for line in lines)
