"""The stack is deployed, described, destroyed and replayed over HTTP, and says what is wrong in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from builders_aws import BUCKET, IMAGE, ScriptedAws, created, messages, moto, reset, scripted, signed_in, stack
from typer.testing import CliRunner

from dermloop.aws import deploy as work
from dermloop.aws.buckets import SUFFIXES, Bucket
from dermloop.aws.changes import HOLDS, Change, refuse_losses
from dermloop.aws.cli import app
from dermloop.aws.clients import CURES, Aws, forget_clients
from dermloop.aws.stack import TEMPLATE, rendered
from dermloop.aws.states import Step, is_settled, next_step
from dermloop.cli import ERRORS
from dermloop.errors import AwsError, DeployError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),  # moto leaves out what it cannot make
    pytest.mark.filterwarnings("ignore:Unable to delete:UserWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as address:
        yield address


@pytest.fixture
def aws(server: str) -> Iterator[Aws]:
    reset(server)
    with signed_in(server):
        yield Aws()


@pytest.fixture
def script() -> Iterator[ScriptedAws]:
    with scripted() as (address, found), signed_in(address, AWS_MAX_ATTEMPTS="1"):
        yield found


def run(*words: str, status: int = 0) -> dict[str, Any]:
    found = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert found.exit_code == status, found.output
    return dict(json.loads(found.stdout))


def deployed(aws: Aws, **more: str) -> work.Deployed:
    return work.deploy(aws, stack(), {"FunctionImage": IMAGE, **more})


def unread(aws: Aws) -> None:
    """Keeps moto's functions from taking messages off the queue of uploads."""
    for row in aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]:
        aws.client("lambda").update_event_source_mapping(UUID=row["UUID"], Enabled=False)


def put(aws: Aws, *keys: str) -> None:
    for key in keys:
        aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"x")


def test_a_stack_is_made_with_every_step_told_and_a_second_time_changes_nothing(aws: Aws) -> None:
    said: list[str] = []
    first = work.deploy(aws, stack(said), {"FunctionImage": IMAGE})
    assert first.changed and first.view.state == "CREATE_COMPLETE"
    assert said == ["create in progress: dermloop (User Initiated)", "create complete: dermloop"]
    assert first.view.outputs["Bucket"] == BUCKET
    assert first.view.outputs["ApiAddress"].endswith("/live")
    again = work.deploy(aws, stack(), {})
    assert not again.changed and again.view.outputs == first.view.outputs


def test_the_functions_run_the_handlers_of_the_serving_package(aws: Aws) -> None:
    deployed(aws)
    listed = aws.client("lambda").list_functions()["Functions"]
    names = {row["FunctionName"]: row["Environment"]["Variables"] for row in listed}
    assert set(names) == {"dermloop-read", "dermloop-ask"}
    assert all(row["DERMLOOP_ML_ALLOWED_BUCKETS"] == BUCKET for row in names.values())
    mapping = aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert [row["EventSourceArn"].rsplit(":", 1)[-1] for row in mapping] == ["dermloop-uploads"]


def test_a_parameter_is_changed_and_the_others_keep_their_values(aws: Aws) -> None:
    deployed(aws, DailyQuota="77")
    changed = run("deploy", "--yes", "--set", "ReadMemory=4096")
    assert changed["changed"] is True
    given = stack().view().parameters
    assert (given["ReadMemory"], given["DailyQuota"], given["FunctionImage"]) == ("4096", "77", IMAGE)


def test_the_bucket_outlives_the_stack_and_the_next_stack_takes_it_into_use_again(aws: Aws) -> None:
    deployed(aws)
    put(aws, "incoming/a.jpg")
    assert run("destroy", "--yes") == {"stack": "dermloop", "kept": BUCKET}
    assert stack().view().state == ""
    again = deployed(aws)
    assert again.view.parameters["DataBucket"] == again.view.outputs["Bucket"] == BUCKET
    told = aws.client("s3").get_bucket_notification_configuration(Bucket=BUCKET)["QueueConfigurations"]
    assert {row["QueueArn"] for row in told} == {again.view.outputs["UploadsQueueArn"]}
    assert len(told) == len(SUFFIXES)
    unread(aws)
    put(aws, "incoming/b.jpg", "incoming/notes.txt", "elsewhere/c.jpg")
    keys = [
        row["s3"]["object"]["key"] for body in messages(again.view.outputs["UploadsQueue"]) for row in body["Records"]
    ]
    assert keys == ["incoming%2Fb.jpg"]
    assert aws.client("s3").get_object(Bucket=BUCKET, Key="incoming/a.jpg")["Body"].read() == b"x"


