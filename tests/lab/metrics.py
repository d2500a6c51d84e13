"""What a role answers at /metrics, as Prometheus reads it."""

import subprocess


def check_metrics(text):
    """Fails where promtool finds an error or has an advice."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0 or done.stdout:
        raise AssertionError(f"promtool check metrics: {done.stdout.decode()}\n{text.decode()}")
