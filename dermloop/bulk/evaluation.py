"""A measurement in shards: each asks the bundle about its images, and the figures are reckoned once over all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import orjson

from converters import dataset
from converters.dataset import Dataset, DatasetVersion, Split
from dermloop.bulk import plan as plans
from dermloop.bulk.plan import Item, Plan, load_plan, make_plan, read_results, write_results
from dermloop.bulk.shards import ShardReport, Tell
from ml_backend.bundle import ModelBundle
from training import datasets, evaluation, registry
from training.cases import ImageCase
from training.config import EvaluationConfig
from training.report import EvaluationReport, decode_case

_ORDER = "evaluation.json"


def plan(home: Path, bundle: ModelBundle, version: DatasetVersion, split: Split, shards: int) -> Plan:
    """The plan of a measurement, named by its content: the one that is there already, or a new one."""
    facts = f"{bundle.version} {version.split_digest(split)} {split} {shards}"
    name = f"evaluate-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    if (home / "bulk" / name / plans.FILE).is_file():
        return load_plan(home, name)
    (home / "bulk").mkdir(parents=True, exist_ok=True)
    gradable = datasets.gradable(version.dataset.only(split))
    items = [Item(item.record.image_id, str(version.path(item).absolute())) for item in gradable]
    row = {"bundle": str(bundle.root.absolute()), "dataset": str(version.root.absolute()), "split": split}
    with tempfile.TemporaryDirectory(dir=home / "bulk", prefix=".") as folder:
        order = Path(folder) / _ORDER
        order.write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2))
        return make_plan(home, name, bundle.version, items, shards, kind=plans.Kind.EVALUATE, files={_ORDER: order})


def run_shard(plan: Plan, shard: int, tell: Tell) -> ShardReport:
    """The report on a shard whose answers are stored; again, it changes nothing. Raises RegistryError, DataError."""
    items = list(plan.read_items(shard))
    if not plan.is_done(shard):
        cases = _asked(plan, {item.name for item in items}, tell) if items else ()
        write_results(plan, shard, ({"name": case.image_id, **asdict(case)} for case in cases))
    return ShardReport(shard, len(items), 0, len(items))


def measure(plan: Plan, bundle: ModelBundle, version: DatasetVersion, config: EvaluationConfig) -> EvaluationReport:
    """The report over the answers of all shards, kept beside the bundle; the run is gone then. Raises BulkError."""
    found = {row["image_id"]: decode_case(row) for row in read_results(plan)}
    split = Split(orjson.loads((plan.root / _ORDER).read_bytes())["split"])
    cases = tuple(found[item.record.image_id] for item in datasets.gradable(version.dataset.only(split)))
    report = evaluation.evaluate(bundle, version, split, config, cases=cases)
    registry.save_report(bundle, report)
    shutil.rmtree(plan.root)
    return report


def _asked(plan: Plan, names: set[str], tell: Tell) -> tuple[ImageCase, ...]:
    row = orjson.loads((plan.root / _ORDER).read_bytes())
    root = Path(row["bundle"])
    bundle, version = registry.load_bundle(root.parent, root.name), dataset.load(Path(row["dataset"]))
    own = tuple(item for item in version.dataset.items if item.record.image_id in names)
    part = replace(version, dataset=Dataset(version.dataset.taxonomy, own))
    return evaluation.cases_of(bundle, part, Split(row["split"]), lambda _, done, total, __: tell(done, total))
