"""URLs that make no sense are refused by a named error, which says what to write instead."""

from __future__ import annotations

import subprocess
import sys

import pytest
from celery import Celery
from kombu import Connection

import phonon_kombu
from phonon_kombu.errors import ConfigurationError
from tests.kombu.exam import Broker
from tests.servers import RedisServer, free_port

assert phonon_kombu.__version__

#: URL -> what its refusal must say, for brokers.
BROKERS = {
    "phonon://localhost:abc/0": "port.*1 to 65535",
    "phonon://localhost:70000/0": "port.*1 to 65535",
    "phonon://localhost:0/0": "port.*1 to 65535",
    "phonon://localhost/x": "database 'x'",
    "phonon://localhost/-3": "database '-3'",
    f"phonon://localhost/{2**70}": "database",
    "phonon://localhost/0?foo=bar": "'foo'.*there are",
    "phonon://localhost/0?db=3": "'db'.*phonon://host:6379/0",
    "phonon://localhost/0?virtual_host=3": "'virtual_host'.*phonon://host:6379/0",
    "phonon://localhost/0?socket_timeout=abc": "'socket_timeout'.*broker_transport_options",
    "phonon://localhost/0?socket_timeot=1": "Did you mean 'socket_timeout'",
    "phonon://localhost/0?heartbeat=soon": "heartbeat='soon'",
    "phonon://localhost/0?port=3": "'port'",
    "phonons://localhost/0?ssl_cert_reqs=BOGUS": "BOGUS.*CERT_REQUIRED",
    "phonons://localhost/0?ssl_cert_req=none": "Did you mean 'ssl_cert_reqs'",
    "phonons://localhost/0?ssl_check_hostname=perhaps": "perhaps",
    "phonon+socket://": "path of a socket",
    "phonon+socket://tmp/redis.sock": "phonon\\+socket:///path",
    "phonon+socket:///tmp/x?foo=1": "'foo'",
    "phonon+socket:///tmp/x?db=1": "Did you mean 'virtual_host'",
    "phonon+socket:///tmp/x?virtual_host=x": "virtual_host='x'",
    "phonon+socket:///tmp/x?socket_timeout=1": "broker_transport_options",
    "phonon+sentinel://localhost:abc": "port",
    "phonon+sentinel://localhost/0?x=2": "'x'",
    "phonon+sentinel://localhost;phonon+sentinel://localhost:zz": "port",
    "phonon://localhost;phonon://localhost:zz": "port",
    "phonon+embedded:///tmp/never-made?foo=1": "'foo'",
    "phonon+embedded://:secret/x": "cannot be read",
    "phonon+socket://:secret/tmp/x": "cannot be read",
    "phonon+foo://localhost": "no URL form",
}

BACKENDS = {
    **{url: said for url, said in BROKERS.items() if "argument" not in said},
    "phonon://[::1/0": "cannot be read",
    "phonon://localhost;phonon://localhost:zz": "list of URLs",
    "phonon://localhost/0?db=x": "db='x'",
    "phonon://localhost/0?socket_timeout=abc": "socket_timeout='abc'",
    "phonon://localhost/0?max_connections=x": "max_connections='x'",
    "phonon://localhost/0?ssl_cert_reqs=none": "phonons://",
    "phonon://localhost/0?credential_provider=os.path": "credential_provider",
    "phonon+socket:///tmp/x?socket_timeout=abc": "socket_timeout='abc'",
}
for _url in ("?db=3", "?virtual_host=3", "?heartbeat=soon"):
    del BACKENDS[f"phonon://localhost/0{_url}"]
del BACKENDS["phonon+socket:///tmp/x?db=1"], BACKENDS["phonon+socket:///tmp/x?socket_timeout=1"]


@pytest.mark.parametrize(("url", "said"), BROKERS.items(), ids=BROKERS)
def test_a_brokers_url(url: str, said: str) -> None:
    options = {"master_name": "m"} if "sentinel" in url else {}
    with pytest.raises(ConfigurationError, match=said) as caught:
        Connection(url, transport_options=options).connect()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "said"), BACKENDS.items(), ids=BACKENDS)
def test_a_result_backends_url(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        assert Celery("shop", backend=url, set_as_current=False).backend


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "12/cret", "se?cret=x", "12?cret"])
def test_no_part_of_a_password_is_shown(password: str) -> None:
    url = f"phonon://:{password}@localhost:6379/0"
    with pytest.raises(ConfigurationError, match="%40") as caught:
        Connection(url).connect()
    assert "se" not in str(caught.value).replace("phonon", "").split("://")[0]
    assert "cret" not in str(caught.value)


def test_legal_arguments_of_all_forms(redis_server: RedisServer, redis_db: str) -> None:
    urls = [f"phonon://{redis_db}?connect_timeout=5&heartbeat=0&login_method=PLAIN"]
    if redis_server.socket_path:
        urls.append(f"phonon+socket://{redis_server.socket_path}?virtual_host=1&client_name=me")
    for url in urls:
        with Connection(url) as connection:
            connection.connect()
    backend = f"phonon://{redis_db}?socket_timeout=2.5&health_check_interval=5&max_connections=3"
    app = Celery("shop", backend=backend, set_as_current=False)
    app.backend.store_result("id", 5, "SUCCESS")
    assert app.backend.get_result("id") == 5


@pytest.mark.parametrize("url", ["phonon://localhost:abc/0", "phonon+socket://"])
def test_the_command_ends_with_status_2_and_a_sentence(url: str) -> None:
    command = [sys.executable, "-m", "celery", "-b", url, "phonon", "status"]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert outcome.returncode == 2, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "phonon" in outcome.stderr


@pytest.mark.parametrize(
    "imports",
    ["import phonon_kombu; from kombu import Connection", "import kombu.connection, phonon_kombu",
     "import kombu.serialization; from kombu import Connection"],
)  # fmt: skip
def test_whatever_is_imported_first(imports: str) -> None:
    program = (
        f"{imports}\n"
        "from kombu.connection import Connection\n"
        "try:\n    Connection('phonon://localhost:abc')\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print(Connection('redis://localhost:1/2').virtual_host)\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert outcome.stdout.split() == ["ConfigurationError", "2"]


@pytest.mark.phonon_only("stock loses the path of the socket")
@pytest.mark.real_server("fakeredis has no Unix socket")
def test_the_next_url_of_a_list_is_taken_as_the_first_is(broker: Broker) -> None:
    """kombu reads the first URL in one way and those that it fails over to in another."""
    second = f"phonon+socket://{broker.server.socket_path}?virtual_host=2"
    with Connection([f"phonon+socket:///nowhere/{free_port()}", second]) as connection:
        connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0)
        connection.Producer().publish("here", routing_key="q")
    assert broker.server.client(2).dbsize() > 0


@pytest.mark.parametrize(
    ("second", "shown"),
    [
        ("phonon+sentinel://b:26380/1", "phonon+sentinel://b:26380/1"),
        ("phonon+sentinel://me:secret@b:26380", "phonon+sentinel://me:**@b:26380/"),
        ("phonon+socket:///run/redis.sock", "phonon+socket:///run/redis.sock"),
    ],
)
def test_the_next_url_is_shown_as_it_is_written(second: str, shown: str) -> None:
    """Celery says it in its log when it cannot connect."""
    connection = Connection(f"phonon+sentinel://a:26379/1;{second}")
    connection.maybe_switch_next()
    assert connection.as_uri() == shown
