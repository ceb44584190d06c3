"""A CronJob's tick against an HTTPS server like the Kubernetes API: one RayJob per date."""

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.schedule import tick as kubernetes
from tests.support.commands import complaint, imgtx
from tests.support.manifests import problems

SHIPPED = Path(__file__).parents[2] / "jobs" / "specs" / "nightly.toml"
FIRST, SECOND, NEXT = (f"imgtx-sr-x2-{minute}" for minute in (29923290, 29923350, 29924730))


class Api(BaseHTTPRequestHandler):
    """Answers a POST of an object by 201, by 409 if its name is taken, or by 401 without the token."""

    made: dict[str, dict]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body["metadata"]["name"]
        if self.headers["Authorization"] != "Bearer the-pods-token":
            self.answer(401)
        elif self.path != "/apis/ray.io/v1/namespaces/imgtx/rayjobs":
            self.answer(404)
        elif name in self.made:
            self.answer(409)
        else:
            self.made[name] = body
            self.answer(201)

    def answer(self, code: int) -> None:
        data = json.dumps({"kind": "Status", "code": code, "message": f"says {code}"}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def certificate(folder: Path) -> tuple[str, str]:
    """Return the paths of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(folder / "ca.crt"), str(folder / "key.pem")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict]]:
    """Set up a pod beside an API server; return the objects created there, by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    handler = type("Api", (Api,), {"made": {}})
    server = HTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (tmp_path / "token").write_text("the-pods-token\n")
    monkeypatch.setattr(kubernetes, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler.made
    server.shutdown()
    thread.join()
    server.server_close()


def tick(job: str) -> str:
    result = imgtx("schedule", str(SHIPPED), "--target", "rayjob", "--job-name", job)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_date_gets_one_ray_job_for_any_number_of_ticks(made: dict[str, dict]):
    assert tick(FIRST) == "created RayJob imgtx-sr-x2-20261123 in imgtx\n"
    assert "exists already" in tick(FIRST)
    # An hour later.
    assert "exists already" in tick(SECOND)
    assert "created RayJob imgtx-sr-x2-20261124 in" in tick(NEXT)
    assert [*made] == ["imgtx-sr-x2-20261123", "imgtx-sr-x2-20261124"]
    assert [problem for job in made.values() for problem in problems(job)] == []
    assert "--date 2026-11-24" in made["imgtx-sr-x2-20261124"]["spec"]["entrypoint"]


def test_a_rejected_token_and_an_untrusted_server_are_reported(made: dict[str, dict], tmp_path: Path):
    command = ("schedule", str(SHIPPED), "--target", "rayjob", "--job-name", FIRST)
    (tmp_path / "token").write_text("another")
    assert "401 says 401; the API does not accept the pod's token" in complaint(*command)
    (tmp_path / "other").mkdir()
    certificate(tmp_path / "other")
    (tmp_path / "ca.crt").write_bytes((tmp_path / "other" / "ca.crt").read_bytes())
    assert "did not answer" in complaint(*command, code=3)
    assert made == {}
