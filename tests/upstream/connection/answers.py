"""Answers, and heads of them, as servers and middlemen have been seen to write them; what is to be made of each."""

from __future__ import annotations

from typing import NamedTuple

OK = b"HTTP/1.1 200 OK\r\n"
END = b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 2\r\n"
CLOSE = "until the connection ends"
CHUNKS = "in chunks"


class Read(NamedTuple):
    """How the body is framed, and whether another answer may follow."""

    body: str | int
    may_go_on: bool = True


GOOD: dict[str, tuple[bytes, Read]] = {
    "a length": (OK + LENGTH + END, Read(2)),
    "no headers": (OK + END, Read(CLOSE)),
    "no reason": (b"HTTP/1.1 200\r\n" + LENGTH + END, Read(2)),
    "an empty reason": (b"HTTP/1.1 200 \r\n" + LENGTH + END, Read(2)),
    "a reason with any bytes": (b"HTTP/1.1 200 \xc3\xa4 \xff\t!\r\n" + LENGTH + END, Read(2)),
    "a status of its own": (b"HTTP/1.1 999 Odd\r\n" + LENGTH + END, Read(2)),
    "chunks": (OK + CHUNKED + END, Read(CHUNKS)),
    "Chunked": (OK + b"transfer-ENCODING: Chunked\r\n" + END, Read(CHUNKS)),
    "gzip and chunks": (OK + b"Transfer-Encoding: gzip, chunked\r\n" + END, Read(CHUNKS, False)),
    "gzip, and chunks in a header of their own": (
        OK + b"Transfer-Encoding: gzip\r\n" + CHUNKED + END, Read(CHUNKS, False)),
    "gzip without chunks": (OK + b"Transfer-Encoding: gzip\r\n" + END, Read(CLOSE, False)),
    "chunks said twice": (OK + CHUNKED + CHUNKED + END, Read(CHUNKS, False)),
    "identity": (OK + b"Transfer-Encoding: identity\r\n" + LENGTH + END, Read(2, False)),
    "a length and chunks": (OK + LENGTH + CHUNKED + END, Read(CHUNKS, False)),
    "chunks and a length": (OK + CHUNKED + LENGTH + END, Read(CHUNKS, False)),
    "a length said twice": (OK + LENGTH + b"content-length:2\r\n" + END, Read(2, False)),
    "a length said twice in one": (OK + b"Content-Length: 2 , 2\r\n" + END, Read(2, False)),
    "a length of nothing": (OK + b"Content-Length: 0\r\n" + END, Read(0)),
    "a length with zeros before it": (OK + b"Content-Length: 0002\r\n" + END, Read(2)),
    "a length with blanks around it": (OK + b"Content-Length: \t 2 \t\r\n" + END, Read(2)),
    "no content": (b"HTTP/1.1 204 No Content\r\n" + END, Read(CLOSE)),
    "no content with a length": (b"HTTP/1.1 204 No Content\r\n" + LENGTH + END, Read(2, False)),
    "no content with a length of nothing": (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n" + END, Read(0)),
    "no content in chunks": (b"HTTP/1.1 204 No Content\r\n" + CHUNKED + END, Read(CHUNKS, False)),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + END, Read(2)),
    "the end of the connection": (OK + LENGTH + b"Connection: close\r\n" + END, Read(2, False)),
    "the end of the connection among others": (OK + LENGTH + b"Connection: x, Close\r\n" + END, Read(2, False)),
    "the end of the connection beside its opposite": (
        OK + LENGTH + b"Connection: keep-alive\r\nConnection: close\r\n" + END, Read(2, False)),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + LENGTH + END, Read(2, False)),
    "HTTP/1.0 that goes on": (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n" + LENGTH + END, Read(2)),
    "HTTP/1.0 in chunks": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + CHUNKED + END, Read(CHUNKS, False)),
    "a blank before a colon": (OK + b"X-A\t : b\r\nContent-Length : 2\r\n" + END, Read(2, False)),
    "a header on two lines": (OK + b"X: a\r\n  b\r\n" + LENGTH + END, Read(2, False)),
    "lines without a CR": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n", Read(2, False)),
    "some lines without a CR": (OK + b"X: y\n" + LENGTH + END, Read(2, False)),
    "a header of 130 kB": (OK + LENGTH + b"X: " + b"y" * 130_000 + END + END, Read(2)),
    "250 headers": (OK + LENGTH + b"X: y\r\n" * 249 + END, Read(2)),
    "an empty header": (OK + LENGTH + b"X:\r\n" + END, Read(2)),
    "a header of blanks": (OK + LENGTH + b"X: \t \r\n" + END, Read(2)),
    "bytes beyond ASCII": (OK + LENGTH + b"X: \xc3\xa4\xff\r\n" + END, Read(2)),
    "a colon in a header": (OK + LENGTH + b"X: a : b:\r\n" + END, Read(2)),
    "any name": (OK + LENGTH + b"!#$%&'*+-.^_`|~09azAZ: y\r\n" + END, Read(2)),
    "an offer of another protocol": (OK + LENGTH + b"Upgrade: h2c\r\n" + END, Read(2)),
}  # fmt: skip

