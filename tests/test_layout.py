"""Folders, files and functions that a reader can keep in mind."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import proxy

FOLDER = Path(proxy.__file__).parent
FILES_MOST, LINES_MOST, FUNCTION_LINES_MOST = 12, 450, 70
CODE = {".py", ".lua", ".js"}


def code_files() -> Iterator[Path]:
    for path in FOLDER.rglob("*"):
        if path.suffix in CODE and path.name not in ("__init__.py", "__main__.py"):
            yield path


def test_no_folder_has_more_than_a_dozen_files_of_code() -> None:
    counts = Counter(path.parent for path in code_files())
    assert {folder: count for folder, count in counts.items() if count > FILES_MOST} == {}


def test_no_file_is_longer_than_a_reader_reads_at_once() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in code_files()}
    assert {path: length for path, length in lengths.items() if length > LINES_MOST} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {}
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES_MOST:
                    long[f"{path.relative_to(FOLDER)}:{node.name}"] = length
    assert long == {}
