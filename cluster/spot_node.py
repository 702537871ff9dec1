"""A spot machine of AWS as a node of Ray: ``python spot_node.py --address HEAD:6379``.

AWS tells two minutes ahead that it takes a spot machine back, to those that ask. Ray does not ask,
but a ``ray start --block`` that gets SIGTERM drains its node first: trainings are told and write a
checkpoint, and the loss is not counted as a failure. This asks every five seconds and sends that
signal. Arguments are those of ``ray start``. Nothing but Python's own library, so that any image
runs it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

SERVICE = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
DRAIN_S = "100"  # of the two minutes; Ray's own budget is 30
EVERY_S = 5.0


def is_told() -> bool:
    """Whether the machine is to be taken back. A service that does not answer says nothing."""
    try:
        token = _ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
        _ask("GET", "/latest/meta-data/spot/instance-action", "X-aws-ec2-metadata-token", token)
    except OSError:  # 404 while there is nothing to tell
        return False
    return True


def _ask(method: str, path: str, header: str, value: str) -> str:
    request = urllib.request.Request(SERVICE + path, method=method, headers={header: value})
    with urllib.request.urlopen(request, timeout=2) as answer:
        return answer.read().decode()


def main(arguments: list[str], every_s: float = EVERY_S) -> int:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    environment = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": DRAIN_S, **os.environ}
    node = subprocess.Popen(["ray", "start", "--block", *arguments], env=environment)
    while node.poll() is None:
        if ended.is_set() or is_told():
            node.terminate()
            return node.wait()
        ended.wait(every_s)
    return node.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
