"""What benchmarks read."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from load import seed  # noqa: E402
from mariadb import ME, MariaDB  # noqa: E402

LARGEST_SOURCE_MIB = 1024


def xbstream(scratch, path, mib):
    """Writes at least `mib` MiB of a real server's copy to `path`: one copy, again and again if that takes more than a gigabyte.
    No codec looks back that far."""
    server = MariaDB(scratch, "input", 1, log_bin=False).initialise().start()
    seed(server, min(mib, LARGEST_SOURCE_MIB), quiet=True)
    one = path.with_suffix(".one")
    with open(one, "wb") as out:
        done = scratch.run(
            [
                "mariadb-backup",
                "--no-defaults",
                "--backup",
                "--stream=xbstream",
                f"--socket={server.socket}",
                f"--user={ME}",
                f"--target-dir={scratch.dir / 'tmp'}",
            ],
            stdout=out,
            stderr=subprocess.PIPE,
        )
    if done.returncode:
        raise RuntimeError(
            f"mariadb-backup: exit status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
        )
    server.stop()
    subprocess.run(["rm", "-rf", server.dir], check=True)
    with open(path, "wb") as out:
        while out.tell() < mib << 20:
            subprocess.run(["cat", one], stdout=out, check=True)
            out.seek(0, 2)
    one.unlink()
    return path
