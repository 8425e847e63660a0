"""Bulk verdicts in the Data Manager: Accept, Send back…, Escalate…, Exclude…; the model; earlier work put on a desk.

This module runs inside Label Studio. Each verdict becomes an ordinary annotation by the signed-in user, made of the
boxes the task was shown with; the review service treats it like any other and enforces roles and assignment there.
Work that is sent back becomes a draft of the reader who drew it, which every view of Label Studio opens with.
"""

from collections import Counter
from types import SimpleNamespace

from core.permissions import AllPermissions
from django.utils.timezone import now
from ml.models import MLBackend
from rest_framework.exceptions import PermissionDenied
from tasks.models import Annotation, AnnotationDraft, Task
from webhooks.models import WebhookAction
from webhooks.utils import emit_webhooks_for_instance

_PERMISSIONS = AllPermissions()
_VERDICTS = {
    "accept": {2: "Accept", 3: "Approve"},
    "send_back": {2: "Send back", 3: "Send back"},
    "escalate": {2: "Escalate"},
    "exclude": {3: "Exclude"},
}
_GONE = 410


def dermloop_accept(project, queryset, **kwargs):
    """Accept or approve what is drawn on the selected tasks."""
    return _decide("accept", project, queryset, kwargs["request"])


def dermloop_send_back(project, queryset, **kwargs):
    """Send the selected tasks back to the technician with a reason."""
    return _decide("send_back", project, queryset, kwargs["request"])


def dermloop_escalate(project, queryset, **kwargs):
    """Leave the decision on the selected tasks to QA."""
    return _decide("escalate", project, queryset, kwargs["request"])


def dermloop_exclude(project, queryset, **kwargs):
    """Exclude the images of the selected tasks with a reason."""
    return _decide("exclude", project, queryset, kwargs["request"])


def dermloop_model(project, queryset, **kwargs):
    """Nothing to do: the dialog has shown which model serves and how far its training is."""
    return {"response_code": 200, "detail": ""}


def dermloop_put_on_desk(project, queryset, **kwargs):
    """Make somebody's earlier boxes their draft on the selected tasks; for the review service, shown in no menu."""
    request = kwargs["request"]
    if request.user != project.organization.created_by:
        raise PermissionDenied("Only the account of the review service may write drafts of others.")
    reader = project.organization.users.filter(email__iexact=request.data["reader"]).first()
    made = 0
    for task in queryset if reader else ():
        begun = task.annotations.exists() or task.drafts.filter(user=reader).exists()
        if not begun:
            AnnotationDraft.objects.create(task=task, user=reader, result=request.data["result"])
            made += 1
    return {"response_code": 200, "made": made}


def _decide(what, project, queryset, request):
    reason = str(request.data.get("reason") or "").strip()
    if what in ("send_back", "exclude") and not reason:
        return {"response_code": 400, "detail": "Give a reason, in one sentence."}
    made, left_out = [], Counter()
    for task in queryset.prefetch_related("predictions", "annotations"):
        problem = _problem(what, task, request.user)
        if problem:
            left_out[problem] += 1
        else:
            verdict = _VERDICTS[what][_tier(task)]
            made.append(_annotation(project, task, request.user, verdict, reason))
    _tell(project, request.user, made)
    detail = f"{len(made)} tasks decided."
    if left_out:
        detail += " Left out: " + ", ".join(f"{count} {why}" for why, count in left_out.items()) + "."
    return {"response_code": 200, "detail": detail}


def _tier(task):
    parts = str(task.data.get("key") or "").rsplit(":", 3)
    return int(parts[1]) if len(parts) == 4 and parts[1].isdigit() else 0


def _problem(what, task, user):
    if _tier(task) not in _VERDICTS[what]:
        return "of a tier without this verdict"
    if task.annotations.exists():
        return "answered already"
    if task.data.get("assignee") not in ("", None, user.email):
        return "assigned to somebody else"
    return ""


def _annotation(project, task, user, verdict, reason):
    shown = task.predictions.filter(model_version=project.model_version).order_by("id").first()
    result = list(shown.result) if shown else []
    result.append(_row("verdict", "choices", {"choices": [verdict]}))
    if reason:
        result.append(_row("reason", "textarea", {"text": [reason]}))
    return Annotation.objects.create(
        task=task,
        project=project,
        completed_by=user,
        updated_by=user,
        result=result,
        parent_prediction=shown,
    )


def _row(name, kind, value):
    return {"id": f"bulk-{name}", "from_name": name, "to_name": "image", "type": kind, "value": value}


def _tell(project, user, made):
    tasks = Task.objects.filter(id__in=[annotation.task_id for annotation in made])
    tasks.update(updated_at=now(), updated_by=user)
    project.update_tasks_counters_and_is_labeled(tasks)
    if made:
        emit_webhooks_for_instance(user.active_organization, project, WebhookAction.ANNOTATIONS_CREATED, made)


def _reason_form(user, project):
    return [{"columnCount": 1, "fields": [{"type": "input", "name": "reason", "label": "Why? One sentence."}]}]


def _model_form(user, project):
    """What the model says of itself, as lines to read: asked for whenever somebody opens the dialog."""
    backend = _backend(project)
    if backend is None:
        return _lines("No project here is connected with a model.")
    health = backend.api.health()
    if health.is_error:
        return _lines("The ML backend does not answer.")
    version = health.response.get("model_version")
    serves = f"{version} draws the first boxes." if version else "No model has been promoted yet."
    job = backend.api.get_train_job_status(SimpleNamespace(job_id="newest"))
    if job.status_code == _GONE:
        return _lines(serves, "No retraining has been asked for.")
    return _lines(serves, f"The newest retraining {job.response.get('summary', 'could not be looked up.')}")


def _backend(project):
    """The project's own ML backend, else that of a project beside it: one model serves all three tiers."""
    beside = MLBackend.objects.filter(project__organization=project.organization).order_by("id")
    return project.ml_backends.order_by("id").first() or beside.filter(title="dermloop").first()


def _lines(*told):
    fields = [{"type": "hidden", "name": f"line-{number}", "label": text} for number, text in enumerate(told)]
    return [{"columnCount": 1, "fields": [field]} for field in fields]


def _action(entry_point, title, order, text, form=None, hidden=False):
    dialog = {"title": title, "text": text, "type": "confirm"}
    if form is not None:
        dialog["form"] = form
    return {
        "entry_point": entry_point,
        "permission": _PERMISSIONS.annotations_create,
        "title": title,
        "order": order,
        "dialog": dialog,
        "hidden": hidden,
    }


actions = [
    _action(dermloop_accept, "Accept", -40, "Accept what is drawn on the selected tasks as your own reading?"),
    _action(dermloop_send_back, "Send back…", -39, "The technician gets the selected tasks back.", _reason_form),
    _action(dermloop_escalate, "Escalate…", -38, "QA decides on the selected tasks.", _reason_form),
    _action(dermloop_exclude, "Exclude…", -37, "The images are not used for training.", _reason_form),
    _action(dermloop_model, "Model and training…", -35, "What serves, and how far its training is.", _model_form),
    _action(dermloop_put_on_desk, "Put earlier work on a desk", -36, "", hidden=True),
]
