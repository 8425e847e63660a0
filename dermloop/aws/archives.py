"""What a job left on S3, brought into a home folder: its bundle among the models, its run among the runs."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from converters import storage
from converters.whole import whole_folder
from dermloop.errors import RemoteJobError
from ml_backend import bundle as bundles
from training import sagemaker
from training.targets import Trained

MODEL, OUTPUT = "model.tar.gz", "output.tar.gz"


def collect(address: str, home: Path) -> Trained:
    """The bundle and the run of a finished job, whose archives lie below an address, now in the home folder.

    What is there already stays as it is. Raises RemoteJobError for an archive that is not a job's, DatasetError where
    it cannot be had, BundleError where the bundle is not what it says it is.
    """
    with _unpacked(f"{address}/{OUTPUT}") as left, _unpacked(f"{address}/{MODEL}") as models:
        try:
            told = orjson.loads((left / sagemaker.RESULT).read_bytes())
            run, version = str(told["run"]), str(told["version"])
        except (OSError, orjson.JSONDecodeError, KeyError) as error:
            raise RemoteJobError(address, str(error), "what a training job leaves", "Submit the job again.") from error
        bundles.load_bundle(models / version)
        _move(left / "runs" / run, home / "runs" / run)
        _move(models / version, home / "models" / version)
    return Trained(run, version)


@contextmanager
def _unpacked(address: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        archive = storage.fetch(address, Path(place))
        target = Path(place) / "content"
        try:
            with tarfile.open(archive) as content:
                content.extractall(target, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise RemoteJobError(
                address, str(error), "an archive of a training job", "Submit the job again."
            ) from error
        yield target


def _move(source: Path, target: Path) -> None:
    """Puts a folder in place whole; one that is there already is kept."""
    if target.is_dir():
        return
    with whole_folder(target, mark=".") as draft:
        shutil.copytree(source, draft, dirs_exist_ok=True)
