"""What the model says of each image, for the order of the queues."""

from __future__ import annotations

from alembic import op

from review_workflow.store.schema import model_readings

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table where the first migration, which knows the newest shape, has not done so."""
    model_readings.create(op.get_bind(), checkfirst=True)


def downgrade() -> None:
    """Drops the table; it can be filled again from Label Studio."""
    model_readings.drop(op.get_bind())
