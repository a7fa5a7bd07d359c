from __future__ import annotations

import orjson

from proxy.sample_provider.dialects.documents import IMAGE, event, filled


def test_images_are_put_in_place_and_not_copied() -> None:
    image = b"QUJD" * 1000
    segments = filled({"a": IMAGE, "b": [f"data:image/png;base64,{IMAGE}AAAB"], "c": "x"}, image)
    assert sum(segment is image for segment in segments) == 2
    text = image.decode()
    assert orjson.loads(b"".join(segments)) == {"a": text, "b": [f"data:image/png;base64,{text}AAAB"], "c": "x"}


def test_an_event_has_one_line_of_data_and_a_name_if_given_one() -> None:
    assert b"".join(event({"a": IMAGE}, b"QUJD")) == b'data: {"a":"QUJD"}\n\n'
    assert b"".join(event({"a": "x\ny"}, name="n")) == b'event: n\ndata: {"a":"x\\ny"}\n\n'