BAD: dict[str, bytes] = {
    "two lengths": OK + LENGTH + b"Content-Length: 3\r\n" + END,
    "two lengths in one": OK + b"Content-Length: 2, 3\r\n" + END,
    "two spellings of a length": OK + LENGTH + b"Content-Length: 02\r\n" + END,
    "a length and nothing": OK + b"Content-Length: 2,\r\n" + END,
    "an empty length": OK + b"Content-Length:\r\n" + END,
    "a length with a sign": OK + b"Content-Length: +2\r\n" + END,
    "a length below zero": OK + b"Content-Length: -2\r\n" + END,
    "a length in hexadecimal": OK + b"Content-Length: 0x2\r\n" + END,
    "a length with a bar": OK + b"Content-Length: 1_0\r\n" + END,
    "a length with a blank in it": OK + b"Content-Length: 1 0\r\n" + END,
    "a length in other digits": OK + "Content-Length: ٢\r\n".encode() + END,
    "a length without an end": OK + b"Content-Length: " + b"9" * 40 + END + END,
    "chunks within a coding": OK + b"Transfer-Encoding: chunked, gzip\r\n" + END,
    "a NUL in a header": OK + LENGTH + b"X: a\0b\r\n" + END,
    "a NUL in a name": OK + LENGTH + b"X\0: b\r\n" + END,
    "a CR in a header": OK + LENGTH + b"X: a\rb\r\n" + END,
    "a CR in the status line": b"HTTP/1.1 200 O\rK\r\n" + LENGTH + END,
    "a line without a colon": OK + LENGTH + b"X\r\n" + END,
    "a name that is none": OK + LENGTH + b"X Y: z\r\n" + END,
    "no name": OK + LENGTH + b": z\r\n" + END,
    "a name beyond ASCII": OK + LENGTH + "Ä: z\r\n".encode() + END,
    "1,000 headers": OK + b"X: y\r\n" * 1_000 + END,
    "a short status": b"HTTP/1.1 20 OK\r\n" + LENGTH + END,
    "a long status": b"HTTP/1.1 2000 OK\r\n" + LENGTH + END,
    "a status that is none": b"HTTP/1.1 2x0 OK\r\n" + LENGTH + END,
    "a status below 100": b"HTTP/1.1 099 OK\r\n" + LENGTH + END,
    "no status": b"HTTP/1.1\r\n" + LENGTH + END,
    "a reason that is stuck to the status": b"HTTP/1.1 200OK\r\n" + LENGTH + END,
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n" + LENGTH + END,
    "HTTP/2": b"HTTP/2 200 OK\r\n" + LENGTH + END,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + LENGTH + END,
    "HTTP/11": b"HTTP/11 200 OK\r\n" + LENGTH + END,
    "small letters": b"http/1.1 200 OK\r\n" + LENGTH + END,
    "another protocol": b"ICY 200 OK\r\n" + LENGTH + END,
    "a request": b"POST / HTTP/1.1\r\n" + LENGTH + END,
}


# --- Whole answers ----------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """An answer's status and body; whether it ends only with its connection, and whether that may be used again."""

    status: int
    body: bytes
    is_kept: bool = True
    ends_with_connection: bool = False


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY_IN_CHUNKS = b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"

