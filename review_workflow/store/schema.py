"""Tables of the review database; migrations bring a database to this shape."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")

images = Table(
    "images",
    metadata,
    Column("image_id", String(128), primary_key=True),
    Column("patient_id", String(256), index=True),
    Column("record", Text, nullable=False),
    Column("registered_at", Float, nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("image_id", String(128), primary_key=True),
    Column("state", String(32), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("changed_at", Float, nullable=False),
)

works = Table(
    "works",
    metadata,
    Column("key", String(192), primary_key=True),
    Column("image_id", String(128), nullable=False, index=True),
    Column("tier", Integer, nullable=False),
    Column("assignee", String(256)),
    Column("status", String(16), nullable=False),
    Column("task_id", Integer),
    Column("pushed", String(64)),
    Column("opened_at", Float, nullable=False),
    Column("answered_at", Float),
    Column("author", String(256)),
    Column("verdict", String(32)),
    Column("changed", Boolean),
    Column("lead_time", Float),
    Column("model_version", String(256)),
    Index("works_queue", "tier", "status", "assignee"),
)

people = Table(
    "people",
    metadata,
    Column("email", String(256), primary_key=True),
    Column("role", String(32), nullable=False),
    Column("user_id", Integer, index=True),
    Column("active", Boolean, nullable=False),
    Column("expertise", Text, nullable=False),
)

seen = Table(
    "seen",
    metadata,
    Column("annotation_id", Integer, primary_key=True),
    Column("source", String(160), nullable=False),
    Column("outcome", String(32), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("key", String(192), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("error", Text, nullable=False),
)

inbox = Table(
    "inbox",
    metadata,
    Column("id", _SERIAL, primary_key=True, autoincrement=True),
    Column("project_id", Integer, nullable=False),
    Column("task_id", Integer, nullable=False),
    Column("action", String(64), nullable=False),
    Column("received_at", Float, nullable=False),
)

model_readings = Table(
    "model_readings",
    metadata,
    Column("image_id", String(128), primary_key=True),
    Column("model_version", String(256), nullable=False),
    Column("reading", Text, nullable=False),
)

gold = Table(
    "gold",
    metadata,
    Column("image_id", String(128), primary_key=True),
    Column("source_id", String(128), nullable=False, index=True),
    Column("brought_by", String(192), nullable=False, unique=True),
    Column("tier", Integer, nullable=False),
    Column("reader", String(256)),
    Column("made_at", Float, nullable=False),
)

refusals = Table(
    "refusals",
    metadata,
    Column("minute", String(16), primary_key=True),
    Column("what", String(32), primary_key=True),
    Column("place", String(64), primary_key=True),
    Column("source", String(256), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last", String(40), nullable=False),
)

facts = Table(
    "facts",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("value", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("expires_at", Float, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=False),
    Column("at", String(40), nullable=False),
    Column("actor", String(256), nullable=False, index=True),
    Column("role", String(32), nullable=False),
    Column("tier", Integer),
    Column("happened", String(32), nullable=False),
    Column("image_id", String(128), nullable=False, index=True),
    Column("key", String(192), nullable=False),
    Column("verdict", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("source", String(160), nullable=False),
    Column("policy", String(64), nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), nullable=False),
    Column("digest", String(64), nullable=False),
)
