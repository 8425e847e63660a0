"""The template is clean, says what everything is for, and lets each part do what it does and no more."""

from __future__ import annotations

import ast
import base64
import fnmatch
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.client
import pytest
import requests
import yaml
from builders_aws import ACCOUNT, BUCKET, IMAGE, REGION, created, moto, reset, signed_in, stack
from builders_serving import bundle, encoded, pixels
from flask import Flask

from dermloop.aws import deploy as work
from dermloop.aws.buckets import SUFFIXES
from dermloop.aws.clients import Aws, forget_clients
from dermloop.aws.stack import TEMPLATE
from ml_backend import lambda_handlers, lambda_start
from ml_backend.app import create_app
from ml_backend.objects import RESULT_SUFFIX, is_picture
from ml_backend.sagemaker import create_endpoint
from ml_backend.settings import read_settings

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")  # moto leaves out what it cannot make
LIMIT = 51_200
"""Largest template that CloudFormation takes in a request, in bytes."""


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as {tag: value}."""


def _short(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    return {suffix: loader.construct_scalar(node)}  # type: ignore[arg-type]


_Loader.add_multi_constructor("!", _short)
WHOLE = yaml.load(TEMPLATE.read_text(encoding="utf-8"), _Loader)
RESOURCES: dict[str, Any] = WHOLE["Resources"]


def of_type(kind: str) -> dict[str, Any]:
    return {name: row["Properties"] for name, row in RESOURCES.items() if row["Type"] == kind}


def test_cfn_lint_finds_nothing() -> None:
    program = Path(sys.executable).with_name("cfn-lint")
    found = subprocess.run([program, TEMPLATE], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_template_fits_into_a_request_and_every_parameter_and_output_explains_itself() -> None:
    assert len(TEMPLATE.read_bytes()) < LIMIT
    assert all(row.get("Description") for part in ("Parameters", "Outputs") for row in WHOLE[part].values())
    grouped = WHOLE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in grouped for name in group["Parameters"]) == sorted(WHOLE["Parameters"])


def test_the_bucket_is_versioned_encrypted_closed_tidied_and_kept() -> None:
    row, found = RESOURCES["Bucket"], RESOURCES["Bucket"]["Properties"]
    assert (row["DeletionPolicy"], row["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert found["VersioningConfiguration"] == {"Status": "Enabled"}
    assert all(found["PublicAccessBlockConfiguration"].values())
    (rule,) = found["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == {"If": ["HasKey", "aws:kms", "AES256"]}
    kept = {rule["Id"] for rule in found["LifecycleConfiguration"]["Rules"]}
    assert kept >= {"replaced-objects-go", "unfinished-uploads-go", "checkpoints-go"}
    (closed,) = RESOURCES["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (closed["Effect"], closed["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_uploads_trigger_and_results_do_not() -> None:
    rows = RESOURCES["Bucket"]["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    suffixes = [rule["Value"] for row in rows for rule in row["Filter"]["S3Key"]["Rules"] if rule["Name"] == "suffix"]
    assert sorted(suffixes) == sorted(SUFFIXES)
    assert all(is_picture(f"incoming/a{suffix}") for suffix in suffixes)
    assert not any(f"incoming/a.jpg{RESULT_SUFFIX}".endswith(suffix) for suffix in suffixes)


def test_a_message_is_tried_again_and_then_kept_for_two_weeks() -> None:
    queue, failed = RESOURCES["Uploads"]["Properties"], RESOURCES["FailedUploads"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * RESOURCES["ReadFunction"]["Properties"]["Timeout"]
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": {"GetAtt": "FailedUploads.Arn"}, "maxReceiveCount": 4}
    assert failed["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert RESOURCES["ReadMapping"]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_every_function_comes_as_a_container_with_a_handler_that_exists_and_a_log_that_ends() -> None:
    logs = {row["LogGroupName"]["Sub"]: row["RetentionInDays"] for row in of_type("AWS::Logs::LogGroup").values()}
    for row in of_type("AWS::Lambda::Function").values():
        assert row["PackageType"] == "Image"
        (handler,) = row["ImageConfig"]["Command"]
        module, _, name = handler.rpartition(".")
        assert callable(getattr({m.__name__: m for m in (lambda_handlers, lambda_start)}[module], name))
        assert logs[f"/aws/lambda/{row['FunctionName']['Sub']}"] == {"Ref": "LogRetentionDays"}


def test_every_method_of_the_api_needs_a_key_and_every_key_has_a_quota() -> None:
    methods = of_type("AWS::ApiGateway::Method")
    assert len(methods) == 2 and all(row["ApiKeyRequired"] for row in methods.values())
    (plan,) = of_type("AWS::ApiGateway::UsagePlan").values()
    assert plan["Quota"] == {"Limit": {"Ref": "DailyQuota"}, "Period": "DAY"}
    assert plan["Throttle"]["RateLimit"] == {"Ref": "RequestsPerSecond"}
    paths = {row["PathPart"] for row in of_type("AWS::ApiGateway::Resource").values()}
    assert paths == {"v1", "analyze", "detect", "{key+}"}


def test_every_alarm_tells_somebody_and_names_what_exists() -> None:
    alarms = of_type("AWS::CloudWatch::Alarm")
    assert {row["MetricName"] for row in alarms.values()} >= {
        "ApproximateNumberOfMessagesVisible",
        "Errors",
        "5XXError",
    }
    assert all(row["AlarmActions"] == [{"Ref": "Alarms"}] and row["AlarmDescription"] for row in alarms.values())


def test_no_statement_allows_everything_of_a_service() -> None:
    for name, row in RESOURCES.items():
        documents = [policy["PolicyDocument"] for policy in row.get("Properties", {}).get("Policies", ())]
        if row["Type"] == "AWS::IAM::ManagedPolicy":
            documents.append(row["Properties"]["PolicyDocument"])
        for statement in (statement for document in documents for statement in document["Statement"]):
            actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            assert not any("*" in action for action in actions), name
            if statement["Resource"] == "*":
                assert statement["Sid"] in ("RegistryTicket", "OwnMetrics"), name


# What each role allows, against what its program really asks for.


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as address:
        yield address


@pytest.fixture
def aws(server: str) -> Iterator[Aws]:
    reset(server)
    with signed_in(server):
        work.deploy(Aws(), stack(), {"FunctionImage": IMAGE})
        iam = Aws().client("iam")
        for role, policy in (
            ("ReadRole", "read"),
            ("AskRole", "ask"),
            ("ServingRole", "serve"),
        ):  # moto keeps a template's as Python wrote it
            place = {"RoleName": role_name(Aws(), role), "PolicyName": policy}
            document = ast.literal_eval(str(iam.get_role_policy(**place)["PolicyDocument"]))
            iam.put_role_policy(**place, PolicyDocument=json.dumps(document))
        yield Aws()


@pytest.fixture
def serving(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    bundle(tmp_path)
    made = create_app(read_settings(home=tmp_path, allowed_buckets=BUCKET))
    monkeypatch.setattr(lambda_handlers, "application", lambda: made)
    aws.client("s3").put_object(Bucket=BUCKET, Key="incoming/a.png", Body=encoded(pixels()))
    yield made
    parts = made.extensions["dermloop"]
    parts.store.client.close()
    parts.close()


Asked = list[tuple[str, str]]


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Every action with its resource that goes to AWS inside the block."""
    asked: Asked = []
    plain = botocore.client.BaseClient._make_api_call

    def call(client: Any, operation: str, given: dict[str, Any]) -> Any:
        asked.extend(actions(client.meta.service_model.service_name, operation, given))
        return plain(client, operation, given)

    with monkeypatch.context() as patch:
        patch.setattr(botocore.client.BaseClient, "_make_api_call", call)
        yield asked


