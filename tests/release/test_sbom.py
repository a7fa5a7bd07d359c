from __future__ import annotations

import json

from tests.release.sbom import mistakes_of

DOCUMENT = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "components": [{"type": "library", "name": "aiohttp", "version": "3.14.5", "purl": "pkg:pypi/aiohttp@3.14.5"}],
}


def test_a_document_is_checked_against_the_schema_that_the_library_ships() -> None:
    assert mistakes_of(json.dumps(DOCUMENT)) is None
    assert "colour" in str(mistakes_of(json.dumps({**DOCUMENT, "colour": "red"})))
    assert mistakes_of(json.dumps({**DOCUMENT, "components": [{"name": "of no type"}]})) is not None
