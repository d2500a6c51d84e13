#!/usr/bin/python3
"""Which copy may become whose data, on real servers: what does not fit is refused before anything is touched, and names what would."""

import sys

from testsite import *  # noqa: F403


def refused(call, *words):
    try:
        call()
    except RpcError as e:
        check_equal(e.code, "FAILED_PRECONDITION", "code of the refusal")
        text = f"{e.message} {e.hint}"
        for word in words:
            check(word in text, f"the refusal does not say {word!r}: {text}")
        return
    raise AssertionError(f"not refused: {words}")


def state_of(server):
    return server.checksums(), server.schema(), server.pid(), sorted(p.name for p in server.data.iterdir())


def replica_older_than_source():
    with Site("older", engine="11.8-to-10.11") as site:
        source, target = site.server("source", 1), site.server("target", 2, role="replica")
        seed_small(source)
        old, new = source.value("SELECT @@version").split("-")[0], target.value("SELECT @@version").split("-")[0]
        source_agent = site.agent(source, config={"mysql": {"tools_dir": None}})
        target_agent = site.agent(target)
        with step("the tool of another series"):
            refused(
                lambda: site.call(source_agent, "get_replication_snapshot"),
                "does not fit",
                f"mariadb-{old}",
                old.rsplit(".", 1)[0],
            )
            source_agent.stop()
            source_agent.write_config({"mysql": {"tools_dir": str(source.tools)}})
            source_agent.start()
        with step("a replica older than its source"):
            snapshot = site.call(source_agent, "get_replication_snapshot")
            before = state_of(target)
            refused(
                lambda: site.call(target_agent, "attach_replication_slave", {"snapshot": snapshot}),
                "cannot be older",
                old,
                new,
            )
            check_equal(state_of(target), before, "the target after the refusal")
            check_equal(site.leftovers(target_agent), [], "left by the refusal")
            check_equal(
                site.call(target_agent, "get_replication_status")["verdict"], "standalone", "verdict of the target"
            )


def other_page_size():
    """What prepare must know of the copy stands in the copy."""
    with Site("pages") as site:
        options = ["innodb-page-size=8k", "innodb-undo-tablespaces=2"]
        source, target = site.server("source", 1, options=options), site.server("target", 2, options=options)
        seed_small(source)
        agents = [site.agent(source), site.agent(target)]
        snapshot = site.call(agents[0], "get_replication_snapshot")
        site.call(agents[1], "attach_replication_slave", {"snapshot": snapshot})
        _, sums = at_one_position(source, [target], lambda s: s.checksums())
        assert_same("checksums", [source, target], sums)


def main():
    def rows(_):
        with step("pages of another size"):
            other_page_size()
        replica_older_than_source()
        log("pairs: good")

    return run_row("11.8-to-10.11", rows)


if __name__ == "__main__":
    sys.exit(main())
