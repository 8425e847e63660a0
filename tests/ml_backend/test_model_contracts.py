"""The model class runs under both contracts of label-studio-ml: the released 1.0.9 and the 2.x sources."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from builders_serving import bundle, encoded, pixels

from converters import taxonomy
from converters.label_studio.config import labelling_config
from converters.label_studio.controls import Tier

CONFIG = labelling_config(taxonomy.read(), Tier.TECHNICIAN)
TASKS = [{"id": 1, "data": {"image": "/data/local-files/?d=images/a.png"}}]


class SecondContract:
    """The part of label-studio-ml 2.x that a model class meets: constructor, cache, properties, events."""

    TRAIN_EVENTS = ("ANNOTATION_CREATED", "START_TRAINING")
    cache: ClassVar[dict[tuple[str, str], str]] = {}

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.model_version:
            self.set("model_version", "0.0.1")
        self.setup()

    def setup(self) -> None: ...

    def get(self, key: str) -> str | None:
        return self.cache.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        self.cache[self.project_id, key] = value

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        return self.get("model_version")

    def process_event(self, event: str, data: Any, job_id: str, additional_params: dict[str, Any]) -> Any:
        return self.fit(event=event, data=data, job_id=job_id, **additional_params)  # type: ignore[attr-defined]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels()))
    monkeypatch.setenv("DERMLOOP_ML_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def first() -> Iterator[ModuleType]:
    yield from _loaded()


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    double = ModuleType("label_studio_ml.model")
    double.LabelStudioMLBase = SecondContract  # type: ignore[attr-defined]
    SecondContract.cache.clear()
    monkeypatch.setitem(sys.modules, "label_studio_ml.model", double)
    yield from _loaded()


def _loaded() -> Iterator[ModuleType]:
    for name in ("ml_backend.ml_base", "ml_backend.model"):
        sys.modules.pop(name, None)
    module = importlib.import_module("ml_backend.model")
    yield module
    if module.default_parts.cache_info().currsize:
        parts = module.default_parts()
        parts.close()
    for name in ("ml_backend.ml_base", "ml_backend.model"):
        sys.modules.pop(name, None)


def test_the_released_server_predicts_with_it(home: Path, first: ModuleType) -> None:
    from label_studio_ml import api

    version = bundle(home).version
    client = api.init_app(first.DermloopModel, model_dir=str(home / "jobs")).test_client()
    setup = client.post("/setup", json={"project": "1.1", "schema": CONFIG, "hostname": "", "access_token": ""})
    assert setup.status_code == 200
    answer = client.post("/predict", json={"tasks": TASKS, "project": "1.1", "label_config": CONFIG, "params": {}})
    (found,) = answer.json["results"]
    assert found["model_version"] == version and found["result"][0]["type"] == "rectanglelabels"


def test_the_released_contract_trains_on_the_button_only(home: Path, first: ModuleType) -> None:
    model = first.DermloopModel(label_config=CONFIG, train_output={})
    assert model.process_event("ANNOTATION_CREATED", {}, "1", {}) is None
    asked = model.process_event("START_TRAINING", {}, "1", {"workdir": "x"})
    assert first.default_parts().queue.get(asked["job"]).reason == "asked for in Label Studio"


def test_the_second_contract_predicts_and_reports_the_bundle_as_version(home: Path, second: ModuleType) -> None:
    version = bundle(home).version
    second.default_parts().host.current()
    model = second.DermloopModel(project_id="1", label_config=CONFIG)
    assert model.get("model_version") == version
    (found,) = model.predict(TASKS, context=None, login=None, password=None)
    assert found["model_version"] == version and found["result"]


def test_the_second_contract_keeps_to_the_parts_it_was_given(home: Path, second: ModuleType) -> None:
    from ml_backend import composition
    from ml_backend.settings import read_settings

    parts = composition.build(read_settings(home=home))
    assert second.DermloopModel("1", label_config=CONFIG, parts=parts).predict(TASKS) == [[]]
    assert second.default_parts.cache_info().currsize == 0
    parts.close()


def test_the_second_contract_trains_on_the_button_only(home: Path, second: ModuleType) -> None:
    model = second.DermloopModel("1", label_config=CONFIG)
    assert model.fit("ANNOTATION_CREATED", {}) == {}
    assert model.fit("START_TRAINING", {"project": {"id": 1}})["job"]
    assert model.process_event("START_TRAINING", {}, "1", {})["job"]


def test_torch_stays_out(home: Path, first: ModuleType) -> None:
    assert not {"torch", "tensorflow", "keras", "ultralytics"} & set(sys.modules)
