from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.console.browsing import Visitor, chromium
from tests.support.processes import python_module, running
from tests.support.requirements import program

CHARGED = r'lightmeter_quota_units_total\{model="sample/image-1",state="charged"\} 7500\.0'


def test_the_demo_spends_prints_and_serves_what_it_says(tmp_path: Path) -> None:
    curl = program("curl", "curl")
    folder = tmp_path / "demo"
    for _ in range(2):
        with running(
            python_module("proxy.cli", "demo", "--port", "0", "--folder", str(folder)), tmp_path / "log"
        ) as demo:
            demo.wait_for_output(r"The requests are logged in .*\n")
            printed = demo.output
            assert "it cost 7,500 quota units" in printed
            assert "the key has 992,500 of 1,000,000 left" in printed
            assert re.search(CHARGED, printed)
            assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")

            generations = re.search(r"  (curl \S+/v1/images/generations (?:.*\\\n)+.*)\n", printed)
            assert generations is not None
            pasted = subprocess.run(
                ["bash", "-c", generations[1].replace("curl ", f"{curl} --silent --fail ", 1)],
                check=True,
                capture_output=True,
                timeout=60,
            )
            assert pasted.stdout.count(b'"url"') == 2

            lines = re.findall(r"^  ((?:from|client|images|print).*)$", printed, flags=re.MULTILINE)
            pasted = subprocess.run(
                [sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, timeout=60
            )
            assert pasted.stdout.startswith(b"http://127.0.0.1:")

            key = re.search(r"Bearer (lm_\w+)", printed)
            assert key is not None
            own = re.search(r"  (curl \S+/v1/key .*)\n", printed)
            assert own is not None
            shown = subprocess.run(
                ["bash", "-c", own[1]], check=True, capture_output=True, text=True, timeout=60, env=dict(os.environ)
            )
            # Three requests: one image, then two, then two.
            assert '"posted":37500' in shown.stdout

            managed = re.search(r"  (export LIGHTMETER_ADMIN_URL=.*\n  .* keys list\n  .* ledger list)\n", printed)
            assert managed is not None
            # In a terminal of its own: elsewhere, and with nothing on its PATH but what a system has.
            listed = subprocess.run(
                ["bash", "-ec", managed[1]],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
            )
            assert "made by lightmeter demo" in listed.stdout
            assert listed.stdout.count("sample/image-1") >= 3

            # And its picture changed, by what the manual has for it.
            edits = generations[1].partition("/generations")[0].removeprefix("curl ") + "/edits"
            form = (f"image=@{folder}/picture.png", "model=sample/image-1", "prompt=a hat on it", "stream=true")
            flags = [flag for field in form for flag in ("-F", field)]
            edited = subprocess.run(
                [curl, "--silent", "--fail", edits, "-H", f"Authorization: Bearer {key[1]}", *flags],
                check=True,
                capture_output=True,
                timeout=60,
            )
            assert edited.stdout.startswith(b"event: image_edit.completed\n")
            assert demo.stop() == 0


def test_who_follows_the_printed_link_sees_the_demos_image_in_the_console(tmp_path: Path) -> None:
    command = python_module("proxy.cli", "demo", "--port", "0", "--folder", str(tmp_path / "demo"))
    with running(command, tmp_path / "log") as demo:
        demo.wait_for_output(r"The requests are logged in .*\n")
        (address,) = re.findall(r"http://\S+/console/#code=\S+", demo.output)
        with chromium() as browser:
            person = Visitor(browser, address.partition("/console/")[0])
            page = person.page
            page.goto(address)
            expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
            picture = page.get_by_role("img", name="The image that the demo asked for")
            expect(picture).to_be_visible()
            assert picture.evaluate("async image => (await image.decode(), image.naturalWidth)") >= 512
            expect(page.get_by_text("7,500 units")).to_be_visible()
            person.check_everywhere()
            page.get_by_text("Ledger entry").locator("xpath=following-sibling::dd[1]").get_by_role("link").click()
            expect(page.get_by_text("sample/image-1")).to_be_visible()
            assert person.wrong == []
            person.context.close()
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{person.base}/console/demo/picture", timeout=10)  # noqa: S310 - the demo's own
        assert demo.stop() == 0


def test_the_demo_tells_scripts_what_happened(tmp_path: Path) -> None:
    command = python_module("proxy.cli", "demo", "--port", "0", "--folder", str(tmp_path / "demo"), "--once", "--json")
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["quota_units"]["posted"] == 7_500
    assert told["key"].startswith("lm_demo_")
    assert Path(told["picture"]).read_bytes().startswith(b"\x89PNG")
