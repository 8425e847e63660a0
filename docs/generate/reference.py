"""The reference pages, written from the code that they describe: what is added there appears here by itself."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

ROOT = Path(__file__).parents[2]
_NOTE = "!!! note\n    This page is written from the code by the build.\n"


def pages() -> dict[str, str]:
    """Markdown by the page's path below docs/."""
    makers: Mapping[str, Callable[[], str]] = {
        "commands": commands,
        "settings": settings,
        "rest": rest,
        "policies": policies,
        "bundle": bundle,
        "dataset": dataset,
        "audit": audit,
        "review": review,
        "formats": formats,
        "metrics": metrics,
    }
    return {f"reference/{name}.md": make() for name, make in makers.items()}


# commands


def commands() -> str:
    """Every command with its arguments and options."""
    from dermloop.cli import app

    parts = [_title("Commands and options", "Every command of `dermloop`. `--help` says the same in the terminal.")]
    for name, command in leaves(typer.main.get_command(app)):
        usage = " ".join(["dermloop", name, *((p.name or "").upper() for p in command.params if _is_argument(p))])
        parts += [f"## dermloop {name}\n", f"```text\n{usage}\n```\n", f"{_prose(command.help or '')}\n"]
        parts.append(_table(("option", "meaning", "default"), (_parameter(p) for p in command.params)))
    return "\n".join(parts)


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The commands below a group by their full name."""
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(words), command
    for name, part in below.items():
        yield from leaves(part, (*words, name))


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _parameter(parameter: Any) -> tuple[str, str, str]:
    names = [parameter.name.upper()] if _is_argument(parameter) else [*parameter.opts, *parameter.secondary_opts]
    variable = f" Environment: `{parameter.envvar}`." if isinstance(parameter.envvar, str) else ""
    default = parameter.default
    shown = "" if default in (None, "", False) or callable(default) or parameter.required else f"`{default}`"
    return ", ".join(f"`{name}`" for name in names), f"{_prose(parameter.help or '')}{variable}", shown


# settings


def settings() -> str:
    """Every setting of every program, by its environment variable."""
    from ml_backend.settings import Settings
    from review_workflow.settings import ReviewSettings
    from telemetry.settings import TelemetrySettings

    about = (
        "Programs read their settings once, from environment variables, at the start. A malformed value stops the "
        "start with the variable's name. Secrets never appear in a log or a message."
    )
    parts = [_title("Settings", about)]
    for title, model in (
        ("ML backend", Settings),
        ("Review service", ReviewSettings),
        ("Every program: logs, metrics and traces", TelemetrySettings),
    ):
        parts += [f"## {title}\n", f"{_prose(inspect.getdoc(model) or '')}\n", _settings_table(model)]
    parts += ["## Training\n", _training()]
    return "\n".join(parts)


def _settings_table(model: type[BaseSettings]) -> str:
    prefix = model.model_config.get("env_prefix", "")
    rows = [
        (f"`{prefix}{name.upper()}`", _prose(field.description or ""), _default(field.default))
        for name, field in model.model_fields.items()
    ]
    return _table(("variable", "meaning", "default"), rows)


def _default(value: Any) -> str:
    secret = isinstance(value, SecretStr)
    return "" if secret or value in (None, "", (), PydanticUndefined) else f"`{value}`"


def _training() -> str:
    from training.config import TrainingConfig

    about = "A TOML file: `dermloop training-config` prints it, `--config FILE` reads it. Left-out keys keep these.\n"
    parts = [about]
    for section in dataclasses.fields(TrainingConfig):
        value = getattr(TrainingConfig(), section.name)
        if dataclasses.is_dataclass(value):
            rows = [(f"`{f.name}`", f"`{getattr(value, f.name)!r}`") for f in dataclasses.fields(value)]
            about = _prose(inspect.getdoc(type(value)) or "")
            parts += [f"### [{section.name}]\n", f"{about}\n", _table(("key", "default"), rows)]
    return "\n".join(parts)


# REST


def rest() -> str:
    """The REST routes and the schemas of their answers."""
    from ml_backend import openapi

    document = openapi.document()
    about = "The backend gives out its own description at `/openapi.json`. " + str(document["info"]["description"])
    rows = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            statuses = ", ".join(sorted(operation["responses"]))
            rows.append((f"`{method.upper()} {path}`", operation["summary"], statuses))
    parts = [_title("REST routes", about), _table(("route", "what it does", "statuses"), rows), "## Answers\n"]
    for name, schema in document["components"]["schemas"].items():
        required = set(schema.get("required", ()))
        fields = [
            (f"`{field}`", _kind(kind), "always" if field in required else "where known")
            for field, kind in schema.get("properties", {}).items()
        ]
        parts += [f"### {name}\n", _table(("field", "kind", "there"), fields)]
    return "\n".join(parts)


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    least, most = schema.get("minimum"), schema.get("maximum")
    span = f" from {least} to {most:.0f}" if least is not None and most is not None else ""
    return f"{schema.get('type', 'anything')}{span}{' or null' if schema.get('nullable') else ''}"


# files


def policies() -> str:
    """The policy files as they ship, with their comments."""
    about = "Two TOML files decide what people need not decide. Their comments are the documentation."
    files = (
        ("Review policy", "review_workflow/policy.toml", "Put your own as `policy.toml` into the home folder."),
        ("Gate", "training/policies.toml", "Name a policy under `[gate]` in the training settings."),
        ("Class registry", "converters/taxonomy.toml", "Append-only: see [your own taxonomy](../how-to/taxonomy.md)."),
    )
    parts = [_title("Policy files", about)]
    for title, path, use in files:
        text = (ROOT / path).read_text(encoding="utf-8")
        parts += [f"## {title}\n", f"{use}\n", f"```toml\n{text}```\n"]
    return "\n".join(parts)


def bundle() -> str:
    """The bundle's files and the fields of its parts."""
    from ml_backend.bundle import ClassifierSpec, DetectorSpec, ModelBundle

    about = (
        "A bundle is a folder: `bundle.json`, `detector.onnx`, `classifier.onnx`. Its version is a digest of it all: "
        "one version is one behaviour. [The design](../design.md#bundle) has the file's layout and the graphs."
    )
    return _classes("Model bundle", about, (ModelBundle, DetectorSpec, ClassifierSpec))


