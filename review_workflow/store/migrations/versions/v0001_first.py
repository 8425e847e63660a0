"""The first shape of the database, with an audit table that only grows."""

from __future__ import annotations

from alembic import op

from review_workflow.errors import ReviewError
from review_workflow.store.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQLITE = (
    """CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END""",
    """CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END""",
    """CREATE TRIGGER audit_in_order BEFORE INSERT ON audit
       WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit)
       BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$""",
    """CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
       FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()""",
)


def upgrade() -> None:
    """Creates all tables, the first audit head and the triggers."""
    bind = op.get_bind()
    metadata.create_all(bind)
    op.execute("INSERT INTO audit_head (id, seq, digest) VALUES (1, 0, '')")
    for statement in _SQLITE if bind.dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    """Refuses: dropping an audit log is no migration."""
    raise ReviewError("migration 1", "downgrade", "an upgrade", "Restore a backup instead: an audit log is not undone.")
