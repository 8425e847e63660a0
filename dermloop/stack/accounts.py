"""People in Label Studio Community: invited with the organisation's link, as its own sign-up page does it."""

from __future__ import annotations

from dataclasses import replace

import requests

from dermloop.errors import AccountError
from dermloop.stack.secrets import Login

_TIMEOUT = 30


def ensure_account(url: str, admin: Login, login: Login) -> Login:
    """The login with the person's id and API token in the Label Studio at `url`; signs them up where unknown.

    Raises AccountError where Label Studio neither knows the password nor takes the sign-up.
    """
    if login.token and (known := _whoami(url, login.token)) is not None:
        return replace(login, user_id=known)
    with requests.Session() as session:
        if not _log_in(session, url, login):
            _sign_up(session, url, admin, login)
        token = str(_json(session.get(f"{url}/api/current-user/token", timeout=_TIMEOUT), login)["token"])
    user_id = _whoami(url, token)
    if user_id is None:
        raise AccountError(login.email, "token refused", "legacy API tokens on", "Switch them on in Label Studio.")
    return replace(_named(url, login, token, user_id), token=token, user_id=user_id)


def account_of(url: str, login: Login) -> Login:
    """The login with the id that Label Studio gave to its token; raises AccountError where it knows no such token."""
    user_id = _whoami(url, login.token)
    if user_id is None:
        cure = "The secrets file and Label Studio's data must come from the same home folder."
        raise AccountError(login.email, "unknown token", "the token in secrets.toml", cure)
    return replace(login, user_id=user_id)


def account_ids(url: str, admin: Login) -> dict[str, int]:
    """The id of everybody whom Label Studio knows, by e-mail address in lower case; raises AccountError."""
    answer = requests.get(f"{url}/api/users", headers=_headers(admin.token), timeout=_TIMEOUT)
    if not answer.ok:
        raise AccountError(admin.email, f"Label Studio answered {answer.status_code}", "200", "See its log.")
    return {str(row["email"]).lower(): int(row["id"]) for row in answer.json()}


def _whoami(url: str, token: str) -> int | None:
    answer = requests.get(f"{url}/api/current-user/whoami", headers=_headers(token), timeout=_TIMEOUT)
    return int(answer.json()["id"]) if answer.ok else None


def _log_in(session: requests.Session, url: str, login: Login) -> bool:
    page = f"{url}/user/login/"
    return _submit(session, page, {"email": login.email, "password": login.password})


def _sign_up(session: requests.Session, url: str, admin: Login, login: Login) -> None:
    answer = requests.get(f"{url}/api/invite", headers=_headers(admin.token), timeout=_TIMEOUT)
    page = f"{url}/user/signup/?token={_json(answer, admin)['token']}"
    fields = {"email": login.email, "password": login.password, "allow_newsletters": "false"}
    if not _submit(session, page, fields):
        cure = "Was the password changed there? Put the new one into secrets.toml."
        raise AccountError(login.email, "neither login nor sign-up taken", "the stored password", cure)


def _submit(session: requests.Session, page: str, fields: dict[str, str]) -> bool:
    """Whether the form was taken; Django answers a taken form by sending the browser elsewhere."""
    session.get(page, timeout=_TIMEOUT)
    form = {**fields, "csrfmiddlewaretoken": session.cookies.get("csrftoken", "")}
    answer = session.post(page, data=form, headers={"Referer": page}, timeout=_TIMEOUT, allow_redirects=False)
    return answer.status_code == 302


def _named(url: str, login: Login, token: str, user_id: int) -> Login:
    names = {"first_name": login.first_name, "last_name": login.last_name}
    answer = requests.patch(f"{url}/api/users/{user_id}", json=names, headers=_headers(token), timeout=_TIMEOUT)
    _json(answer, login)
    return login


def _json(answer: requests.Response, login: Login) -> dict[str, object]:
    if not answer.ok:
        raise AccountError(login.email, f"Label Studio answered {answer.status_code}", "200", "See label-studio.log.")
    return dict(answer.json())


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Token {token}"}