def test_somebody_elses_bucket_is_worked_in_and_never_emptied(aws: Aws) -> None:
    s3, queue = aws.client("s3"), aws.client("sqs").create_queue(QueueName="theirs")["QueueUrl"]
    name, arn = "clinic-pictures", "arn:aws:sqs:eu-central-1:123456789012:theirs"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    theirs = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"QueueConfigurations": [theirs]})
    deployed(aws, DataBucket=name)
    with pytest.raises(DeployError, match="not made by a stack"):
        work.destroy(aws, stack(), True, print)
    assert stack().view().state == "CREATE_COMPLETE"
    assert work.destroy(aws, stack(), False, print) == name
    left = s3.get_bucket_notification_configuration(Bucket=name)["QueueConfigurations"]
    assert [row["QueueArn"] for row in left] == [arn] and queue


def test_data_is_deleted_only_when_told_and_never_with_foreign_files_among_it(aws: Aws) -> None:
    deployed(aws)
    aws.client("s3").put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    put(aws, "incoming/a.jpg", "models/m/bundle.json", "champion.json", "thesis/final.docx")
    put(aws, "incoming/a.jpg")
    with pytest.raises(DeployError, match=r"1 foreign files \(thesis/final.docx\).*Nothing was deleted"):
        work.destroy(aws, stack(), True, print)
    assert stack().view().state == "CREATE_COMPLETE"
    versions = aws.client("s3").list_object_versions(Bucket=BUCKET)["Versions"]
    assert len(versions) == 5
    for row in versions:
        if row["Key"].startswith("thesis/"):
            aws.client("s3").delete_object(Bucket=BUCKET, Key=row["Key"], VersionId=row["VersionId"])
    assert run("destroy", "--yes", "--delete-data")["kept"] is None
    assert not Bucket(aws, BUCKET).exists()


def test_nothing_is_removed_without_a_yes(aws: Aws) -> None:
    deployed(aws)
    found = CliRunner().invoke(app, ["destroy"], input="n\n")
    assert found.exit_code == 1
    assert stack().view().state == "CREATE_COMPLETE"


def test_failed_uploads_are_replayed_once_each_and_a_message_that_names_nothing_stays(aws: Aws) -> None:
    outputs = deployed(aws).view.outputs
    sqs = aws.client("sqs")
    unread(aws)
    for body in (created("incoming/a.jpg"), created("incoming/b.jpg"), created("incoming/a.jpg"), "no event"):
        sqs.send_message(QueueUrl=outputs["FailedQueue"], MessageBody=body)
    assert run("status")["failed"] == 4
    done = run("replay", status=1)
    assert (done["sent"], done["doubled"], len(done["left"])) == (2, 1, 1)
    keys = sorted(body["Records"][0]["s3"]["object"]["key"] for body in messages(outputs["UploadsQueue"]))
    assert keys == ["incoming%2Fa.jpg", "incoming%2Fb.jpg"]
    again = run("replay", status=1)
    assert (again["sent"], again["doubled"]) == (0, 0)
    now = run("status")
    assert (now["waiting"], now["failed"]) == (2, 1)


def test_the_changes_are_shown_and_nothing_is_made_without_a_yes(aws: Aws) -> None:
    words = ["deploy", "--set", f"FunctionImage={IMAGE}"]
    refused = CliRunner().invoke(app, words, input="n\n")
    assert refused.exit_code == 1 and stack().view().state == ""
    assert "add             Bucket (S3::Bucket)\n" in refused.output
    assert f"changes to dermloop in {aws.region_name}?" in refused.output
    made = run(*words, "--yes")
    assert (
        made["changed"]
        and {"resource": "Bucket", "kind": "AWS::S3::Bucket", "verb": "add", "kept": False} in made["changes"]
    )
    again = CliRunner().invoke(app, ["deploy"], input="")
    assert again.exit_code == 0 and "nothing to change" in again.output
    changed = CliRunner().invoke(app, ["deploy", "--set", "ReadMemory=4096"], input="y\n")
    assert changed.exit_code == 0 and "update complete" in changed.output  # moto lists no change of a parameter


