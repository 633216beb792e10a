"""The documentation: it builds without a warning, and no page of it asks the network."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc(?:set)?=\"(?:https?:)?//"
    r"|<link\b[^>]*\brel=\"(?:stylesheet|preconnect|preload|icon)\"[^>]*\bhref=\"(?:https?:)?//"
)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_and_stands_alone(tmp_path):
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--config-file", ".mkdocs.yml"]
    run = subprocess.run(
        [*build, "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        assert not FETCHED.search(page.read_text()), page
    for name in ("index", "choose", "own", "network", "pytorch", "conventions", "api/laws"):
        assert (site / f"{name}.html").exists()
    quoted = [page.name for page in pages if "<blockquote>\n<blockquote>" in page.read_text()]
    assert not quoted, f"examples shown as quotations: {quoted}"