WHOLE: dict[str, tuple[bytes, Told]] = {
    "a length": (OK + LENGTH + END + b"{}", Told(200, b"{}")),
    "a length of nothing": (OK + b"Content-Length: 0\r\n" + END, Told(200, b"")),
    "chunks": (OK + CHUNKED + END + BODY_IN_CHUNKS, Told(200, b"{}")),
    "no chunks": (OK + CHUNKED + END + b"0\r\n\r\n", Told(200, b"")),
    "trailers": (OK + CHUNKED + END + b"2\r\n{}\r\n0\r\nX: y\r\n\r\n", Told(200, b"{}")),
    "bad trailers": (OK + CHUNKED + END + b"2\r\n{}\r\n0\r\nX Y\r\n\r\n", Told(200, b"{}", is_kept=False)),
    "until the end": (OK + END + b"{}", Told(200, b"{}", is_kept=False, ends_with_connection=True)),
    "nothing until the end": (OK + END, Told(200, b"", is_kept=False, ends_with_connection=True)),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}", Told(200, b"{}", is_kept=False, ends_with_connection=True)),
    "HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\n" + LENGTH + END + b"{}", Told(200, b"{}", is_kept=False)),
    "HTTP/1.0 that goes on": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + END + b"{}", Told(200, b"{}")),
    "the end of the connection": (OK + LENGTH + b"Connection: close\r\n" + END + b"{}", Told(200, b"{}", False)),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", Told(204, b"")),
    "no content with a length": (b"HTTP/1.1 204 No Content\r\n" + LENGTH + END, Told(204, b"", is_kept=False)),
    "no content in chunks": (b"HTTP/1.1 204 No Content\r\n" + CHUNKED + END, Told(204, b"", is_kept=False)),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + END, Told(304, b"")),
    "hints before": (HINTS + OK + LENGTH + END + b"{}", Told(200, b"{}")),
    "many before": (CONTINUE + HINTS * 20 + OK + CHUNKED + END + BODY_IN_CHUNKS, Told(200, b"{}")),
    "a refusal": (b"HTTP/1.1 400 Bad Request\r\n" + LENGTH + END + b"{}", Told(400, b"{}")),
    "lines without a CR": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", Told(200, b"{}", is_kept=False)),
    "empty lines before it": (b"\r\n\n" + OK + LENGTH + END + b"{}", Told(200, b"{}", is_kept=False)),
    "two lengths that are one": (OK + LENGTH * 2 + END + b"{}", Told(200, b"{}", is_kept=False)),
    "a length and chunks": (OK + LENGTH + CHUNKED + END + BODY_IN_CHUNKS, Told(200, b"{}", is_kept=False)),
}  # fmt: skip

NO_ANSWER: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x0a",
    "a page": b"<html>\r\n\r\n",
    "zeros": b"\0" * 50,
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "two lengths": OK + LENGTH + b"Content-Length: 3\r\n" + END + b"{}",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "hints without an end": HINTS * 100,
    "a head without an end": OK + b"X: y\r\n" * 60_000,
    "a NUL": OK + LENGTH + b"X: \0\r\n\r\n{}",
}

BROKEN_OFF: dict[str, tuple[bytes, bytes]] = {
    "before the head": (b"", b""),
    "in the status line": (b"HTTP/1", b""),
    "in the head": (OK + b"Content-Le", b""),
    "before the empty line": (OK + LENGTH, b""),
    "after hints": (HINTS, b""),
    "before the body": (OK + LENGTH + END, b""),
    "in the body": (OK + LENGTH + END + b"{", b"{"),
    "before the chunks": (OK + CHUNKED + END, b""),
    "in a chunk": (OK + CHUNKED + END + b"5\r\nabc", b"abc"),
    "between chunks": (OK + CHUNKED + END + b"3\r\nabc\r\n", b"abc"),
    "in a size": (OK + CHUNKED + END + b"3\r\nabc\r\n1", b"abc"),
    "in the last size": (OK + CHUNKED + END + b"3\r\nabc\r\n0", b"abc"),
}