def test_what_holds_something_is_neither_replaced_nor_removed_without_its_name(script: ScriptedAws) -> None:
    listed = [
        ("Modify", "ReadFunction", "AWS::Lambda::Function", "<Replacement>True</Replacement>"),
        ("Modify", "Uploads", "AWS::SQS::Queue", "<Replacement>Conditional</Replacement>"),
        ("Remove", "Bucket", "AWS::S3::Bucket", "<PolicyAction>Retain</PolicyAction>"),
    ]
    rows = "".join(
        f"<member><Type>Resource</Type><ResourceChange><Action>{action}</Action><LogicalResourceId>{name}"
        f"</LogicalResourceId><ResourceType>{kind}</ResourceType>{more}</ResourceChange></member>"
        for action, name, kind, more in listed
    )
    pages = (f"<Changes>{rows}</Changes><NextToken>more</NextToken>", "<Changes/>")
    made = (
        f"<R><DescribeChangeSetResult><Status>CREATE_COMPLETE</Status>{x}</DescribeChangeSetResult></R>" for x in pages
    )
    one, last = made
    script.answer("DescribeStacks", described("UPDATE_COMPLETE"))
    script.answer("DescribeStackEvents", events(), events(("dermloop", OWN, "UPDATE_COMPLETE", "")))
    for operation in ("CreateChangeSet", "ExecuteChangeSet", "DeleteChangeSet"):
        script.answer(operation, f"<R><{operation}Result/></R>")
    script.answer("DescribeChangeSet", one, one, last)
    with pytest.raises(DeployError) as caught:
        stack().deploy({}, "{}")
    assert str(caught.value) == (
        "Uploads, Bucket: the change would perhaps replace and remove it; expected what holds something to stay. "
        "Nothing was changed. Take back what leads to it, or allow it with --replace Uploads --replace Bucket."
    )
    names = [name for name, _ in script.asked]
    assert "ExecuteChangeSet" not in names and names[-1] == "DeleteChangeSet" and "DeleteStack" not in names
    said: list[str] = []

    def agree(changes: Sequence[Change]) -> None:
        said.extend(change.sentence for change in changes)
        refuse_losses(changes, ["Uploads", "Bucket"])

    script.answer("DescribeChangeSet", one, one, last)
    assert stack().deploy({}, "{}", agree)
    assert said == [
        "replace         ReadFunction (Lambda::Function)",
        "perhaps replace Uploads (SQS::Queue). It holds uploads that wait or failed.",
        "remove          Bucket (S3::Bucket). It holds pictures, datasets, models and results; the old one stays.",
    ]


def test_every_kind_that_holds_something_is_in_the_template() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    assert [kind for kind in HOLDS if f"Type: {kind}\n" not in text] == []


def test_every_state_of_a_stack_has_a_next_step() -> None:
    from botocore.session import Session

    states = Session().get_service_model("cloudformation").shape_for("StackStatus").enum
    assert all(next_step(state) is Step.WAIT or is_settled(state) for state in states)
    assert {state for state in states if next_step(state) is Step.WAIT} == {
        state for state in states if state.endswith("_IN_PROGRESS") and state != "REVIEW_IN_PROGRESS"
    }


def described(state: str) -> str:
    row = f"<member><StackName>dermloop</StackName><StackId>arn:x</StackId><StackStatus>{state}</StackStatus>"
    row += "<CreationTime>2026-01-01T00:00:00Z</CreationTime></member>"
    result = f"<DescribeStacksResult><Stacks>{row}</Stacks></DescribeStacksResult>"
    return f"<DescribeStacksResponse>{result}</DescribeStacksResponse>"


def events(*rows: tuple[str, str, str, str]) -> str:
    """The answer with these events, latest first: resource, type, state, reason."""
    members = "".join(
        f"<member><EventId>{len(rows) - number}-{name}-{state}</EventId><LogicalResourceId>{name}</LogicalResourceId>"
        f"<ResourceType>{kind}</ResourceType><ResourceStatus>{state}</ResourceStatus>"
        f"<ResourceStatusReason>{reason}</ResourceStatusReason><StackName>dermloop</StackName><StackId>x</StackId>"
        "<Timestamp>2026-01-01T00:00:00Z</Timestamp></member>"
        for number, (name, kind, state, reason) in enumerate(rows)
    )
    result = f"<DescribeStackEventsResult><StackEvents>{members}</StackEvents></DescribeStackEventsResult>"
    return f"<DescribeStackEventsResponse>{result}</DescribeStackEventsResponse>"


OWN = "AWS::CloudFormation::Stack"
MADE = "<R><DescribeChangeSetResult><Status>CREATE_COMPLETE</Status></DescribeChangeSetResult></R>"
BEGUN = ("dermloop", OWN, "CREATE_IN_PROGRESS", "User Initiated")
FAILED = ("ReadFunction", "AWS::Lambda::Function", "CREATE_FAILED", "Source image does not exist")
CANCELLED = ("Api", "AWS::ApiGateway::RestApi", "CREATE_FAILED", "Resource creation cancelled")
ROLLED_BACK = ("dermloop", OWN, "ROLLBACK_COMPLETE", "")
REMOVED = ("dermloop", OWN, "DELETE_COMPLETE", "")