def dataset() -> str:
    """The frozen dataset's files and the fields of its lines."""
    from converters.annotation import Annotation, ImageRecord, Lesion
    from converters.dataset import DatasetItem, DatasetVersion

    about = (
        "A frozen dataset is a folder named by its content: `version.json` (format, taxonomy, settings, number of "
        "images, digest), `manifest.jsonl` (a canonical JSON line for each image without default values), `images/`. "
        "These are the fields."
    )
    return _classes("Frozen dataset", about, (DatasetVersion, DatasetItem, ImageRecord, Annotation, Lesion))


def audit() -> str:
    """The audit log's columns and everything that can happen."""
    from review_workflow.store.audit import AuditEntry
    from review_workflow.store.schema import metadata

    about = (
        "`dermloop review export` prints the log, a JSON object for each entry. Each carries the digest of the one "
        "before; `dermloop review verify-audit` finds any that was altered, removed or moved."
    )
    parts = [_classes("Audit log and review database", about, (AuditEntry,)), "## Tables of the review database\n"]
    for table in metadata.sorted_tables:
        rows = [(f"`{c.name}`", str(c.type), "yes" if c.primary_key else "") for c in table.columns]
        parts += [f"### {table.name}\n", _table(("column", "type", "key"), rows)]
    return "\n".join(parts)


def review() -> str:
    """The transition table of the review."""
    from review_workflow.states import TRANSITIONS, finals

    ends = ", ".join(sorted(finals()))
    about = f"Where an image can stand, and what moves it. Final: {ends}. What is not in this table cannot happen."
    rows = [(state.value, happened.value, after.value) for (state, happened), after in TRANSITIONS.items()]
    return "\n".join([_title("Review states", about), _table(("state", "what happens", "next state"), rows)])


def formats() -> str:
    """Every format that can be read or written."""
    from converters.formats.table import FORMATS

    about = "`dermloop dataset formats` lists these too. [Bring images and labels in](../how-to/import.md) uses them."
    rows = [(f"`{name}`", "yes" if entry.read else "", "yes" if entry.write else "") for name, entry in FORMATS.items()]
    return "\n".join([_title("Formats", about), _table(("name", "read", "write"), rows)])


def metrics() -> str:
    """Every metric of every process."""
    from telemetry.catalogue import CATALOGUE

    about = "What the processes tell Prometheus on `/metrics`. No picture, name, token or patient is ever in a label."
    rows = [(f"`{m.name}`", m.kind.value, m.process, ", ".join(f"`{n}`" for n in m.labels), m.about) for m in CATALOGUE]
    return "\n".join([_title("Metrics", about), _table(("metric", "kind", "process", "labels", "meaning"), rows)])


# text


def _classes(title: str, about: str, classes: Sequence[type]) -> str:
    parts = [_title(title, about)]
    for one in classes:
        rows = [
            (f"`{f.name}`", f"`{_annotation(f)}`", "" if f.default is dataclasses.MISSING else f"`{f.default!r}`")
            for f in dataclasses.fields(one)
        ]
        parts += [f"## {one.__name__}\n", f"{_prose(inspect.getdoc(one) or '')}\n"]
        parts.append(_table(("field", "type", "default"), rows))
    return "\n".join(parts)


def _annotation(field: dataclasses.Field[Any]) -> str:
    return field.type if isinstance(field.type, str) else field.type.__name__


def _title(title: str, about: str) -> str:
    return f"# {title}\n\n{_prose(about)}\n\n{_NOTE}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines, ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Text whose angle brackets are shown rather than taken for HTML."""
    parts = text.split("`")
    return "`".join(p if n % 2 else p.replace("<", "&lt;").replace(">", "&gt;") for n, p in enumerate(parts))
