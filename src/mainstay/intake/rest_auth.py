"""How a REST API knows who asks: a bearer token, a key, or OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote_plus

import msgspec
from msgspec import Meta, Struct

from mainstay.errors import NOT_READ, Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.sources import ApiKey, ClientCredentials, RestAuth, Secret
    from mainstay.intake.rest_client import Answer, HttpClient

UNSAID_SECONDS: Final = 3_600.0  # how long a token is taken to hold where its server does not say
EARLY_SECONDS: Final = 60.0  # before its end a token is renewed; of a short-lived one a tenth
_KNOWN_SECRETS: Final = 64  # kept to be hidden in texts, newest last


class Credentials(Struct, frozen=True):
    """What goes with a call."""

    headers: dict[str, str] = {}
    parameters: dict[str, str] = {}  # of the query


class Authenticator:
    """The credentials of one source. Secrets are read at each call, so that a changed one is taken at once."""

    def __init__(self, auth: RestAuth | None, client: HttpClient) -> None:
        self._client = client
        self._bearer: Secret | None = None
        self._api_key: ApiKey | None = None
        self._token: _TokenSource | None = None
        self.secrets: list[str] = []  # that were read or given, to be hidden in every text
        if auth is None:
            return
        if sum(each is not None for each in (auth.bearer, auth.api_key, auth.oauth2)) != 1:
            raise Misuse("auth: expected exactly one of bearer, api_key and oauth2")
        self._bearer, self._api_key = auth.bearer, auth.api_key
        self._token = None if auth.oauth2 is None else _TokenSource(auth.oauth2, client, self._read, self._hide)

    @property
    def hidden_parameter(self) -> str | None:
        """The parameter of the query that holds a secret, where one does."""
        return self._api_key.name if self._api_key is not None and self._api_key.place == "query" else None

    def credentials(self) -> Credentials:
        """What goes with the next call. Raises Unavailable when there is no secret, or no token is given."""
        if self._bearer is not None:
            return Credentials(headers={"authorization": f"Bearer {self._read(self._bearer)}"})
        if self._token is not None:
            return Credentials(headers={"authorization": f"Bearer {self._token.get()}"})
        if self._api_key is not None:
            given = {self._api_key.name: self._read(self._api_key.key)}
            return Credentials(headers=given) if self._api_key.place == "header" else Credentials(parameters=given)
        return Credentials()

    def renew(self) -> bool:
        """After a 401: whether another call may go better, because it will carry another token."""
        if self._token is None:
            return False
        self._token.forget()
        return True

    def _read(self, secret: Secret) -> str:
        value = read_secret(secret)
        if not value.isascii():
            place = secret.variable or secret.file
            raise Unavailable("secret_missing", f"{place}: expected ASCII, as HTTP headers take nothing else")
        return self._hide(value)

    def _hide(self, value: str) -> str:
        if value not in self.secrets:
            self.secrets.append(value)
            del self.secrets[:-_KNOWN_SECRETS]
        return value


class _Given(Struct):
    """RFC 6749, section 5.1."""

    access_token: Annotated[str, Meta(min_length=1, max_length=16_384)]
    token_type: str
    expires_in: float | str | None = None


_decode_given = msgspec.json.Decoder(_Given).decode


class _TokenSource:
    """A token that is kept until shortly before its end."""

    def __init__(
        self,
        declared: ClientCredentials,
        client: HttpClient,
        read: Callable[[Secret], str],
        hide: Callable[[str], str],
    ) -> None:
        self._declared = declared
        self._client = client
        self._read = read
        self._hide = hide
        self._token = ""
        self._ends_at = 0.0  # by the monotonic clock
        self._in_body = False  # how the server wants the client's own credentials

    def get(self) -> str:
        if not self._token or time.monotonic() >= self._ends_at:
            self._renew()
        return self._token

    def forget(self) -> None:
        """Ask for another token next time."""
        self._token = ""

    def _renew(self) -> None:
        answer = self._ask()
        if answer.status in {400, 401} and not self._in_body:
            self._in_body = True  # servers must take a Basic header, section 2.3.1, and some do not
            answer = self._ask()
            self._in_body = answer.status == 200
        where = self._declared.token_url
        if answer.status == 429 or answer.status >= 500:
            code = "rate_limited" if answer.status == 429 else "source_down"
            raise Unavailable(code, f"{where} gave no token: status {answer.status}")
        if answer.status != 200:
            raise Unavailable("not_authorized", f"{where} gave no token: status {answer.status}")
        try:
            given = _decode_given(answer.body)
            seconds = UNSAID_SECONDS if given.expires_in is None else float(given.expires_in)
        except (*NOT_READ, ValueError):
            raise Unavailable("not_json", f"{where}: expected a token (RFC 6749, section 5.1)") from None
        if given.token_type.lower() != "bearer" or not given.access_token.isascii():
            raise Unavailable("not_authorized", f"{where}: expected a token of type Bearer")
        self._token = self._hide(given.access_token)
        self._ends_at = time.monotonic() + seconds - min(EARLY_SECONDS, seconds / 10)

    def _ask(self) -> Answer:
        client_id = self._read(self._declared.client_id)
        client_secret = self._read(self._declared.client_secret)
        form, headers = {"grant_type": "client_credentials"}, {}
        if self._declared.scope is not None:
            form["scope"] = self._declared.scope
        if self._in_body:
            form |= {"client_id": client_id, "client_secret": client_secret}
        else:
            pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
            basic = self._hide(base64.b64encode(pair.encode()).decode())
            headers = {"authorization": f"Basic {basic}"}
        return self._client.post_form(self._declared.token_url, form, headers)
