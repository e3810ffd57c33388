# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blobs reach Workers that share no folder with their Domain: by the channel through TLS, and by S3.

The database is PostgreSQL, and HAProxy is the ingress, as on hosts of their own. Everything listens on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.postgresql import Postgresql, binaries

from .conftest import RUNTIME, Client, Grid, Node, free_port

pytestmark = pytest.mark.skipif(
    binaries() is None or not shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin"),
    reason="no PostgreSQL server or no HAProxy is installed here",
)

DATASET_BYTES = 20_000_000

FUNCTIONS = """
def double(data, seconds):
    import time

    time.sleep(seconds)
    return data * 2
"""

SEED = """
import importlib.util, numpy as np
from syft.service.policy.policy import MixedInputPolicy

owner = sy.login(url=url, port=port, email=email, password=password, cache=False)
data = np.random.default_rng(7).random(size // 8)
owner.upload_dataset(sy.Dataset(name="scans", asset_list=[sy.Asset(name="scans", data=data, mock=data[:10] * 0)]))
asset = owner.datasets[0].assets[0]
spec = importlib.util.spec_from_file_location("functions", file)
functions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(functions)
owner.users.create(email="grace@research.example", password="correct horse", password_verify="correct horse",
                   name="Grace")
grace = sy.login(url=url, port=port, email="grace@research.example", password="correct horse", cache=False)
code = sy.syft_function(input_policy=MixedInputPolicy(data=asset, seconds=float, client=grace))(functions.double)
grace.code.request_code_execution(code)
owner.requests[0].approve(disable_warnings=True)
jobs = {}
"""

START = """
job = grace.code.double(data=grace.datasets[0].assets[0], seconds=seconds, blocking=False)
jobs[job.id.no_dash] = job
result = job.id.no_dash
"""

# A data scientist downloads the result, and it is twice the private data.
FINISH = """
import time
job, end = jobs[name], time.monotonic() + 100
while not job.resolved and time.monotonic() < end:
    time.sleep(0.2)
    try:
        job.fetch()
    except Exception:
        pass  # the Domain is being restarted
if job.status.value == "completed":
    result = bool(np.array_equal(job.result.get(), data * 2))
else:
    result = f"{job.status.value}: {job.result}"
"""

# What a Worker's process does, with the identity and settings of one, in an environment that has the libraries.
STORE = """
import json, sys
from pathlib import Path
from pygrid_node import blobs
from pygrid_node.blob_store import BlobError
from pygrid_node.identity import load_identity
from pygrid_node.settings import load_settings
settings = load_settings(sys.argv[1])
store = blobs.make_store(settings, load_identity(settings.identity_file))
def tried(call, *arguments):
    try:
        return repr(call(*arguments))
    except BlobError as error:
        return f"{type(error).__name__}: {error}"
print(json.dumps(eval(sys.argv[2])))
"""


@dataclass
class Certificates:
    """An authority of our own and a certificate of it for this host."""

    folder: Path

    def __post_init__(self) -> None:
        self.authority, self.pair = self.folder / "ca.pem", self.folder / "server.pem"
        key, certificate = self.folder / "server.key", self.folder / "server.crt"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        self._openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test Grid CA")
        self._openssl(
            "req", "-x509", *curve, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", key.name, "-out", certificate.name,
            "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
        )  # fmt: skip
        self.pair.write_text(certificate.read_text() + key.read_text())
        self.key, self.certificate = key, certificate

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


# What any call of syft over https does, in a process that has been told to show a certificate, or not.
SHOW = """
import sys
import requests
from pathlib import Path
from pygrid_node import tls
if len(sys.argv) > 2:
    tls.show_client_certificate(Path(sys.argv[2]))
print(requests.get(sys.argv[1], timeout=10).text)
"""


@contextlib.contextmanager
def running(*command: str | Path, port: int) -> Iterator[None]:
    """A server that is up within ten seconds."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < end, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ingress(folder: Path, certificates: Certificates, backend_port: int) -> Iterator[str]:
    """HAProxy with TLS before a node; gives its URL."""
    port = free_port()
    file = folder / f"haproxy-{port}.cfg"
    file.write_text(
        f"""
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port} ssl crt {certificates.pair}
    default_backend node
