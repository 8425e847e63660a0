"""The review policy: one TOML file, validated when read, named by a digest that is stored with every decision."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import orjson

from review_workflow.errors import PolicyError

_FORMAT = 1
_T = TypeVar("_T")


class Order(StrEnum):
    """How queues are ordered."""

    HARM = "harm"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Readers:
    """How many dermatologists read an image; shares are probabilities in [0, 1]."""

    share_with_second: float = 0.2
    second_for_malignant: bool = True
    second_below_score: float = 0.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """When two readings say the same, and when a reading left the boxes as they were (IoU in [0, 1])."""

    iou: float = 0.5
    unchanged_iou: float = 0.98


@dataclass(frozen=True, slots=True)
class QualityAssurance:
    """Which agreed images QA sees; disputed ones always reach it."""

    share_of_agreed: float = 0.2
    malignant: bool = True


@dataclass(frozen=True, slots=True)
class Queue:
    """In which order work is offered."""

    order: Order = Order.HARM


@dataclass(frozen=True, slots=True)
class Quality:
    """How the readers themselves are measured; the share is a probability in [0, 1]."""

    share_blind: float = 0.0


@dataclass(frozen=True, slots=True)
class Training:
    """What starts a retraining; 0 switches a trigger off."""

    after_approved: int = 50
    every_hours: float = 0.0
    debounce_minutes: float = 10.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is decided beforehand; raises PolicyError where a number is out of its range."""

    seed: int = 20
    readers: Readers = field(default_factory=Readers)
    agreement: Agreement = field(default_factory=Agreement)
    qa: QualityAssurance = field(default_factory=QualityAssurance)
    queue: Queue = field(default_factory=Queue)
    quality: Quality = field(default_factory=Quality)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        shares = {
            "readers.share_with_second": self.readers.share_with_second,
            "readers.second_below_score": self.readers.second_below_score,
            "agreement.iou": self.agreement.iou,
            "agreement.unchanged_iou": self.agreement.unchanged_iou,
            "qa.share_of_agreed": self.qa.share_of_agreed,
            "quality.share_blind": self.quality.share_blind,
        }
        for name, value in shares.items():
            if not 0.0 <= value <= 1.0:
                raise PolicyError(name, value, "a number from 0 to 1", "Correct the policy file.")
        training = self.training
        if min(training.after_approved, training.every_hours, training.debounce_minutes) < 0:
            raise PolicyError("training", asdict(training), "no negative number", "Correct the policy file.")

    @property
    def digest(self) -> str:
        """SHA-256 over all that the policy says, in hexadecimal."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def draw(self, image_id: str, purpose: str) -> float:
        """A number in [0, 1) that is always the same for this image, purpose and seed."""
        digest = hashlib.sha256(f"{self.seed}:{purpose}:{image_id}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56


def read(path: Path | None = None) -> Policy:
    """The policy of a TOML file, or the one that ships with the package; raises PolicyError for a malformed one."""
    source = path or Path(__file__).with_name("policy.toml")
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(str(source), str(error), "a readable TOML file", "Fix or name another file.") from error
    if (version := raw.pop("format", None)) != _FORMAT:
        raise PolicyError(f"{source}: format", version, f"format {_FORMAT}", "Use a matching policy file.")
    parts = {
        "readers": Readers,
        "agreement": Agreement,
        "qa": QualityAssurance,
        "queue": Queue,
        "quality": Quality,
        "training": Training,
    }
    values: dict[str, Any] = {
        name: _part(kind, raw.pop(name, {}), f"{source}: [{name}]") for name, kind in parts.items()
    }
    seed = raw.pop("seed", 20)
    if raw:
        raise PolicyError(str(source), sorted(raw), f"seed and the sections {', '.join(parts)}", "Remove the rest.")
    return Policy(seed=int(seed), **values)


def _part(kind: type[_T], raw: dict[str, Any], item: str) -> _T:
    known = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(raw) - set(known)):
        raise PolicyError(item, unknown, f"only {', '.join(known)}", "Check the spelling.")
    values = {name: _value(known[name], value, f"{item} {name}") for name, value in raw.items()}
    return kind(**values)


def _value(kind: Any, value: Any, item: str) -> Any:
    readable: tuple[type, ...] = {"bool": (bool,), "int": (int,), "float": (int, float), "Order": (str,)}[kind]
    if type(value) not in readable:
        raise PolicyError(item, value, f"a value of type {kind.lower()}", "Correct the policy file.")
    if kind == "Order" and value not in tuple(Order):
        raise PolicyError(item, value, f"one of {', '.join(Order)}", "Correct the policy file.")
    return {"bool": bool, "int": int, "float": float, "Order": Order}[kind](value)
