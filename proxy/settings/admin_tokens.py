"""The tokens of the admin listener: what is wrong with those that the environment holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from proxy.settings.mistakes import ENVIRONMENT
from proxy.settings.sections import AdminTokenSettings
from proxy.web.admin.access import TOKEN_LENGTH_LEAST

ADMIN_TOKEN_VARIABLE = "LIGHTMETER_ADMIN_TOKEN"  # noqa: S105 - the variable's name, not the token
ADMIN_TOKEN_NAME = "admin"  # noqa: S105 - what that token is called


def check_admin_tokens(tokens: Sequence[AdminTokenSettings], environment: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the text of the first token, and with ``tokens``, whose texts the environment holds."""
    texts = {ADMIN_TOKEN_NAME: environment.get(ADMIN_TOKEN_VARIABLE, "").strip()}
    if 0 < len(texts[ADMIN_TOKEN_NAME]) < TOKEN_LENGTH_LEAST:
        yield (
            f"{ENVIRONMENT}: {ADMIN_TOKEN_VARIABLE}: should hold at least {TOKEN_LENGTH_LEAST} characters; "
            "'openssl rand -hex 32' makes such a token, and where it is unset one is made"
        )
    for index, token in enumerate(tokens):
        text, place = environment.get(token.token_env, "").strip(), f"admin.tokens[{index}]"
        if token.name in texts:
            yield f"{place}.name: there is another token {token.name!r}"
        elif not text:
            yield (
                f"{place}.token_env: the environment has no {token.token_env}: "
                f"export it with the text of token {token.name!r}"
            )
        elif len(text) < TOKEN_LENGTH_LEAST or not (text.isascii() and text.isprintable()) or " " in text:
            yield (
                f"{place}.token_env: {token.token_env} should hold at least {TOKEN_LENGTH_LEAST} printable ASCII "
                "characters and no blank; 'openssl rand -hex 32' makes such a token"
            )
        elif text in texts.values():
            yield f"{place}.token_env: {token.token_env} holds the text of another token: give each its own"
        texts.setdefault(token.name, text)
