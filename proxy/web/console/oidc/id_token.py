"""Checks ID tokens, by joserfc: the only module that knows that library.

https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation, https://www.rfc-editor.org/rfc/rfc8725
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from proxy.web.console.oidc.refusal import SignInRefused, shown

KEY_TYPES: Mapping[str, type[ECKey] | type[OKPKey] | type[RSAKey]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSAKey),
    **dict.fromkeys(("ES256", "ES384", "ES512"), ECKey),
    "Ed25519": OKPKey,
}
"""Algorithms that are taken, and the kind of key that each needs. None of them signs with what is public."""

SKEW_S = 60
"""How far the provider's clock may be from this one's."""

RSA_BITS_LEAST = 2_048
MODULUS_CHARACTERS_LEAST = 342
"""What so many bits take in base64url."""

KEYS_LIMIT = 100
TOKEN_CHARACTERS_LIMIT = 2**16


class UnknownKey(SignInRefused):
    """None of the provider's keys has signed it; there may be newer ones."""


class IdTokenChecker:
    """Who may have issued a token, and for whom."""

    def __init__(self, issuer: str, client_id: str) -> None:
        """Take what ``issuer`` has issued for ``client_id``."""
        self._issuer = issuer
        self._client_id = client_id
        # Headers that nobody knows are left alone, as RFC 7515 says; those in `crit` are not.
        self._registry = jws.JWSRegistry(algorithms=list(KEY_TYPES), strict_check_header=False)
        self._registry.max_header_length = 8_192

    def check(self, token: str, keys: Sequence[Mapping[str, Any]], *, nonce: str, now_s: float) -> dict[str, Any]:
        """The claims of ``token``, which one of ``keys`` has signed. Raises SignInRefused, and UnknownKey of it."""
        claims = self._verified(token, keys)
        checks = jwt.JWTClaimsRegistry(
            now=int(now_s),
            leeway=SKEW_S,
            iss={"essential": True, "value": self._issuer},
            sub={"essential": True},
            aud={"essential": True, "value": self._client_id},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            checks.validate(claims)
        except ExpiredTokenError:
            raise _wrong("has expired: compare the clocks of both machines") from None
        except MissingClaimError as error:
            raise _wrong(f"has no {shown(error.description or error.error)}") from None
        except InvalidClaimError as error:
            raise self._wrong_claim(error, claims) from None
        self._check_party(claims)
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise _wrong("was not made for this sign-in: its nonce is another")
        return claims

    def _verified(self, token: str, keys: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if len(token) > TOKEN_CHARACTERS_LIMIT:
            raise _wrong(f"has more than {TOKEN_CHARACTERS_LIMIT} characters")
        try:
            header = jws.extract_compact(token.encode(), registry=self._registry).headers()
        except (JoseError, ValueError) as error:
            raise _wrong(f"cannot be read ({type(error).__name__})") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in KEY_TYPES:
            raise _wrong(f"is signed by {shown(algorithm)}: one of {', '.join(KEY_TYPES)} is needed")
        for key in _usable(keys[:KEYS_LIMIT], algorithm, header.get("kid")):
            try:
                return jwt.decode(token, key, registry=self._registry).claims
            except (JoseError, ValueError):
                continue
        raise UnknownKey("The ID token of the OpenID provider is not signed with a key that the provider publishes.")

    def _wrong_claim(self, error: InvalidClaimError, claims: Mapping[str, Any]) -> SignInRefused:
        if claims.get("iss") != self._issuer:
            return _wrong(f"was issued by {shown(claims.get('iss'))}, not by {self._issuer}")
        audience = claims.get("aud")
        if self._client_id not in (audience if isinstance(audience, list) else [audience]):
            return _wrong(f"is for {shown(audience)}, not for the client {self._client_id}")
        return _wrong(f"does not hold ({shown(error.description or error.error)}): compare the clocks of both machines")

    def _check_party(self, claims: Mapping[str, Any]) -> None:
        audience, party = claims["aud"], claims.get("azp")
        is_needed = isinstance(audience, list) and len(audience) > 1
        if (party is None and is_needed) or party not in (None, self._client_id):
            raise _wrong(f"was given to {shown(party)} (azp), not to the client {self._client_id}")


def _usable(keys: Sequence[Mapping[str, Any]], algorithm: str, key_id: object) -> Iterator[Key]:
    """Those of ``keys`` that are for this algorithm, and have this id where one is given."""
    kind = KEY_TYPES[algorithm]
    for given in keys:
        if given.get("kty") != kind.key_type or given.get("use", "sig") != "sig":
            continue
        if given.get("alg", algorithm) != algorithm or (key_id is not None and given.get("kid") != key_id):
            continue
        if kind is RSAKey and len(str(given.get("n"))) < MODULUS_CHARACTERS_LEAST:
            continue
        try:
            key = kind.import_key(dict(given))
            if isinstance(key, RSAKey) and key.public_key.key_size < RSA_BITS_LEAST:
                continue
        except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
            # One that nobody can use takes nothing from the others.
            continue
        yield key


def _wrong(what: str) -> SignInRefused:
    return SignInRefused(f"The ID token of the OpenID provider {what}.")