backend node
    server node 127.0.0.1:{backend_port}
"""
    )
    with running("haproxy", "-db", "-f", file, port=port):
        yield f"https://127.0.0.1:{port}"


def https(certificates: Certificates, url: str, method: str = "GET") -> int:
    """The status of an answer; raises HTTPError like urllib."""
    context = ssl.create_default_context(cafile=str(certificates.authority))
    request = urllib.request.Request(url, method=method)  # noqa: S310 - https, see above
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310
        return answer.status


def ask_store(python: str, node: Node, expression: str) -> Any:
    """Evaluate an expression with `store` as a process of this node has it."""
    done = subprocess.run(
        [python, "-c", STORE, str(node.home / "settings.json"), expression],
        env={**os.environ, "PYTHONPATH": str(RUNTIME)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def seed(client: Client, domain: Node, folder: Path, size: int) -> None:
    file = folder / f"functions_{domain.name}.py"
    file.write_text(FUNCTIONS)
    identity = domain.secrets
    client.run(
        SEED, url="http://127.0.0.1", port=domain.port, email=identity["root_email"],
        password=identity["root_password"], size=size, file=str(file),
    )  # fmt: skip


def own_copies(node: Node) -> list[Path]:
    return [path for path in (node.home / "data" / "blob-cache").rglob("*") if path.is_file()]


def change_list(domain: Node, *workers: Node) -> None:
    """Let exactly these Workers in."""
    file = Path(domain.settings["queue"]["workers_file"])
    new = file.with_suffix(".new")
    new.touch(0o600)
    new.write_text(json.dumps({worker.name: worker.public["queue_public_key"] for worker in workers}))
    new.replace(file)


@pytest.fixture(scope="module")
def certificates(grid: Grid) -> Certificates:
    return Certificates(grid.home)


@dataclass
class Remote:
    domain: Node
    workers: list[Node]
    url: str
    stranger: Path  # an authority that the ingress' certificate is not from


@pytest.fixture(scope="module")
def remote(grid: Grid, certificates: Certificates, client: Client, tmp_path_factory: Any) -> Iterator[Remote]:
    """alice on PostgreSQL, and two Workers that have nothing in common with her but the database and the network."""
    with contextlib.closing(Postgresql()) as postgresql, ingress(grid.home, certificates, port := free_port()) as url:
        postgresql.make_database("alice")
        trust = grid.home / "trust.pem"
        trust.write_text(certificates.authority.read_text() + postgresql.authority.read_text())
        secured = {"trust_file": str(trust), "database_tls": True}
        domain = grid.node("domain", "alice", database_url=postgresql.url("alice", "alice"), **secured)
        domain.port = domain.settings["listen"]["port"] = port
        workers = []
        for name in ("alice-w1", "alice-w2"):
            postgresql.make_member(name, "alice")
            worker = grid.worker(domain, name, **secured)
            worker.settings.pop("blob_directory")
            worker.settings |= {
                "blobs": {"kind": "domain", "url": url},
                "database_url": postgresql.url(name, "alice"),
            }
            workers.append(worker)
        for node in (domain, *workers):
            node.start(wait=False)
        for node in (domain, *workers):
            node.wait_until_ready()
        seed(client, domain, grid.home, DATASET_BYTES)
        yield Remote(domain, workers, url, postgresql.stranger)
        for node in (*workers, domain):
            node.discard()


def wait_busy(remote: Remote, number: int) -> None:
    """Wait until so many Workers run a job."""
    end = time.monotonic() + 60
    while sum(bool(worker.http("GET", "/status")[1].get("job")) for worker in remote.workers) < number:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_jobs_read_and_write_blobs_of_a_domain_on_another_host(remote: Remote, client: Client) -> None:
    jobs = []
    for number in (1, 2):
        jobs.append(client.run(START, seconds=8.0))
        wait_busy(remote, number)
    assert [client.run(FINISH, name=name) for name in jobs] == [True, True]
    for worker in remote.workers:
        sizes = [path.stat().st_size for path in own_copies(worker)]
        assert len([size for size in sizes if size > DATASET_BYTES // 2]) == 2, "the dataset and the result"
        assert not list((worker.home / "data" / "blobs").rglob("*")), "nothing as if it shared the Domain's folder"
    kept = [path.stat().st_size for path in (remote.domain.home / "data" / "blobs").iterdir()]
    assert len([size for size in kept if size > DATASET_BYTES // 2]) == 3, "the dataset and two results"


def test_a_restart_of_the_domain_while_a_job_runs_costs_nothing(remote: Remote, client: Client) -> None:
    name = client.run(START, seconds=3.0)
    wait_busy(remote, 1)
    remote.domain.stop()
    time.sleep(3)  # the job ends meanwhile, and its result has nowhere to go
    remote.domain.start()
    assert client.run(FINISH, name=name) is True


def test_a_worker_off_the_list_gets_nothing(remote: Remote, syft_python: str) -> None:
    first, second = remote.workers
    name = next(path.name for path in (remote.domain.home / "data" / "blobs").iterdir() if path.name[0] != ".")
    read = f"[store.problem(), tried(lambda: len(store.read({name!r})))]"
    problem, size = ask_store(syft_python, second, read)
    assert problem == ""
    assert int(size) > 1_000_000
    change_list(remote.domain, first)
    try:
        problem, refused = ask_store(syft_python, second, read)
        assert "not on the Domain's list (workers.json)" in problem
        assert refused == f"BlobError: {problem}"
        assert ask_store(syft_python, first, "store.problem()") == ""
    finally:
        change_list(remote.domain, first, second)


def test_a_server_that_the_grids_authority_does_not_know_gets_nothing(remote: Remote, syft_python: str) -> None:
    worker = remote.workers[0]
    settings_file = worker.home / "settings.json"
    trusting = settings_file.read_text()
    settings_file.write_text(json.dumps({**json.loads(trusting), "trust_file": str(remote.stranger)}))
    try:
        assert "does not trust the certificate of https://" in ask_store(syft_python, worker, "store.problem()")
    finally:
        settings_file.write_text(trusting)


def test_the_channel_is_closed_to_everybody_else(remote: Remote, certificates: Certificates) -> None:
    for path in ("", "0" * 32, "..%2fnode.db", "%2e%2e/%2e%2e/identity.json"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            https(certificates, f"{remote.url}/internal/blobs/{path}")


def test_user_code_finds_no_queue_key(remote: Remote) -> None:
    for worker in remote.workers:
        assert worker.process is not None
        for pid in (worker.process.pid, *_children(worker.process.pid)):
            for what in ("cmdline", "environ"):
                content = Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
                assert worker.secrets["queue_secret_key"] not in content


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_certificate_is_shown_to_a_server_that_asks(certificates: Certificates, syft_python: str) -> None:
    port, file = free_port(), certificates.folder / "mutual.cfg"
    file.write_text(
        f"""
