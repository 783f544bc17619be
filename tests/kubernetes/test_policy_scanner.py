"""A scanner of policies (checkov, in an environment of its own) reads k8s/ and every overlay; what it finds and we
leave has its reason here. It asks nobody on the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.engine import cache
from tests.launch.manifests import OVERLAYS, WHOLE, overlay

CHECKOV = "3.3.30"
#: Check -> the workloads it is about (empty: all of them), and why not.
EXCEPTIONS: dict[str, tuple[set[str], str]] = {
    "CKV_K8S_11": (set(), "a limit on processor time slows what would else use an idle core; memory has one"),
    "CKV_K8S_15": (set(), "IfNotPresent: images that were loaded into the nodes are used; every tag is a version"),
    "CKV_K8S_43": (set(), "digests are those of the registry that one pushes to: an overlay's to name"),
    "CKV_K8S_22": ({"kafka"}, "its image writes its configuration below /opt and /etc"),
    "CKV_K8S_38": ({"setup"}, "it fills Secrets"),
    "CKV_K8S_40": ({"kafka", "grafana"}, "the users of their images"),
}


@pytest.fixture(scope="module")
def checkov() -> Path:
    """The program, installed once."""
    folder = cache() / f"checkov-{CHECKOV}"
    if not (folder / "bin" / "checkov").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), f"checkov=={CHECKOV}"]
        subprocess.run(install, check=True, timeout=600)
    return folder / "bin" / "checkov"


@pytest.mark.timeout(900)
def test_what_a_scanner_of_policies_finds_has_a_reason(checkov: Path, tmp_path: Path) -> None:
    sets = {"base": tuple(WHOLE)} | {name: overlay(name) for name in OVERLAYS}
    for name, objects in sets.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
    command = [str(checkov), "--directory", str(tmp_path), "--framework", "kubernetes", "--skip-download", "--quiet"]
    done = subprocess.run(
        [*command, "--output", "json"], capture_output=True, text=True, env={**os.environ, "BC_SKIP_MAPPING": "TRUE"}
    )
    found = json.loads(done.stdout)
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 600 * len(sets)
    said = {(each["check_id"], each["resource"].rpartition(".")[2]) for each in found["results"]["failed_checks"]}
    unexplained = [each for each in said if not _excepted(*each)]
    assert unexplained == []
    assert {check for check, _ in said} == set(EXCEPTIONS), "an exception that nothing needs"


def _excepted(check: str, workload: str) -> bool:
    workloads, _ = EXCEPTIONS.get(check, ({""}, ""))
    return not workloads or workload in workloads
