"""Makes what of k8s/ is made: ConfigMaps from the files that docker compose mounts, the alerts for the Prometheus
operator, and k8s/headrace.yaml, which is all of k8s/base in one.

    python k8s/build.py           (make manifests)

`kubectl apply -f k8s/` does not look into folders and takes no kustomization, while overlays need one: hence both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "k8s" / "base"
CONFIG, WHOLE = BASE / "15-config.yaml", ROOT / "k8s" / "headrace.yaml"
RULES = ROOT / "k8s" / "overlays" / "monitoring" / "rules.yaml"
MADE_BY = "# Made by k8s/build.py (make manifests); change what it is made from.\n"
DEPLOY = ROOT / "deploy"
#: ConfigMap -> key -> the file.
CONFIG_MAPS: Mapping[str, Mapping[str, Path]] = {
    "run": {"run.toml": DEPLOY / "compose" / "lunarlander.toml"},
    "prometheus": {name: DEPLOY / "prometheus" / name for name in ("prometheus.yml", "alerts.yml")},
    "grafana-datasources": {"prometheus.yml": DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml"},
    "grafana-providers": {"headrace.yml": DEPLOY / "grafana" / "provisioning" / "dashboards" / "headrace.yml"},
    "grafana-dashboards": {"headrace.json": DEPLOY / "grafana" / "dashboards" / "headrace.json"},
}


def config_maps() -> str:
    return MADE_BY + "---\n".join(_config_map(name, files) for name, files in CONFIG_MAPS.items())


def whole() -> str:
    """Every object, in the order of the files' names."""
    parts = [path.read_text() for path in sorted(BASE.glob("[0-9]*.yaml"))]
    return MADE_BY + "---\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def rules() -> str:
    """The alerts, as the Prometheus operator takes them."""
    head = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n"
    head += "metadata:\n  name: headrace\n  namespace: headrace\n"
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    indented = "".join(f"  {line}".rstrip() + "\n" for line in alerts.splitlines())
    return f"{MADE_BY}{head}  labels: {{app.kubernetes.io/part-of: headrace}}\nspec:\n{indented}"


def _config_map(name: str, files: Mapping[str, Path]) -> str:
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: headrace\n"
    data = "".join(f"  {key}: |\n{_indented(_short(path))}" for key, path in files.items())
    return f"{head}  labels: {{app.kubernetes.io/part-of: headrace}}\ndata:\n{data}"


def _short(path: Path) -> str:
    """Its text; JSON without its spaces: kubectl keeps a copy of an object in an annotation of at most 256 KiB."""
    text = path.read_text()
    return json.dumps(json.loads(text), separators=(",", ":")) + "\n" if path.suffix == ".json" else text


def _indented(text: str) -> str:
    return "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())


def main() -> None:
    for path, made in ((CONFIG, config_maps), (WHOLE, whole), (RULES, rules)):
        path.write_text(made())


if __name__ == "__main__":
    main()
