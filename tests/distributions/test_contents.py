"""What ``make wheel`` has built: that each distribution has all that it should have, and nothing else."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from trove_classifiers import classifiers

import congressy_mailer

ROOT = Path(__file__).resolve().parents[2]
VERSION = congressy_mailer.__version__
BUILT = ROOT / "dist"
#: What setuptools adds to the files of the checkout.
METADATA_OF_THE_WHEEL = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
METADATA_OF_THE_SDIST = {
    *{"PKG-INFO", "setup.cfg"},
    *(
        f"congressy_mailer.egg-info/{name}"
        for name in (
            *("PKG-INFO", "SOURCES.txt", "dependency_links.txt"),
            *("entry_points.txt", "requires.txt", "top_level.txt"),
        )
    ),
}
#: What is of use in a checkout alone.
NOT_IN_THE_SDIST = {".gitignore"}
#: The extras that a project installs; the others are for those who work on this one.
PUBLIC_EXTRAS = {"doctor", "health-check", "local-sparkpost", "mysql", "opentelemetry", "postgresql", "prometheus"}


def checkout(*below: str) -> set[str]:
    """The files of the project, without those that lie in its folder by chance."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *below],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return {name for name in listed.splitlines() if (ROOT / name).is_file() and not (ROOT / name).is_symlink()}


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    return zipfile.ZipFile(BUILT / f"congressy_mailer-{VERSION}-py3-none-any.whl")


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """What PyPI shows of the release."""
    return BytesParser().parsebytes(wheel.read(f"congressy_mailer-{VERSION}.dist-info/METADATA"))


def test_one_wheel_and_one_sdist_were_built() -> None:
    assert {file.name for file in BUILT.iterdir()} == {
        f"congressy_mailer-{VERSION}-py3-none-any.whl",
        f"congressy_mailer-{VERSION}.tar.gz",
    }


def test_the_wheel_has_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    own = {f"congressy_mailer-{VERSION}.dist-info/{name}" for name in METADATA_OF_THE_WHEEL}
    assert set(wheel.namelist()) == checkout("congressy_mailer") | own


@pytest.mark.parametrize(
    "kind", ["py.typed", "*/LC_MESSAGES/django.mo", "templates/**/*.html", "static/**/*.css", "migrations/0001_*.py"]
)
def test_the_wheel_has_what_is_no_module(wheel: zipfile.ZipFile, kind: str) -> None:
    there = {str(file.relative_to(ROOT)) for file in (ROOT / "congressy_mailer").glob(f"**/{kind}")}
    assert there
    assert there - set(wheel.namelist()) == set()


def test_the_sdist_has_the_whole_project() -> None:
    with tarfile.open(BUILT / f"congressy_mailer-{VERSION}.tar.gz") as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert names == (checkout() - NOT_IN_THE_SDIST) | METADATA_OF_THE_SDIST


def test_each_link_of_the_page_on_pypi_leads_to_a_file_of_this_release(metadata: Message) -> None:
    page = str(metadata.get_payload())
    assert page.startswith("# Congressy Mailer")
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Issues", "Security"}
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    release = f"{urls['Homepage']}/blob/v{VERSION}/"
    files = [link.removeprefix(release) for link in (*links, *urls.values()) if link.startswith(release)]
    assert len(files) > len(urls)
    assert [name for name in files if name.partition("#")[0] not in checkout()] == []


def test_the_classifiers_are_those_of_pypi(metadata: Message) -> None:
    assert set(metadata.get_all("Classifier", [])) - classifiers == set()


def test_python_and_django_are_those_that_are_tested(metadata: Message) -> None:
    environments = (ROOT / "tox.ini").read_text()
    pythons, djangos = set(), set()
    for python_versions, django_versions in re.findall(
        r"^    py(\{[\d,]+\}|\d+)-django(\{[\d,]+\}|\d+)$", environments, re.MULTILINE
    ):
        pythons |= set(re.findall(r"\d+", python_versions))
        djangos |= set(re.findall(r"\d+", django_versions))
    classified = metadata.get_all("Classifier", [])
    for prefix, tested in (("Programming Language :: Python :: 3.", pythons), ("Framework :: Django :: ", djangos)):
        named = [one.removeprefix(prefix) for one in classified if one.startswith(prefix)]
        assert tested
        assert {f"3{name}" if prefix.endswith("3.") else name.replace(".", "") for name in named} == tested


def test_what_is_asked_for_is_what_the_lowest_versions_are_tested_with(metadata: Message) -> None:
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    for text in metadata.get_all("Requires-Dist", []):
        required = Requirement(text)
        extra = re.search(r'extra == "([\w-]+)"', str(required.marker or ""))
        if extra is None or extra[1] in PUBLIC_EXTRAS:
            [lowest] = [one.version for one in required.specifier if one.operator == ">="]
            assert Version(tested[required.name.lower()]) == Version(lowest), text


def test_the_changelog_has_this_release_first() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [heading for heading in headings if heading != "Unreleased"][0] == VERSION
