"""Pages of the documentation can be read on a phone, without moving them sideways."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pages import NO_BROWSER, browser
from processes import ROOT

# Of a common phone, in pixels of its own.
WIDTH, HEIGHT = 390, 844


@pytest.mark.slow
@pytest.mark.skipif(NO_BROWSER is not None, reason=str(NO_BROWSER))
def test_no_page_is_wider_than_a_phone(tmp_path):
    pytest.importorskip("selenium", reason="needs the extra dashboard")
    pytest.importorskip("myst_nb", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-D", "nb_execution_mode=off"]
    subprocess.run([*command, f"{ROOT}/docs", str(tmp_path)], check=True)
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    wide = {}
    with browser() as driver:
        # A window cannot be as narrow.
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 3, "mobile": True},
        )
        for page in pages:
            driver.get(page.as_uri())
            needs = driver.execute_script("return document.documentElement.scrollWidth")
            if needs > WIDTH:
                wide[page.relative_to(tmp_path).as_posix()] = needs
        assert driver.execute_script("return window.innerWidth") >= WIDTH
    assert not wide
