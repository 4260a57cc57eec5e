#!/usr/bin/env python3
"""Checks the example of this folder without a cluster: every object against the schema of its kind, the
references between objects, and what must agree inside pods and between them and the images.

Wants PyYAML and kubernetes-validate. Usage: check.py [FOLDER]; with a program's path in PROXY_EDGE and
PROXY_DEVICE, that program checks the configuration that its pods get.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# The first version with sidecar containers, and the newest that is known.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
PROGRAMS = {"proxy-edge": "PROXY_EDGE", "proxy-device": "PROXY_DEVICE"}


class Example:
    """All objects of a folder, by kind, namespace and name."""

    def __init__(self, folder):
        self.faults = []
        self.certs = tempfile.TemporaryDirectory()
        self.objects = {}
        for path in sorted(folder.glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if "kind" not in document:
                    continue  # values of a Helm chart
                self.schema(path, document)
                meta = document["metadata"]
                self.objects[document["kind"], meta.get("namespace"), meta["name"]] = document

    def fault(self, *words):
        self.faults.append(" ".join(map(str, words)))

    def schema(self, path, document):
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(map(str, error.path))
                self.fault(f"{path.name}: {document['kind']} {document['metadata']['name']} ({version}): {where}: {error.message}")

    def of(self, kind):
        return {key[1:]: document for key, document in self.objects.items() if key[0] == kind}

    def pods(self, namespace, labels):
        """Templates of the pods that have all of these labels."""
        return [
            d["spec"]["template"]
            for (space, _), d in self.of("Deployment").items()
            if space == namespace and labels.items() <= d["spec"]["template"]["metadata"]["labels"].items()
        ]

    def references(self):
        namespaces = {name for _, name in self.of("Namespace")}
        for kind, namespace, name in self.objects:
            if kind != "Namespace" and namespace not in namespaces:
                self.fault(kind, name, "is in the namespace", namespace, "which is not here")
        for (space, name), d in self.of("Deployment").items():
            if not d["spec"]["selector"]["matchLabels"].items() <= d["spec"]["template"]["metadata"]["labels"].items():
                self.fault("Deployment", name, "does not select its own pods")
            spec = d["spec"]["template"]["spec"]
            volumes = {v["name"]: v for v in spec.get("volumes", [])}
            for volume in volumes.values():
                if "secret" in volume:
                    self.secret(volume["secret"]["secretName"])
                elif ("ConfigMap", space, volume["configMap"]["name"]) not in self.objects:
                    self.fault("Deployment", name, "mounts a ConfigMap that is not here:", volume["configMap"]["name"])
            for container in spec.get("initContainers", []) + spec["containers"]:
                self.container(name, spec, container, volumes)
        for (space, name), service in self.of("Service").items():
            for port in service["spec"]["ports"]:
                self.port(f"Service {name}", self.pods(space, service["spec"]["selector"]), port["targetPort"])
        for (space, name), budget in self.of("PodDisruptionBudget").items():
            if not self.pods(space, budget["spec"]["selector"]["matchLabels"]):
                self.fault("PodDisruptionBudget", name, "selects no pods")
        for (space, name), policy in self.of("NetworkPolicy").items():
            pods = self.pods(space, policy["spec"]["podSelector"]["matchLabels"])
            for rule in policy["spec"].get("ingress", []):
                for port in rule["ports"]:
                    self.port(f"NetworkPolicy {name}", pods, port["port"])
        for (space, name), scaler in self.of("HorizontalPodAutoscaler").items():
            target = scaler["spec"]["scaleTargetRef"]
            if (target["kind"], space, target["name"]) not in self.objects:
                self.fault("HorizontalPodAutoscaler", name, "scales what is not here:", target["name"])
            if "replicas" in self.objects.get((target["kind"], space, target["name"]), {"spec": {}})["spec"]:
                self.fault("Deployment", target["name"], "sets replicas, which the autoscaler does")
            for metric in scaler["spec"]["metrics"]:
                self.metric(metric["pods"]["metric"]["name"])

    def secret(self, name):
        """No secret stands in a file: the guide says how it is made."""
        if f"create secret generic {name} " not in (ROOT / "docs/deploy.md").read_text():
            self.fault("docs/deploy.md does not say how the Secret", name, "is made")

    def port(self, who, pods, port):
        names = {p["name"] for pod in pods for c in pod["spec"]["containers"] for p in c.get("ports", [])}
        if port not in names:
            self.fault(who, "names the port", port, "which its pods do not have:", sorted(names))

    def metric(self, name):
        documented = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md") if path.name != "deploy.md")
        if f"`{name}`" not in documented:
            self.fault("the autoscaler's metric is in no table of docs/:", name)
        if name not in (HERE / "prometheus-adapter.yaml").read_text():
            self.fault("prometheus-adapter.yaml does not serve", name)

    def container(self, deployment, spec, container, volumes):
        who = f"Deployment {deployment}, {container['name']}:"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                self.fault(who, "mounts what the pod does not have:", mount["name"])
        targets = re.findall(r"^FROM .* AS (\S+)$", (ROOT / "docker/Dockerfile").read_text(), re.M)
        image, _, version = container["image"].partition(":")
        if image.removeprefix("sidecod-") not in targets:
            self.fault(who, "docker/Dockerfile has no target for", image)
        if f'version = "{version}"' not in (ROOT / "Cargo.toml").read_text():
            self.fault(who, "Cargo.toml has another version than", version)
        security = {**spec["securityContext"], **container["securityContext"]}
        good = security.get("runAsNonRoot") or container["name"] == "redirect"
        if not good or not security["readOnlyRootFilesystem"] or security["allowPrivilegeEscalation"] or security["capabilities"]["drop"] != ["ALL"]:
            self.fault(who, "may do more than it needs")

    def pods_agree(self):
        """The redirect spares the device, takes the app, and the app's server is one that the device knows."""
        spec = self.objects["Deployment", "app", "app"]["spec"]["template"]["spec"]
        redirect, device = spec["initContainers"]
        arguments = dict(zip(redirect["args"][::2], redirect["args"][1::2]))
        config = self.config("app", "proxy-device")
        for argument, user in (("--own-uid", device), ("--uid", spec["containers"][0])):
            if int(arguments[argument]) != user["securityContext"]["runAsUser"]:
                self.fault("redirect", argument, arguments[argument], "is not the user of", user["name"])
        ports = {host.rpartition(":")[2] for d in config["destination"] for host in d["hosts"]}
        if ports != set(arguments["--ports"].split(",")):
            self.fault("redirect --ports", arguments["--ports"], "and the device's destinations differ:", ports)
        for url in [config["edge"]["url"], *("http://" + host for d in config["destination"] for host in d["hosts"])]:
            self.service(url)
        for upstream in self.config("sidecod", "proxy-edge")["upstream"]:
            self.service(upstream["url"], "sidecod")

    def service(self, url, namespace=None):
        name, port = re.fullmatch(r"https?://([^:]+):(\d+)", url).groups()
        name, _, space = name.partition(".")
        service = self.objects.get(("Service", space or namespace, name))
        if not service or int(port) not in [p["port"] for p in service["spec"]["ports"]]:
            self.fault(url, "is no Service of this example")

    def config(self, namespace, name):
        return tomllib.loads(self.objects["ConfigMap", namespace, name]["data"][f"{name}.toml"])

    def programs(self):
        """The programs themselves read their configuration; bundle and certificates lie elsewhere here."""
        bundle = ROOT / "onnx/codecs/photo-light"
        if edge := os.environ.get(PROGRAMS["proxy-edge"]):
            certs = self.certs.name
            subprocess.run([edge, "cert", "--folder", certs, "--name", "proxy-edge.sidecod"], check=True, capture_output=True)
        for (_, name), config in self.of("ConfigMap").items():
            if not (program := os.environ.get(PROGRAMS[name])):
                continue
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"{name}.toml"
                file.write_text(config["data"][file.name].replace("/var/run/sidecod", self.certs.name))
                key = f'codec.bundle="{bundle}"' if name == "proxy-device" else f'bundles=["{bundle}"]'
                done = subprocess.run([program, "--config", file, "--check", "--set", key], capture_output=True, text=True, check=False)
            if done.returncode:
                self.fault(name, "refuses its configuration:", done.stderr.strip())


def main():
    example = Example(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
    if not example.faults:
        example.references()
        example.pods_agree()
        example.programs()
    for fault in example.faults:
        print("kubernetes:", fault, file=sys.stderr)
    kinds = ", ".join(sorted({kind for kind, _, _ in example.objects}))
    print(f"kubernetes: {len(example.objects)} objects ({kinds}), schemas of {' and '.join(VERSIONS)}, {len(example.faults)} faults")
    sys.exit(bool(example.faults))


if __name__ == "__main__":
    main()