def test_a_half_failed_deploy_names_the_resource_that_failed_first_and_its_reason(script: ScriptedAws) -> None:
    script.answer("DescribeStacks", described("REVIEW_IN_PROGRESS"))
    script.answer("DescribeChangeSet", MADE)
    after = events(ROLLED_BACK, CANCELLED, FAILED, BEGUN)
    script.answer("DescribeStackEvents", events(), after, after)
    script.answer("CreateChangeSet", "<R><CreateChangeSetResult/></R>")
    script.answer("ExecuteChangeSet", "<R><ExecuteChangeSetResult/></R>")
    script.answer("DeleteStack", "<R/>")
    said: list[str] = []
    with pytest.raises(DeployError) as caught:
        stack(said).deploy({"FunctionImage": IMAGE}, "{}")
    assert str(caught.value) == (
        "stack dermloop: ROLLBACK_COMPLETE, ReadFunction: Source image does not exist; expected every resource "
        "in place. "
        "Correct the cause and run the same command again: it goes on from what is there."
    )
    assert said[1] == "create failed: ReadFunction (Source image does not exist)"


def test_the_remains_of_a_failed_deploy_are_removed_before_the_next_try(script: ScriptedAws) -> None:
    gone = "<E><Error><Code>ValidationError</Code><Message>Stack with id dermloop does not exist</Message></Error></E>"
    script.answers["DescribeStacks"] = [(200, described("ROLLBACK_COMPLETE"))] * 2 + [(400, gone)]
    script.answer("DescribeChangeSet", MADE)
    complete = ("dermloop", OWN, "CREATE_COMPLETE", "")
    before = events(ROLLED_BACK, FAILED, BEGUN)
    script.answer(
        "DescribeStackEvents", before, events(REMOVED, ROLLED_BACK, FAILED, BEGUN), events(), events(complete, BEGUN)
    )
    script.answer("CreateChangeSet", "<R><CreateChangeSetResult/></R>")
    script.answer("ExecuteChangeSet", "<R><ExecuteChangeSetResult/></R>")
    script.answer("DeleteStack", "<R/>")
    assert stack().deploy({"FunctionImage": IMAGE}, "{}")
    order = [name for name, _ in script.asked if name in ("DeleteStack", "CreateChangeSet", "ExecuteChangeSet")]
    assert order == ["DeleteStack", "CreateChangeSet", "ExecuteChangeSet"]


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("AccessDenied", "Give this login"),
        ("ExpiredToken", "Sign in again"),
        ("InvalidClientTokenId", "Check AWS_PROFILE"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_cure(script: ScriptedAws, code: str, cure: str) -> None:
    script.refuse(code, "not authorized to perform: cloudformation:DescribeStacks")
    with pytest.raises(AwsError) as caught:
        stack().view()
    assert str(caught.value).startswith(f"stack dermloop: {code} (not authorized to perform: cloudformation:Desc")
    assert cure in str(caught.value) and isinstance(caught.value, ERRORS)
    assert "\n" not in str(caught.value)


def test_a_bucket_that_may_not_be_looked_into_stops_the_deploy_before_anything_is_made(script: ScriptedAws) -> None:
    gone = "<E><Error><Code>ValidationError</Code><Message>Stack with id dermloop does not exist</Message></Error></E>"
    script.answer("DescribeStacks", gone, status=400)
    identity = "<GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult>"
    script.answer("GetCallerIdentity", f"<GetCallerIdentityResponse>{identity}</GetCallerIdentityResponse>")
    script.refuse("AccessDenied", operation="HEAD")
    with pytest.raises(AwsError, match=rf"bucket {BUCKET}: 403 .*Give this login the permission"):
        work.deploy(Aws(), stack(), {"FunctionImage": IMAGE})
    assert "CreateChangeSet" not in [name for name, _ in script.asked]


def test_an_address_where_nobody_answers_is_named_with_the_cure(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_clients()
    with pytest.raises(AwsError, match=r"bucket gone: EndpointConnectionError .*Check the network, the region"):
        Bucket(aws, "gone").exists()


def test_without_credentials_or_region_the_cure_names_the_variable(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    forget_clients()
    with pytest.raises(AwsError, match="Set AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        stack().view()
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    forget_clients()
    with pytest.raises(AwsError, match="Set AWS_REGION, or name it with --region"):
        stack().view()


def test_a_first_deploy_without_an_image_and_a_malformed_parameter_are_refused(aws: Aws) -> None:
    with pytest.raises(DeployError, match="docker/lambda/Dockerfile"):
        work.deploy(aws, stack(), {})
    with pytest.raises(DeployError, match="NAME=VALUE"):
        run("deploy", "--set", "ReadMemory")
    with pytest.raises(AwsError, match="Run `dermloop aws deploy`"):
        run("replay")


def test_a_change_of_the_api_gives_its_deployment_a_new_name() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    one, other = rendered(text), rendered(text.replace("PathPart: analyze", "PathPart: analyse"))
    name = next(line.strip() for line in one.splitlines() if line.startswith("  ApiDeployment"))
    assert name not in other and f"!Ref {name.rstrip(':')}\n" in one
    assert "!Ref ApiDeployment\n" not in one


def test_every_cure_is_a_sentence() -> None:
    assert all(cure.endswith(".") and "\n" not in cure for cure in CURES.values())
