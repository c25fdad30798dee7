"""The files of the how-to on deploying: each is what its reader takes, and all of them start the same."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from importlib.metadata import entry_points, requires
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploying.files import FOLDER, PLACE, compose, container, kubernetes, procfile, started_by, unit
from tests.deploying.image import instructions
from tests.support.pages import ROOT

#: Of Kubernetes: the oldest whose schema the validator knows among those that clouds still offer.
KUBERNETES = "1.31"
#: What the settings ask for without a default.
SETTINGS = set(re.findall(r"os\.environ\[\"(\w+)\"\]", (FOLDER / "settings.py").read_text()))
#: Longer than the timeout of a mail server, which is 60 seconds unless the project sets another.
LONG_ENOUGH = 90


def test_each_file_is_shown_on_the_page() -> None:
    page = (ROOT / "docs" / "how-to" / "deploying.md").read_text()
    shown = set(re.findall(r"^```\{literalinclude\} \.\./deploying/(\S+)$", page, re.MULTILINE))
    assert shown == {file.name for file in FOLDER.iterdir()}


def test_the_image_has_what_its_commands_start_and_no_secret() -> None:
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    required = [Requirement(line) for line in lines if not line.startswith("#")]
    # With what they ask for themselves, this environment has all of it.
    wanted, there = [(one.name, frozenset(one.extras)) for one in required], set[str]()
    while wanted:
        name, extras = wanted.pop()
        there.add(canonicalize_name(name))
        for text in requires(name) or []:
            further = Requirement(text)
            environments = [{"extra": extra} for extra in extras or {""}]
            asked_for = further.marker is None or any(further.marker.evaluate(one) for one in environments)
            if asked_for and canonicalize_name(further.name) not in there:
                wanted.append((further.name, frozenset(further.extras)))
    programs = {
        script.name: canonicalize_name(script.dist.name)
        for script in entry_points(group="console_scripts") if script.dist is not None
    }  # fmt: skip
    started = {shlex.split(service["command"])[0] for service in compose()["services"].values() if "command" in service}
    assert {programs[name] for name in started & {"celery", "gunicorn"}} == {"celery", "gunicorn"} <= there
    assert {"psycopg", "redis"} <= there
    assert compose()["x-project"]["env_file"] in (FOLDER / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", ["mailer.service", "release.service", "web.service"])
def test_systemd_takes_a_unit(name: str, tmp_path: Path) -> None:
    program = Path(started_by(name)[0])
    assert program.is_relative_to(PLACE)
    # What runs once for each release is not started with the machine.
    assert set(unit(name)) == {"Unit", "Service", *([] if name == "release.service" else ["Install"])}
    systemd = shutil.which("systemd-analyze")
    assert systemd, "apt install systemd"
    # It looks for the program.
    there = tmp_path / program.name
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    copy = tmp_path / name
    copy.write_text((FOLDER / name).read_text().replace(str(program), str(there)))
    done = subprocess.run([systemd, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60)
    # Units of the machine may have faults of their own.
    assert [line for line in done.stderr.splitlines() if name in line] == []
    copy.write_text(copy.read_text().replace("WorkingDirectory", "WorkDirectory"))
    done = subprocess.run([systemd, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60)
    assert "WorkDirectory" in done.stderr


def test_a_worker_has_the_time_to_end_everywhere() -> None:
    [deployment] = [one for one in kubernetes() if one["metadata"]["name"] == "mailer"]
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == LONG_ENOUGH
    assert unit("mailer.service")["Service"]["TimeoutStopSec"] == str(LONG_ENOUGH)
    assert compose()["services"]["mailer"]["stop_grace_period"] == f"{LONG_ENOUGH}s"


def test_a_journal_outlives_its_worker_everywhere() -> None:
    service = unit("mailer.service")["Service"]
    place = f"/var/lib/{service['StateDirectory']}"
    assert service["Environment"] == f"JOURNAL_DIRECTORY={place}"
    mailer = compose()["services"]["mailer"]
    assert mailer["environment"]["JOURNAL_DIRECTORY"] == place
    assert mailer["volumes"] == [f"journal:{place}"]
    assert place in (FOLDER / "Dockerfile").read_text()
    assert {"name": "JOURNAL_DIRECTORY", "value": place} in container("mailer")["env"]
    assert [mount["mountPath"] for mount in container("mailer")["volumeMounts"]] == [place]


def test_compose_takes_its_file() -> None:
    # Anchors and merges are YAML's own, which the validator leaves to the reader.
    PyCompose.from_yaml(yaml.safe_dump(compose()))
    services = compose()["services"]
    misspelt = {**services, "mailer": {**services["mailer"], "stop_grace": "90s"}}
    with pytest.raises(ValueError, match="stop_grace"):
        PyCompose.from_yaml(yaml.safe_dump({**compose(), "services": misspelt}))


def test_compose_names_only_what_it_has() -> None:
    content = compose()
    for name, service in content["services"].items():
        for other, wanted in service.get("depends_on", {}).items():
            condition = wanted["condition"]
            assert other in content["services"], name
            assert condition != "service_healthy" or "healthcheck" in content["services"][other], name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in content["volumes"], name
    given = set(content["services"]["mailer"]["environment"])
    #: The rest are secrets, or the deployment's own, in .env.
    assert {"DATABASE_HOST", "CELERY_BROKER_URL"} <= given & SETTINGS
    assert {"DATABASE_PASSWORD"} <= SETTINGS


@pytest.mark.parametrize("manifest", kubernetes(), ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_kubernetes_takes_a_manifest(manifest: dict[str, object]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifest, "spce": {}}, KUBERNETES, strict=True)


def test_kubernetes_finds_the_pods_of_a_deployment() -> None:
    for thing in kubernetes():
        if thing["kind"] == "Deployment":
            assert thing["spec"]["selector"]["matchLabels"] == thing["spec"]["template"]["metadata"]["labels"]


def test_an_image_starts_its_program_without_a_shell_and_not_as_root() -> None:
    last = {one.name: one.arguments for one in instructions((FOLDER / "Dockerfile").read_text())}
    assert json.loads(last["CMD"]) == container("web")["command"]
    assert last["USER"] != "root"


def test_every_file_starts_the_same() -> None:
    services = compose()["services"]
    mailer = {
        "Procfile": shlex.split(procfile()["mailer"]),
        "compose": shlex.split(services["mailer"]["command"]),
        "systemd": [Path(started_by("mailer.service")[0]).name, *started_by("mailer.service")[1:]],
    }
    assert mailer == dict.fromkeys(mailer, container("mailer")["command"])
    assert shlex.split(services["worker"]["command"]) == shlex.split(procfile()["worker"])
    assert shlex.split(services["web"]["command"]) == container("web")["command"]
    migrate = container("migrations")["command"]
    assert shlex.split(procfile()["release"]) == shlex.split(services["migrations"]["command"]) == migrate
    assert started_by("release.service")[1:] == migrate[1:]
    probe = container("mailer")["readinessProbe"]["exec"]["command"]
    assert services["mailer"]["healthcheck"]["test"] == ["CMD", *probe]