def actions(service: str, operation: str, given: dict[str, Any]) -> Asked:
    """What IAM asks for an operation; the service's own reference says so."""
    if service == "secretsmanager":
        return [
            (
                f"secretsmanager:{operation}",
                f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{given['SecretId']}-AbCdEf",
            )
        ]
    place = f"arn:aws:s3:::{given['Bucket']}"
    item = f"{place}/{given.get('Key', '')}"
    table = {
        "GetObject": [("s3:GetObject", item), ("s3:ListBucket", place)],
        "HeadObject": [("s3:GetObject", item), ("s3:ListBucket", place)],
        "PutObject": [("s3:PutObject", item)],
        "CopyObject": [(f"s3:{verb}Object{what}", item) for verb in ("Get", "Put") for what in ("", "Tagging")],
    }
    return table[operation]


def role_name(aws: Aws, role: str) -> str:
    names = [str(row["RoleName"]) for row in aws.client("iam").list_roles()["Roles"]]
    return next(name for name in names if name.startswith(f"dermloop-{role}-"))


def allowed(aws: Aws, role: str) -> list[tuple[str, str]]:
    """Patterns of action and resource that a deployed role allows."""
    name, iam = role_name(aws, role), aws.client("iam")
    documents = [
        iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    pairs = []
    for statement in (statement for document in documents for statement in document["Statement"]):
        for action in listed(statement["Action"]):
            pairs += [(action, resource) for resource in listed(statement["Resource"])]
    return pairs


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def refused(asked: Asked, patterns: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (action, resource)
        for action, resource in asked
        if not any(fnmatch.fnmatchcase(action, a) and fnmatch.fnmatchcase(resource, r) for a, r in patterns)
    ]


BY_THE_SERVICE = {
    "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "logs:CreateLogStream", "logs:PutLogEvents",
}  # fmt: skip
"""What Lambda itself does in a function's name."""


def test_the_reading_function_may_do_what_it_does_and_no_more(
    aws: Aws, serving: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = created("incoming/a.png")
    records = [
        {"eventSource": "aws:sqs", "messageId": "1", "body": text} for text in (body, created("incoming/gone.png"))
    ]
    with recorded(monkeypatch) as asked:
        assert lambda_handlers.on_object_created({"Records": records}) == {"batchItemFailures": []}
    patterns = allowed(aws, "ReadRole")
    assert asked and refused(asked, patterns) == []
    assert {action for action, _ in patterns} - {action for action, _ in asked} == BY_THE_SERVICE
    assert refused([("s3:GetObject", f"arn:aws:s3:::{BUCKET}/models/x")], patterns)
    assert refused([("s3:PutObject", "arn:aws:s3:::elsewhere/incoming/a.png")], patterns)


def test_the_asking_function_may_do_what_it_does_and_no_more(
    aws: Aws, serving: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    lambda_handlers.on_object_created(json.loads(created("incoming/a.png")))
    secret = {"role": "reader", "token": "t" * 40}
    aws.client("secretsmanager").create_secret(Name="dermloop/reader-token", SecretString=json.dumps(secret))
    monkeypatch.setenv(lambda_start.SECRET, "dermloop/reader-token")
    monkeypatch.setenv("DERMLOOP_ML_TOKENS", "")
    lambda_start.adopt_token.cache_clear()
    with recorded(monkeypatch) as asked:
        assert status_of("/detect/incoming/a.png") == 200
        assert status_of("/detect/incoming/gone.png") == 404
    assert read_settings().tokens[0].get_secret_value() == f"reader:{'t' * 40}"
    patterns = allowed(aws, "AskRole")
    assert refused(asked, patterns) == []
    assert {action for action, _ in patterns} - {action for action, _ in asked} == {
        "logs:CreateLogStream", "logs:PutLogEvents",
    }  # fmt: skip
    assert refused([("s3:GetObject", f"arn:aws:s3:::{BUCKET}/incoming/a.png")], patterns)


def test_the_serving_container_may_read_what_it_reads_and_write_backfills_only(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(tmp_path)
    app = create_endpoint(read_settings(home=tmp_path, allowed_buckets=BUCKET))
    parts = app.extensions["dermloop"]
    parts.host.current()
    aws.client("s3").put_object(Bucket=BUCKET, Key="archive/a.png", Body=encoded(pixels()))
    asked_for = {"s3": f"s3://{BUCKET}/archive/a.png"}
    with recorded(monkeypatch) as asked:
        assert app.test_client().post("/invocations", json=asked_for).status_code == 200
    parts.source._objects.client.close()
    parts.close()
    patterns = allowed(aws, "ServingRole")
    assert asked and refused(asked, patterns) == []
    assert refused([("s3:PutObject", f"arn:aws:s3:::{BUCKET}/archive/a.png")], patterns)


def status_of(path: str) -> int:
    event = {"httpMethod": "GET", "path": path, "headers": {"host": "localhost"}}
    answer = lambda_start.on_request(event)
    assert base64.b64decode(answer["body"])
    return int(answer["statusCode"])


def test_the_role_alone_is_enough_where_permissions_are_enforced(
    aws: Aws, serving: Flask, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/{role_name(aws, 'ReadRole')}"
    own = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="function")["Credentials"]
    serving.extensions["dermloop"].store.client.close()
    serving.extensions["dermloop"].store._client = None
    for name, key in (("ACCESS_KEY_ID", "AccessKeyId"), ("SECRET_ACCESS_KEY", "SecretAccessKey")):
        monkeypatch.setenv(f"AWS_{name}", own[key])
    monkeypatch.setenv("AWS_SESSION_TOKEN", own["SessionToken"])
    requests.post(f"{server}/moto-api/reset-auth", data="0", timeout=10)
    try:
        assert lambda_handlers.on_object_created(json.loads(created("incoming/a.png"))) == {"batchItemFailures": []}
        forget_clients()
        with pytest.raises(Exception, match="AccessDenied"):
            aws.client("s3").get_object(Bucket=BUCKET, Key="models/champion.json")
    finally:
        requests.post(f"{server}/moto-api/reset-auth", data="inf", timeout=10)
