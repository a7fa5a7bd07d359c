"""Signing in to the console by an OpenID provider: the authorization code flow with PKCE.

``sign_in`` sends a browser there and takes it back, ``issuer`` talks with the provider by ``fetching``, ``id_token``
checks what it says, ``rules`` tell who that is here, and ``refusal`` is the page of whom none of them lets in.
"""
