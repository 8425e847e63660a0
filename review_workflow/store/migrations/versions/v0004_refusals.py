"""What was turned away at the door, in a table whose rows stay and whose counts only grow."""

from __future__ import annotations

from alembic import op

from review_workflow.errors import ReviewError
from review_workflow.store.schema import refusals

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQLITE = (
    """CREATE TRIGGER refusals_only_grow BEFORE UPDATE ON refusals
       WHEN NEW.count <= OLD.count OR NEW.minute <> OLD.minute OR NEW.what <> OLD.what
            OR NEW.place <> OLD.place OR NEW.source <> OLD.source
       BEGIN SELECT RAISE(ABORT, 'the record of refusals only grows'); END""",
    """CREATE TRIGGER refusals_no_delete BEFORE DELETE ON refusals
       BEGIN SELECT RAISE(ABORT, 'the record of refusals only grows'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION refusals_only_grow() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN
         IF TG_OP = 'UPDATE' THEN
           IF NEW.count > OLD.count AND (NEW.minute, NEW.what, NEW.place, NEW.source)
              = (OLD.minute, OLD.what, OLD.place, OLD.source) THEN RETURN NEW; END IF;
         END IF;
         RAISE EXCEPTION 'the record of refusals only grows';
       END $$""",
    """CREATE TRIGGER refusals_no_change BEFORE UPDATE OR DELETE ON refusals
       FOR EACH ROW EXECUTE FUNCTION refusals_only_grow()""",
    """CREATE TRIGGER refusals_no_truncate BEFORE TRUNCATE ON refusals
       FOR EACH STATEMENT EXECUTE FUNCTION refusals_only_grow()""",
)


def upgrade() -> None:
    """Creates the table where the first migration, which knows the newest shape, has not done so, and its triggers."""
    bind = op.get_bind()
    refusals.create(bind, checkfirst=True)
    for statement in _SQLITE if bind.dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    """Refuses: dropping a record is no migration."""
    raise ReviewError("migration 4", "downgrade", "an upgrade", "Restore a backup instead: a record is not undone.")
