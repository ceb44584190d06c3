"""Every file under infra/ is valid for its reader, and every imgtx command in them is a valid command line."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from imgtx import __version__
from jobs.nightly.spec import load_nightly_spec
from jobs.schedule.kubernetes import TARGETS, manifests
from pipeline.cluster.metrics import METRICS, STATUS_METRICS
from tests.support.manifests import check_time_to_go, commands, misread, problems, read
from tests.support.source_tree import ROOT, files

INFRA = ROOT / "infra"
DASHBOARD = json.loads((INFRA / "grafana/imgtx.json").read_text())
RULES = yaml.safe_load((INFRA / "prometheus/rules.yaml").read_text())
PROMTOOL = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")

EXPORTED = {name for metric in METRICS for name in metric.exported} | {
    metric.name for metric in STATUS_METRICS
}
TAGS = {tag for metric in (*METRICS, *STATUS_METRICS) for tag in metric.tags} | {"destination", "task", "le"}


def text_of(path: str) -> str:
    return (INFRA / path).read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, with continued lines joined."""
    lines = [line for line in text_of("Dockerfile").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line.strip()]


def of_instruction(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=INFRA / "prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class TestKubernetes:
    @pytest.mark.parametrize(
        "path", [p for p in files() if re.fullmatch(r"infra/kuberay/(?!kust).*\.yaml", p)]
    )
    def test_a_cluster_accepts_each_manifest(self, path: str):
        objects = read((ROOT / path).read_text())
        assert objects
        assert [problem for item in objects for problem in problems(item)] == []

    def test_the_job_runs_a_command_that_exists(self):
        (job,) = read(text_of("kuberay/rayjob.yaml"))
        (words,) = commands(job)
        assert words[:2] == ["imgtx", "upscale"]
        assert words[-2:] == ["--address", "auto"]

    @pytest.mark.parametrize("name", ["raycluster", "rayjob"])
    def test_a_cluster_has_both_groups_its_own_account_and_its_secret_by_reference(self, name: str):
        (item,) = read(text_of(f"kuberay/{name}.yaml"))
        cluster = item["spec"].get("rayClusterSpec", item["spec"])
        assert cluster["rayVersion"] == ray.__version__
        assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == ["cpu", "gpu"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            assert (pod["serviceAccountName"], pod["securityContext"]["runAsNonRoot"]) == ("imgtx", True)
            assert container["envFrom"] == [{"secretRef": {"name": "imgtx-s3", "optional": True}}]
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert container["image"] in (f"imgtx:{__version__}", f"imgtx:{__version__}-cuda")
        check_time_to_go(cluster)
        assert "env" not in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]

    @pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
    def test_kustomize_puts_all_manifests_into_one_namespace(self):
        done = subprocess.run(
            ["kubectl", "kustomize", str(INFRA / "kuberay")], capture_output=True, text=True, check=True
        )
        objects = read(done.stdout)
        assert sorted(item["kind"] for item in objects) == ["Namespace", "RayCluster", "ServiceAccount"]
        assert [problem for item in objects for problem in problems(item)] == []
        assert {item["metadata"].get("namespace", "imgtx") for item in objects} == {"imgtx"}

    def test_the_kustomization_names_existing_files(self):
        kustomization = yaml.safe_load(text_of("kuberay/kustomization.yaml"))
        assert all((INFRA / "kuberay" / name).is_file() for name in kustomization["resources"])


def manifests_of_infra() -> list[dict[str, Any]]:
    paths = [p for p in files() if re.fullmatch(r"infra/kuberay/(?!kust).*\.yaml", p)]
    return [item for path in paths for item in read((ROOT / path).read_text())]


def generated() -> list[dict[str, Any]]:
    """Return the objects of every target of `imgtx schedule`, from the unchanged shipped spec."""
    spec = load_nightly_spec(ROOT / "jobs/specs/nightly.toml")
    lists = [manifests(spec, target, date(2026, 11, 23)) for target in TARGETS]
    return [item for objects in lists for item in objects]


def values_of(value: Any, key: str) -> Iterator[Any]:
    """Yield every value of a key, anywhere in a manifest."""
    if isinstance(value, dict):
        yield from (found for name, found in value.items() if name == key)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from values_of(item, key)


class TestNames:
    """With the defaults, every name in a manifest or page is created by another one."""

    page = text_of("kuberay/README.md")
    objects = (*manifests_of_infra(), *generated())

    def named(self, kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.objects if item["kind"] == kind}

    def test_all_manifests_use_one_namespace(self):
        (namespace,) = self.named("Namespace")
        assert yaml.safe_load(text_of("kuberay/kustomization.yaml"))["namespace"] == namespace
        for item in self.objects:
            if item["kind"] != "Namespace":
                assert item["metadata"]["namespace"] == namespace, item["metadata"]["name"]
            assert {s["namespace"] for found in values_of(item, "subjects") for s in found} <= {namespace}
        assert {*re.findall(r"kubectl -n (\S+)", self.page)} == {namespace}
        assert [*values_of(yaml.safe_load(text_of("prometheus/prometheus.yaml")), "namespaces")] == [
            {"names": [namespace]}
        ]

    def test_every_account_and_role_exists(self):
        accounts = {name for item in self.objects for name in values_of(item, "serviceAccountName")}
        assert accounts == self.named("ServiceAccount")
        for item in self.objects:
            for subjects in values_of(item, "subjects"):
                assert {(s["kind"], s["name"] in accounts) for s in subjects} == {("ServiceAccount", True)}
            assert {reference["name"] for reference in values_of(item, "roleRef")} <= self.named("Role")

    def test_pods_read_the_secret_that_the_page_creates_and_start_without_it(self):
        created = re.findall(r"kubectl -n \S+ create secret generic (\S+)", self.page)
        references = [found for item in self.objects for found in values_of(item, "secretRef")]
        assert references
        assert all([found] == [{"name": name, "optional": True} for name in created] for found in references)

    def test_every_config_map_exists(self):
        mounted = {found["name"] for item in self.objects for found in values_of(item, "configMap")}
        assert mounted == self.named("ConfigMap")

    def test_the_page_submits_with_the_token_of_the_standing_cluster(self):
        (cluster,) = [item for item in self.objects if item["kind"] == "RayCluster"]
        name = cluster["metadata"]["name"]
        assert cluster["spec"]["authOptions"] == {"mode": "token"}
        assert f"port-forward svc/{name}-head-svc 8265" in self.page
        token = f"RAY_AUTH_TOKEN=$(kubectl -n imgtx get secret {name} -o jsonpath='{{.data.auth_token}}' | base64 -d)"
        assert self.page.index(token) < self.page.index("imgtx submit --address http://127.0.0.1:8265 -- ")


class TestRayUp:
    config = yaml.safe_load(text_of("aws.yaml"))

    def test_ray_accepts_the_configuration(self):
        schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
        jsonschema.validate(self.config, schema)

    def test_nodes_have_a_role_and_no_keys(self):
        for kind in self.config["available_node_types"].values():
            assert kind["node_config"]["IamInstanceProfile"] == {"Name": "imgtx"}
            assert kind.get("min_workers", 0) <= kind.get("max_workers", 0)
        assert not re.search(r"aws_(access|secret)|AKIA", text_of("aws.yaml"), re.IGNORECASE)

    def test_every_field_of_the_configuration_is_known_to_ray(self):
        """Ray's schema accepts unknown fields, so the names are compared with those it lists."""
        schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
        assert {*self.config} <= {*schema["properties"]}
        kinds = schema["properties"]["available_node_types"]["patternProperties"][".*"]["properties"]
        for kind in self.config["available_node_types"].values():
            assert {*kind} <= {*kinds}


class TestDockerfile:
    def test_all_stages_use_one_pinned_base_image(self):
        (base,) = [rest for rest in of_instruction("ARG") if rest.startswith("BASE=")]
        assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", base)
        assert [stage.split() for stage in of_instruction("FROM")] == [
            ["${BASE}", "AS", name] for name in ("build", "local-s3", "imgtx")
        ]
        (version,) = re.findall(r"python:(3\.\d+)", base)
        assert f"/lib/python{version}/" in text_of("Dockerfile")

    def test_copied_files_exist_and_are_in_the_build_context(self):
        travels = {
            line[1:] for line in text_of("Dockerfile.dockerignore").splitlines() if line.startswith("!")
        }
        for copy in of_instruction("COPY"):
            if not copy.startswith("--from"):
                assert {*copy.split()[:-1]} <= travels
        assert all((ROOT / name).exists() for name in travels)

    def test_packages_are_installed_from_the_lock(self):
        installs = [run for run in of_instruction("RUN") if "pip install" in run]
        assert len(installs) == 3
        assert all("requirements.lock" in run for run in installs)
        (torch,) = re.findall(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
        assert torch

    def test_the_image_does_not_run_as_root(self):
        stages = re.split(r"^FROM ", text_of("Dockerfile"), flags=re.MULTILINE)
        # Only the stages that are run, not the one that builds.
        for stage in stages[2:]:
            assert re.findall(r"^USER (\S+)", stage, re.MULTILINE) == ["1000:1000"]

    def test_imgtx_commands_of_the_image_exist(self):
        runs = [part.strip() for run in of_instruction("RUN") for part in run.split("&&")]
        lines = [shlex.split(part) for part in runs if part.startswith("imgtx")]
        assert lines == [["imgtx", "--version"]]
        assert json.loads(of_instruction("CMD")[-1]) == ["imgtx", "--help"]


def test_the_local_server_is_built_from_the_dockerfile_and_listens_on_loopback():
    compose = yaml.safe_load(text_of("local-s3/compose.yaml"))
    service = compose["services"]["s3"]
    assert service["build"]["target"] in re.findall(r" AS (\S+)", text_of("Dockerfile"))
    assert (INFRA / "local-s3" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    (port,) = service["ports"]
    host, _, inside = port.rpartition(":")
    assert host.startswith("127.0.0.1:")
    assert [inside] == of_instruction("EXPOSE")
    assert json.loads(of_instruction("CMD")[0])[-1] == inside


class TestWatching:
    def expressions(self) -> list[str]:
        rules = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
        shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
        variables = [
            item["query"]["query"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"
        ]
        return [*rules, *shown, *variables]

    def test_expressions_name_metrics_that_imgtx_has(self):
        recorded = {
            rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
        }
        named = {
            name
            for expr in self.expressions()
            for name in re.findall(r"\b(?:ray_)?imgtx_\w+|imgtx:[\w:]+", expr)
        }
        assert named <= EXPORTED | recorded, named - EXPORTED - recorded
        assert len(named) > 10

    def test_expressions_name_tags_that_imgtx_sets(self):
        for expr in self.expressions():
            grouped = re.findall(r"(?:by|on) \(([^)]*)\)", expr)
            matched = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expr)
            tags = {tag.strip() for names in grouped for tag in names.split(",")} | {*matched}
            assert tags <= TAGS | {"__name__"}, expr

    def test_the_page_lists_all_metrics_of_the_code(self):
        page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
        listed = {name: (kind, tuple(re.findall(r"`(\w+)`", tags))) for name, kind, tags in rows}
        expected = {
            metric.exported[0].removesuffix("_bucket"): (metric.kind, metric.tags) for metric in METRICS
        } | {metric.name: (metric.kind, metric.tags) for metric in STATUS_METRICS}
        assert listed == expected

    def test_every_metric_is_on_the_dashboard(self):
        shown = " ".join(self.expressions())
        missing = [m.name for m in METRICS if not any(name in shown for name in m.exported)]
        missing += [m.name for m in STATUS_METRICS if m.name not in shown]
        assert missing == []

    def test_panels_do_not_overlap(self):
        taken: set[tuple[int, int]] = set()
        for panel in DASHBOARD["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells
        assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

    def test_every_alert_has_a_unit_test_and_a_remedy(self):
        tested = {
            case["alertname"]
            for test in yaml.safe_load(text_of("prometheus/rules.test.yaml"))["tests"]
            for case in test["alert_rule_test"]
            if case.get("exp_alerts")
        }
        alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
        assert {alert["alert"] for alert in alerts} == tested
        for alert in alerts:
            assert {*alert["annotations"]} == {"summary", "description"}
            named = re.findall(r"imgtx \w+", alert["annotations"]["description"])
            assert all(misread([*words.split(), "out"]) == "" for words in named)

    @PROMTOOL
    def test_promtool_accepts_the_configuration(self, tmp_path: Path):
        """Except for the discovery in Kubernetes, which Debian's promtool is built without."""
        config = yaml.safe_load(text_of("prometheus/prometheus.yaml"))
        config["scrape_configs"] = [
            job for job in config["scrape_configs"] if "kubernetes_sd_configs" not in job
        ]
        assert len(config["scrape_configs"]) == 2
        config["rule_files"] = [str(INFRA / "prometheus" / name) for name in config["rule_files"]]
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        promtool("check", "config", str(tmp_path / "prometheus.yaml"))

    @PROMTOOL
    def test_the_rules_pass_their_unit_tests(self):
        promtool("test", "rules", "rules.test.yaml")

    @PROMTOOL
    def test_prometheus_parses_every_expression_of_the_dashboard(self, tmp_path: Path):
        shown: list[dict[str, Any]] = [
            {"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"]}
            for panel in DASHBOARD["panels"]
            for target in panel["targets"]
        ]
        (tmp_path / "rules.yaml").write_text(
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": shown}]})
        )
        promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_every_folder_has_a_page():
    folders = {path.rpartition("/")[0] for path in files() if path.startswith("infra/")}
    assert [folder for folder in sorted(folders) if not (ROOT / folder / "README.md").is_file()] == []
