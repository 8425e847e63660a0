"""The database of the review: schema, migrations, and the one door through which everything is read and written."""

from review_workflow.store.audit import AuditAnchor, AuditEntry, AuditProblem
from review_workflow.store.database import Store, open_store
from review_workflow.store.gold import GoldTask
from review_workflow.store.insight import Insight
from review_workflow.store.refusals import Refusal
from review_workflow.store.session import Session
from review_workflow.store.traffic import OutboxItem, TaskHint

__all__ = [
    "AuditAnchor",
    "AuditEntry",
    "AuditProblem",
    "GoldTask",
    "Insight",
    "OutboxItem",
    "Refusal",
    "Session",
    "Store",
    "TaskHint",
    "open_store",
]
