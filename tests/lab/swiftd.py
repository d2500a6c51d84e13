#!/usr/bin/python3
"""Runs one Swift daemon, or makes the rings, with its configuration below a directory of its own: swiftd.py ETC ROLE [ARG…]"""

import sys

import swift.common.utils as utils

# Importing it has read /etc/swift/swift.conf (the hash path!): this forgets that, so it comes before any other import of Swift's.
utils.set_swift_dir(sys.argv[1])


def make_rings(etc, policies, object_port, container_port, account_port):
    from swift.common.ring import RingBuilder

    rings = [("account", account_port), ("container", container_port)]
    rings += [("object" if i == 0 else f"object-{i}", object_port) for i in range(policies)]
    for name, port in rings:
        builder = RingBuilder(4, 1, 0)
        builder.add_dev(
            {
                "id": 0,
                "region": 1,
                "zone": 1,
                "weight": 100.0,
                "ip": "127.0.0.1",
                "port": port,
                "device": "d1",
                "meta": "",
                "replication_ip": "127.0.0.1",
                "replication_port": port,
            }
        )
        builder.rebalance(seed="lab")
        builder.get_ring().save(f"{etc}/{name}.ring.gz")


def run_server(role, conf):
    from swift.common.wsgi import run_wsgi

    how = {}
    if role == "object-server":
        from swift.obj import server

        how["global_conf_callback"] = server.global_conf_callback
    return run_wsgi(conf, role, verbose=True, **how)


def run_daemon(role, conf):
    from swift.common.daemon import run_daemon as run

    if role == "object-expirer":
        from swift.obj.expirer import ObjectExpirer as Daemon
    elif role == "object-updater":
        from swift.obj.updater import ObjectUpdater as Daemon
    else:
        from swift.container.updater import ContainerUpdater as Daemon
    run(Daemon, conf, section=role, verbose=True)


if __name__ == "__main__":
    etc, role, *args = sys.argv[1:]
    if role == "rings":
        make_rings(etc, *map(int, args))
    elif role.endswith("-server"):
        sys.exit(run_server(role, *args))
    else:
        run_daemon(role, *args)
