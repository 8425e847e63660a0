"""Gold tasks: which image is a copy of which, and the piece of work that brought it along."""

from __future__ import annotations

from alembic import op

from review_workflow.store.schema import gold

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table where the first migration, which knows the newest shape, has not done so."""
    gold.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drops the table; without it gold tasks could not be told from images under review."""
    gold.drop(op.get_bind())
