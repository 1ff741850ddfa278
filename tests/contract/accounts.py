"""Who may ask: users with passwords, and API keys (``internal/proxy/authentication_interceptor.go``, ``httpserver/handler.go``)."""

from __future__ import annotations

import base64
import binascii


class Accounts:
    """Users by name with their passwords, and API keys; with neither, everyone may ask, as with authorizationEnabled off."""

    def __init__(self, passwords: dict[str, str] | None = None, api_keys: set[str] | None = None) -> None:
        self.passwords, self.api_keys = dict(passwords or {}), set(api_keys or ())
        #: What a user may not ask for: names of RPCs, and REST paths below ``/v2/vectordb/``.
        self.forbidden: dict[str, set[str]] = {}

    @property
    def enabled(self) -> bool:
        """Whether requests must say who sends them."""
        return bool(self.passwords or self.api_keys)

    def knows(self, secret: str) -> bool:
        """Return whether ``user:password`` or an API key is right."""
        user, colon, password = secret.partition(":")
        if colon:
            return self.passwords.get(user) == password
        return secret in self.api_keys

    def admits_grpc(self, metadata: str | None) -> bool:
        """Return whether the metadata ``authorization``, the base64 of a secret, is right."""
        return not self.enabled or (metadata is not None and self._decoded_is_known(metadata))

    def admits_rest(self, header: str | None) -> bool:
        """Return whether ``Authorization: Bearer user:password``, ``Bearer <API key>`` or ``Basic …`` is right."""
        if not self.enabled:
            return True
        scheme, _, rest = (header or "").partition(" ")
        if scheme == "Bearer":
            return self.knows(rest)
        return scheme == "Basic" and self._decoded_is_known(rest)

    def denial(self, name: str, encoded: str | None, database: str) -> str:
        """Return the text of the refusal when whoever asks lacks the privilege for a request, an empty string when not.

        :param encoded: the metadata, or the header, ``authorization``
        """
        scheme, _, rest = (encoded or "").rpartition(" ")
        secret = rest if scheme == "Bearer" else self._decoded(rest)
        user = secret.partition(":")[0]
        if name not in self.forbidden.get(user, ()):
            return ""
        # internal/proxy/privilege_interceptor.go
        return f"Privilege{name.rpartition('/')[2].title()}: permission deny to {user} in the `{database}` database"

    def _decoded_is_known(self, encoded: str) -> bool:
        return self.knows(self._decoded(encoded))

    @staticmethod
    def _decoded(encoded: str) -> str:
        try:
            return base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
