"""Commands of the documentation that are not run with the others: why, and which test runs the same thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a command begins with, why it is not run here, and the tests (files or `file::name`) that do the same."""

    begins: str
    why: str
    tests: tuple[str, ...]


_STACK = "starts Label Studio and the other programs"
_TRAINS = "loads the training libraries"
_LABEL_STUDIO = "needs a Label Studio"
_AWS = "needs an AWS account"
_CONTAINERS = "needs a container engine"

ELSEWHERE: tuple[Elsewhere, ...] = (
    Elsewhere("make up", _STACK, ("tests/dermloop/test_stack_e2e.py",)),
    Elsewhere("make loop", _STACK, ("tests/dermloop/test_loop_command.py", "tests/e2e/test_the_loop.py")),
    Elsewhere("make test", "is what runs this", ("tests/dermloop/test_repository.py",)),
    Elsewhere("make", "a target of the Makefile", ("tests/docs/test_commands.py::test_make_knows_each_target",)),
    Elsewhere("dermloop up", _STACK, ("tests/dermloop/test_stack_e2e.py",)),
    Elsewhere("dermloop loop", _STACK, ("tests/e2e/test_the_loop.py",)),
    Elsewhere("dermloop serve", "runs until interrupted", ("tests/ml_backend/test_process.py",)),
    Elsewhere("dermloop worker", "runs until interrupted", ("tests/dermloop/test_worker.py",)),
    Elsewhere("dermloop train ", _TRAINS, ("tests/training/test_training.py",)),
    Elsewhere("dermloop retrain", _TRAINS, ("tests/training/test_training.py",)),
    Elsewhere("dermloop evaluate", _TRAINS, ("tests/training/test_cli.py",)),
    Elsewhere("dermloop bulk evaluate", "needs a frozen dataset", ("tests/deployment/test_bulk_joined.py",)),
    Elsewhere("dermloop bulk plan march-tasks", _LABEL_STUDIO, ("tests/deployment/test_bulk.py",)),
    Elsewhere("dermloop bulk plan", "needs a champion", ("tests/deployment/test_bulk.py",)),
    Elsewhere("dermloop bulk run march --engine", "needs machines", ("tests/deployment/test_bulk_engines.py",)),
    Elsewhere("dermloop bulk run", "needs a champion", ("tests/deployment/test_bulk_engines.py",)),
    Elsewhere("dermloop bulk status", "needs a champion", ("tests/deployment/test_bulk_engines.py",)),
    Elsewhere("dermloop bulk push", _LABEL_STUDIO, ("tests/deployment/test_bulk.py",)),
    Elsewhere("dask ", "runs until interrupted", ("tests/deployment/test_bulk_engines.py",)),
    Elsewhere("dermloop compare", "needs two measured models", ("tests/training/test_cli.py",)),
    Elsewhere("dermloop promote", "needs a measured model", ("tests/training/test_cli.py",)),
    Elsewhere("dermloop rollback", "needs an earlier champion", ("tests/training/test_cli.py",)),
    Elsewhere("dermloop tune", _TRAINS, ("tests/training/test_tuning.py",)),
    Elsewhere("dermloop cross-validate", _TRAINS, ("tests/training/test_folds.py",)),
    Elsewhere("dermloop export", _TRAINS, ("tests/training/test_training.py",)),
    Elsewhere("dermloop review setup", _LABEL_STUDIO, ("tests/e2e/test_review_tiers.py",)),
    Elsewhere("dermloop review sync", _LABEL_STUDIO, ("tests/e2e/test_review_tiers.py",)),
    Elsewhere("dermloop review order", _LABEL_STUDIO, ("tests/e2e/test_review_tiers.py",)),
    Elsewhere("dermloop review install-actions", _LABEL_STUDIO, ("tests/e2e/test_review_tiers.py",)),
    Elsewhere("dermloop preannotate", _LABEL_STUDIO, ("tests/ml_backend/test_real_label_studio.py",)),
    Elsewhere("dermloop watch-bucket", _AWS, ("tests/ml_backend/test_objects.py",)),
    Elsewhere("dermloop convert s3://", _AWS, ("tests/converters/test_convert.py",)),
    Elsewhere("dermloop convert pictures s3://", _AWS, ("tests/converters/test_convert.py",)),
    Elsewhere("dermloop convert HAM10000", "needs the published data set", ("tests/converters/test_every_reader.py",)),
    Elsewhere(
        "dermloop dataset inspect HAM10000", "needs the published data set", ("tests/converters/test_every_reader.py",)
    ),
    Elsewhere("dermloop convert data/clinic", "needs a DVC repository", ("tests/converters/test_convert.py",)),
    Elsewhere("dermloop aws", _AWS, ("tests/aws/test_stack.py",)),
    Elsewhere("dermloop provision", _LABEL_STUDIO, ("tests/deployment/test_one_server.py",)),
    Elsewhere("dermloop backup", "needs a server's state", ("tests/deployment/test_backup.py",)),
    Elsewhere("dermloop restore", "needs a server's state", ("tests/deployment/test_backup.py",)),
    Elsewhere("dvc pull", "another program's command", ("tests/training/test_dvc.py",)),
    Elsewhere("dvc add", "another program's command", ("tests/training/test_dvc.py",)),
    Elsewhere("dvc push", "another program's command", ("tests/training/test_dvc.py",)),
    Elsewhere("git add", "another program's command", ("tests/training/test_dvc.py",)),
    Elsewhere("pip install", "another program's command", ("tests/dermloop/test_serving_install.py",)),
    Elsewhere(
        "curl ", "needs a running backend", ("tests/ml_backend/test_rest.py", "tests/ml_backend/test_process.py")
    ),
    Elsewhere("docker ", _CONTAINERS, ("tests/deployment/test_images.py", "tests/deployment/test_compose.py")),
    Elsewhere("sh docker/", _CONTAINERS, ("tests/deployment/test_images.py", "tests/deployment/test_compose.py")),
    Elsewhere("kubectl ", _CONTAINERS, ("tests/deployment/test_manifests.py",)),
    Elsewhere("gcloud ", "needs a Google Cloud account", ("tests/deployment/test_manifests.py",)),
    Elsewhere("aws ", _AWS, ("tests/aws",)),
    Elsewhere("label-studio-ml start", "runs until interrupted", ("tests/ml_backend/test_process.py",)),
    Elsewhere("dermloop logs label-studio", "needs a log of it", ("tests/dermloop/test_cli.py",)),
    Elsewhere("dermloop --debug", "shows an error on purpose", ("tests/dermloop/test_cli.py",)),
    Elsewhere("dermloop bulk work", "runs until interrupted", ("tests/deployment/test_bulk.py",)),
    Elsewhere("dermloop push", _AWS, ("tests/training/test_remote.py",)),
    Elsewhere("dermloop pull", _AWS, ("tests/training/test_remote.py",)),
    Elsewhere("dermloop review assign", "needs a waiting task", ("tests/review_workflow/test_cli.py",)),
    Elsewhere("gunicorn ", "runs until interrupted", ("tests/operations/test_processes.py",)),
    Elsewhere(".venv/bin/python -m pytest", "is a test itself", ("tests/converters/test_every_format.py",)),
    Elsewhere("export ", "sets a variable for the next command", ("tests/docs/test_commands.py",)),
)
