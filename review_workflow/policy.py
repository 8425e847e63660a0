"""The review policy: one TOML file, validated when read, named by a digest that is stored with every decision."""

from __future__ import annotations

import hashlib
import re
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


class Vote(StrEnum):
    """How several readers' diagnoses become one: every voice the same, or weighed by how reliable each reader is."""

    MAJORITY = "majority"
    DAWID_SKENE = "dawid-skene"


class MaskMerge(StrEnum):
    """How several readers' masks become one: STAPLE, or the pixels that more than half of the readers painted."""

    STAPLE = "staple"
    MAJORITY = "majority"


class Expertise(StrEnum):
    """What of an image is held against a reader's expertise."""

    SITE = "site"
    DIAGNOSIS = "diagnosis"


class Level(StrEnum):
    """How strong an approved truth has to be before readers are measured by it."""

    DERMATOLOGIST = "dermatologist"
    QA = "qa"
    CONSENSUS = "consensus"


@dataclass(frozen=True, slots=True)
class Readers:
    """How many dermatologists read an image: one, or where a rule says so `together`; shares are in [0, 1].

    With `masks` they, and QA after them, may also paint each lesion.
    """

    share_with_second: float = 0.2
    second_for_malignant: bool = True
    second_below_score: float = 0.0
    together: int = 2
    masks: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """When readings say the same, and when a reading left the boxes as they were (IoU in [0, 1]).

    `diagnosis` is the share of (weighed) voices that a lesion's label needs; 1 demands that all say the same.
    """

    iou: float = 0.5
    unchanged_iou: float = 0.98
    diagnosis: float = 1.0


@dataclass(frozen=True, slots=True)
class Merge:
    """How readings that agree become one; reliability needs so many lesions that several readers have named."""

    diagnosis: Vote = Vote.MAJORITY
    masks: MaskMerge = MaskMerge.STAPLE
    after_lesions: int = 30


@dataclass(frozen=True, slots=True)
class Assignment:
    """Whom work is given to: those with the expertise that counts, then those with the least waiting work."""

    expertise: tuple[Expertise, ...] = (Expertise.SITE, Expertise.DIAGNOSIS)


@dataclass(frozen=True, slots=True)
class Gold:
    """Known truths among the queues: how often, in which tiers, of which level, after how long a rest.

    `share` is the chance in [0, 1] that a piece of work brings a gold task along to the same reader.
    """

    share: float = 0.02
    tiers: tuple[int, ...] = (1, 2)
    level: Level = Level.QA
    rest_days: float = 30.0


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
    """How the readers themselves are measured: a share in [0, 1] of readings in these tiers sees nothing drawn."""

    share_blind: float = 0.0
    blind_tiers: tuple[int, ...] = (1, 2)


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
    merge: Merge = field(default_factory=Merge)
    assignment: Assignment = field(default_factory=Assignment)
    gold: Gold = field(default_factory=Gold)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        for name, value in self._shares().items():
            _demand(0.0 <= value <= 1.0, name, value, "a number from 0 to 1")
        training = self.training
        lowest = min(training.after_approved, training.every_hours, training.debounce_minutes)
        _demand(lowest >= 0, "training", asdict(training), "no negative number")
        _demand(2 <= self.readers.together <= 5, "readers.together", self.readers.together, "2 to 5 readers")
        _demand(self.merge.after_lesions >= 1, "merge.after_lesions", self.merge.after_lesions, "1 or more")
        _demand(self.gold.rest_days >= 0, "gold.rest_days", self.gold.rest_days, "no negative number")
        for name, tiers in (("gold.tiers", self.gold.tiers), ("quality.blind_tiers", self.quality.blind_tiers)):
            _demand(set(tiers) <= {1, 2}, name, tiers, "a list of 1 and 2")

    def _shares(self) -> dict[str, float]:
        return {
            "readers.share_with_second": self.readers.share_with_second,
            "readers.second_below_score": self.readers.second_below_score,
            "agreement.iou": self.agreement.iou,
            "agreement.unchanged_iou": self.agreement.unchanged_iou,
            "agreement.diagnosis": self.agreement.diagnosis,
            "qa.share_of_agreed": self.qa.share_of_agreed,
            "quality.share_blind": self.quality.share_blind,
            "gold.share": self.gold.share,
        }

    @property
    def digest(self) -> str:
        """SHA-256 over all that the policy says, in hexadecimal."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def draw(self, image_id: str, purpose: str) -> float:
        """A number in [0, 1) that is always the same for this image, purpose and seed."""
        digest = hashlib.sha256(f"{self.seed}:{purpose}:{image_id}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56


_SECTIONS: dict[str, type] = {
    "readers": Readers,
    "agreement": Agreement,
    "merge": Merge,
    "qa": QualityAssurance,
    "assignment": Assignment,
    "queue": Queue,
    "quality": Quality,
    "gold": Gold,
    "training": Training,
}
_CHOICES: dict[str, type[StrEnum]] = {kind.__name__: kind for kind in (Order, Vote, MaskMerge, Expertise, Level)}
_LIST = re.compile(r"tuple\[(?P<of>\w+), \.\.\.\]")


def read(path: Path | None = None) -> Policy:
    """The policy of a TOML file, or the one that ships with the package; raises PolicyError for a malformed one."""
    source = path or Path(__file__).with_name("policy.toml")
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PolicyError(str(source), str(error), "a readable TOML file", "Fix or name another file.") from error
    if (version := raw.pop("format", None)) != _FORMAT:
        raise PolicyError(f"{source}: format", version, f"format {_FORMAT}", "Use a matching policy file.")
    values: dict[str, Any] = {
        name: _part(kind, raw.pop(name, {}), f"{source}: [{name}]") for name, kind in _SECTIONS.items()
    }
    seed = raw.pop("seed", 20)
    if raw:
        raise PolicyError(str(source), sorted(raw), f"seed and the sections {', '.join(_SECTIONS)}", "Remove the rest.")
    return Policy(seed=_value("int", seed, f"{source}: seed"), **values)


def _part(kind: type[_T], raw: dict[str, Any], item: str) -> _T:
    _demand(isinstance(raw, dict), item, raw, "a section of settings")
    known = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(raw) - set(known)):
        raise PolicyError(item, unknown, f"only {', '.join(known)}", "Check the spelling.")
    values = {name: _value(known[name], value, f"{item} {name}") for name, value in raw.items()}
    return kind(**values)


def _value(kind: Any, value: Any, item: str) -> Any:
    if found := _LIST.fullmatch(kind):
        if not isinstance(value, list):
            raise PolicyError(item, value, "a list", "Correct the policy file.")
        return tuple(_value(found["of"], entry, item) for entry in value)
    if choices := _CHOICES.get(kind):
        _demand(value in tuple(choices), item, value, f"one of {', '.join(choices)}")
        return choices(value)
    readable: tuple[type, ...] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}[kind]
    _demand(type(value) in readable, item, value, f"a value of type {kind}")
    return readable[-1](value)


def _demand(holds: bool, item: str, value: object, expected: str) -> None:
    if not holds:
        raise PolicyError(item, value, expected, "Correct the policy file.")