defaults
    mode http
    timeout connect 2s
    timeout client 9s
    timeout server 9s
frontend in
    bind 127.0.0.1:{port} ssl crt {certificates.pair} ca-file {certificates.authority} verify required
    http-request return status 200 content-type text/plain lf-string %[ssl_c_s_dn(CN)]
"""
    )
    variables = {**os.environ, "PYTHONPATH": str(RUNTIME), "REQUESTS_CA_BUNDLE": str(certificates.authority)}
    command = [syft_python, "-c", SHOW, f"https://127.0.0.1:{port}"]
    with running("haproxy", "-db", "-f", file, port=port):
        options = {"env": variables, "capture_output": True, "text": True}
        shown = subprocess.run([*command, str(certificates.pair)], check=False, **options)
        assert shown.stdout == "node\n", shown.stderr[-500:]
        assert "certificate required" in subprocess.run(command, check=False, **options).stderr


@pytest.fixture(scope="module")
def s3_server(grid: Grid, certificates: Certificates) -> Iterator[str]:
    """An S3 server of somebody else's making, with TLS and an empty bucket; gives its URL."""
    beside = str(Path(sys.executable).parent)
    program = shutil.which("moto_server", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    assert program, "moto_server is missing: pip install moto[server]"
    port = free_port()
    tls = ("-c", certificates.certificate, "-k", certificates.key)
    with running(program, "-H", "127.0.0.1", "-p", str(port), *tls, port=port):
        url = f"https://127.0.0.1:{port}"
        assert https(certificates, f"{url}/blobs", "PUT") == 200
        yield url


@pytest.fixture(scope="module")
def s3(grid: Grid, certificates: Certificates, s3_server: str, client: Client) -> Iterator[tuple[Node, Node]]:
    """bob and his Worker, whose blobs are in a bucket."""
    domain = grid.node("domain", "bob", trust_file=str(certificates.authority))
    worker = grid.worker(domain, "bob-w1", trust_file=str(certificates.authority))
    worker.settings.pop("blob_directory")
    for node in (domain, worker):
        file = node.home / "s3.json"
        file.touch(0o600)
        credentials = {
            "endpoint": s3_server, "region": "eu-central-1", "bucket": "blobs", "prefix": "grid/bob",
            "access_key": "bob", "secret_key": "the-secret-of-bob",
        }  # fmt: skip
        file.write_text(json.dumps(credentials))
        node.settings["blobs"] = {"kind": "s3", "credentials_file": str(file)}
        node.start(wait=False)
    for node in (domain, worker):
        node.wait_until_ready()
    seed(client, domain, grid.home, DATASET_BYTES // 2)
    yield domain, worker
    for node in (worker, domain):
        node.discard()


def test_jobs_read_and_write_blobs_in_a_bucket(s3: tuple[Node, Node], client: Client, syft_python: str) -> None:
    domain, worker = s3
    assert client.run(FINISH, name=client.run(START, seconds=0.0)) is True
    assert not list((domain.home / "data" / "blobs").iterdir())
    assert len(own_copies(worker)) == 2
    for node in s3:
        assert "the-secret-of-bob" not in node.log
    name = own_copies(worker)[0].name.partition("@")[0]
    expressions = {
        "store.problem()": "",
        f"store.read({name!r}) == store._cache.get({name!r}, store._cache.version({name!r}))": True,
        "tried(store.read, '0' * 32)": f"BlobMissing: there is no blob {'0' * 32}",
        "tried(store.delete, '0' * 32)": f"BlobMissing: there is no blob {'0' * 32}",
        "(store.write('1' * 32, b'one'), store.write('1' * 32, b'two'), store.read('1' * 32).decode())[2]": "two",
        "(store.delete('1' * 32), tried(store.read, '1' * 32))[1]": f"BlobMissing: there is no blob {'1' * 32}",
    }
    assert ask_store(syft_python, worker, f"[{', '.join(expressions)}]") == list(expressions.values())


def test_a_bucket_that_cannot_be_used_is_said_so(s3: tuple[Node, Node], syft_python: str, grid: Grid) -> None:
    _domain, worker = s3
    file = worker.home / "s3.json"
    good = json.loads(file.read_text())
    try:
        for changes, expected in (
            ({"bucket": "other"}, "cannot use bucket other at https://127.0.0.1:"),
            ({"endpoint": f"https://127.0.0.1:{free_port()}"}, "EndpointConnectionError"),
        ):
            file.write_text(json.dumps({**good, **changes}))
            assert expected in ask_store(syft_python, worker, "store.problem()")
        file.write_text(json.dumps({**good, "endpoint": "http://s3.example"}))
        with pytest.raises(AssertionError, match="blobs never cross a network unencrypted"):
            ask_store(syft_python, worker, "store.problem()")
    finally:
        file.write_text(json.dumps(good))
