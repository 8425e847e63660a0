"""Puts the parts of the serving programs together, out of settings, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from converters import taxonomy
from converters.taxonomy import Taxonomy
from ml_backend.champions import Champions, FolderChampions, RegistryChampions
from ml_backend.fetch import ImageSource, Reach
from ml_backend.host import PipelineHost
from ml_backend.images import DecodeLimits
from ml_backend.label_studio import LabelStudioClient
from ml_backend.links import heatmap_link
from ml_backend.metrics import Metrics
from ml_backend.remote_folders import RemoteFolders
from ml_backend.s3 import ObjectStore
from ml_backend.service import PredictionService
from ml_backend.settings import Settings

if TYPE_CHECKING:
    from ml_backend.jobs import JobQueue


@dataclass(frozen=True)
class Parts:
    """What a serving program works with; the queue is opened when it is first asked for.

    `unmatched` holds, by project, what its labelling config has no place for, as the last `/setup` found it.
    """

    settings: Settings
    taxonomy: Taxonomy
    host: PipelineHost
    service: PredictionService
    source: ImageSource
    metrics: Metrics = field(default_factory=Metrics)
    unmatched: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def store(self) -> ObjectStore:
        """The object store of the settings."""
        return ObjectStore(self.settings.s3_endpoint)

    @cached_property
    def queue(self) -> JobQueue:
        """The durable queue; huey and what it brings are imported here, not at the start."""
        from ml_backend.jobs import JobQueue

        return JobQueue.open(self.settings.jobs_address)

    def link(self, address: str) -> str | None:
        """Where an annotator's browser finds the heat-map of a picture, or None where links are not set up."""
        return heatmap_link(address, self.settings)

    def close(self) -> None:
        """Stops the background threads and lets go of the queue's store."""
        self.host.stop()
        self.service.close()
        if "queue" in self.__dict__:
            self.queue.close()


def build(settings: Settings) -> Parts:
    """The parts for these settings; models begin to load in the background, nothing is waited for."""
    known = taxonomy.read()
    host = PipelineHost(_champions(settings, known), settings.threads)
    host.start()
    limits = DecodeLimits(settings.max_bytes, settings.max_pixels)
    return Parts(
        settings=settings,
        taxonomy=known,
        host=host,
        service=PredictionService(host, limits),
        source=ImageSource(_reach(settings), _uploads(settings), _objects(settings)),
    )


def _champions(settings: Settings, known: Taxonomy) -> Champions:
    if settings.registry is None:
        return FolderChampions(settings.models_folder, known)
    registry = RemoteFolders(settings.registry, ObjectStore(settings.s3_endpoint))
    return RegistryChampions(registry, settings.cache_folder, known)


def _reach(settings: Settings) -> Reach:
    return Reach(
        image_root=settings.images_folder,
        upload_root=settings.upload_root,
        label_studio_url=settings.label_studio_url,
        hosts=frozenset(settings.allowed_hosts),
        buckets=frozenset(settings.allowed_buckets),
        max_bytes=settings.max_bytes,
    )


def _uploads(settings: Settings) -> LabelStudioClient | None:
    if settings.label_studio_url is None or settings.label_studio_token is None:
        return None
    return LabelStudioClient(settings.label_studio_url, settings.label_studio_token.get_secret_value())


def _objects(settings: Settings) -> ObjectStore | None:
    return ObjectStore(settings.s3_endpoint) if settings.allowed_buckets and not settings.s3_by_label_studio else None
