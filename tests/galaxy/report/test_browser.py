"""The report page in a browser: nothing overflows and no picture is missing, wide or narrow."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from layerkit.galaxy.report import figures
from layerkit.galaxy.report.page.page import write_report
from layerkit.galaxy.report.page.plates import plate

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MEASURE = """
<script>
const pages = () => [...document.querySelectorAll("iframe")].map((frame) => frame.contentDocument);
addEventListener("load", () => {
  pages().forEach((page) => [...page.images].forEach((picture) => (picture.loading = "eager")));
  setTimeout(() => {
    document.body.textContent = "measured " + JSON.stringify(pages().map((page) => [
      page.documentElement.clientWidth,
      page.documentElement.scrollWidth,
      [...page.images].map((picture) => picture.naturalWidth),
    ]));
  }, 5000);
});
</script>
"""


@pytest.mark.skipif(not BROWSER, reason="needs Chromium")
def test_the_page_fits_a_screen_and_a_phone(rng, tmp_path):
    images = rng.random((40, 12, 12))
    error = rng.lognormal(size=60)
    ids = [f"a/long/path/to/a/galaxy-{k}.fits" for k in range(40)]
    drawn = {
        "samples": figures.samples(images, images, ids=ids),
        "comparison": figures.comparison(error, error[::-1]),
        "reconstructions": figures.reconstructions(images, images, images, images, ids=ids),
    }
    plates = [plate(f, tmp_path / f"{name}.png", name, "c " * 99) for name, f in drawn.items()]
    metrics = {
        "command": f"python examples/galaxy_gdae.py --data {'very_long_' * 30}.zip",
        "data": "/a/" + "folder" * 30,
        "held_out": 1000,
        "encoded_mse_wins": 1000,
        "mse_wins": 1000,
        "closest_mse_wins": 1000,
        "held_out_elbo": 123456.7,
        "excluded": {"the light of another object reaches into the crop": 12345},
        "digest": "0123456789abcdef" * 8,
        "list": np.linspace(0, 1, 40).tolist(),
    }
    page = write_report(tmp_path / "report.html", metrics, plates).read_text(encoding="utf-8")
    kind = f'height="20000" style="border:0" srcdoc="{html.escape(page)}"'
    frames = "".join(f'<iframe width="{width}" {kind}></iframe>' for width in (1200, 390, 320))
    (tmp_path / "frames.html").write_text(f"<!DOCTYPE html>{frames}{MEASURE}", encoding="utf-8")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/user",
    ]
    command += ["--virtual-time-budget=10000", "--dump-dom", (tmp_path / "frames.html").as_uri()]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = json.loads(html.unescape(re.search(r"measured (\[.*\])", told)[1]))
    assert [width for width, _, _ in found] == [1200, 390, 320]
    for width, needed, pictures in found:
        assert needed <= width
        assert len(pictures) == 3
        assert min(pictures) > 0
