"""Pages escape all that comes from outside: names, labels, captions, texts."""

from __future__ import annotations

import re

import pytest

from sslflow.reporting import page
from tests import vulnerabilities
from tests.conftest import ROOT

TEMPLATES = sorted((ROOT / "sslflow/reporting/templates").glob("*.j2"))
UNESCAPED = re.compile(r"\|\s*safe|autoescape|Markup")
CONSTANT = re.compile(r"""\{\{ ' class="pixels"'\|safe if [\w.]+ < \d+ \}\}""")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_no_template_lets_a_value_through(template) -> None:
    assert not UNESCAPED.search(CONSTANT.sub("", template.read_text()))


def test_templates_escape_by_default() -> None:
    template = page._template("report.html.j2")
    assert template.environment.from_string("{{ x }}").render(x='<script>"') == "&lt;script&gt;&#34;"


def test_an_index_that_knows_of_no_vulnerabilities_is_no_good_news(capsys) -> None:
    pinned = vulnerabilities.PINS.read_text().count("==")
    assert vulnerabilities.verdict(0, f"x {vulnerabilities.SKIPPED}\n" * pinned, "") == 0
    assert "not looked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "found", "said", "expected"),
    [
        (0, "", "No known vulnerabilities found", 0),
        (1, "Name Version ID\nx 1 CVE-1", "Found 1 known vulnerability", 1),
        (0, "Name Skip Reason\nx Dependency not found on PyPI and could not be audited: x (1)", "", 0),
        (1, "", "requests.exceptions.ConnectionError: Max retries exceeded", 0),
        (2, "", "unrecognized arguments", 1),
    ],
)
def test_only_what_is_known_or_broken_fails_the_check(code, found, said, expected, capsys) -> None:
    assert vulnerabilities.verdict(code, found, said) == expected
    assert capsys.readouterr().out.count("\n") <= 2
