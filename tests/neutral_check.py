#!/usr/bin/python3
"""Fails on a word of an engine in what serves every engine: only the table of datastores, and what is below it, may know one.

neutral_check.py [ROOT]       checks a tree (this one)
neutral_check.py --self-test  checks that each word is found, whatever its case and the kind of file
"""
import re
import sys
import tempfile
from pathlib import Path

EVERYWHERE = "mysql|mariadb|gtid|bin(?:ary[_ ]?)?log|sql[_ ]thread|io[_ ]thread|relay[_ ]log|innodb|server_uuid|os_user"
# What each layer may not say. The controller gives its instances a server_id of its own, by its API.
NEUTRAL = {
    "agent": re.compile(EVERYWHERE + "|server[_ ]?id", re.IGNORECASE),
    "controller": re.compile(EVERYWHERE, re.IGNORECASE),
}


def check(root):
    problems, files = [], 0
    for layer, words in NEUTRAL.items():
        for file in sorted((root / layer).rglob("*")):
            if not file.is_file():
                continue
            files += 1
            path = file.relative_to(root).as_posix()
            for number, line in enumerate([path, *file.read_text(errors="replace").splitlines()]):
                for word in words.findall(line):
                    problems.append(f'{path}:{number}: "{word}" is a word of an engine: ask the datastore for it')
    return files, problems


GOOD = {
    "agent/server.cc": "settings.datastore\n",
    "controller/page/graph.js": "const source = replication.slave_of;\n",
    "controller/model.h": "std::uint64_t server_id = 0;\n",
    "strategies/datastores.cc": '{"mysql"},\n',
}
BAD = [
    ("agent/server.cc", "settings.mysql.data_dir"),
    ("agent/server.cc", "const MysqlSettings& settings"),
    ("agent/commands/help.txt", "a MariaDB server"),
    ("controller/views.cc", 'out.key("binlog_position")'),
    ("agent/metrics.cc", 'status.opt_string("io_thread")'),
    ("agent/operation_plans.cc", 'status.opt_string("sql_thread")'),
    ("agent/params.cc", 'config->opt_uint("server_id", 1, UINT32_MAX)'),
    ("agent/cmd_doctor.cc", "choose_server_id(asked)"),
    ("agent/cmd_doctor.cc", '"the source has this server id too"'),
    ("agent/operations.cc", 'out.member("server_uuid", server.uuid)'),
    ("agent/host_checks.cc", "needs.os_user_key"),
    ("agent/operation_plans.cc", '"the SQL thread applies what was received"'),
    ("agent/operation_plans.cc", '"end its lease on the binary logs"'),
    ("agent/metrics.cc", '"Room that the relay logs take."'),
    ("agent/status_json.cc", "status.relay_log_bytes"),
    ("controller/views.cc", 'out.key("server_uuid")'),
    ("controller/page/graph.js", "instance.GTID"),
    ("controller/mysql_views.cc", "out.end_object()"),
]


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def self_test():
    failures = 0
    for bad in [None, *BAD]:
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            for path, text in GOOD.items():
                write(root, path, text)
            if bad:
                write(root, bad[0], bad[1] + "\n")
            problems = check(root)[1]
            if len(problems) != (1 if bad else 0):
                failures += 1
                print(f"{bad}: found {problems}")
    print(f"neutral_check self-test: {len(BAD) + 1} cases, {failures} failed")
    return failures


def main(arguments):
    if arguments == ["--self-test"]:
        return 1 if self_test() else 0
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    files, problems = check(root)
    for problem in problems:
        print(problem)
    if files == 0:
        print(f"{root}: no file of {' or '.join(NEUTRAL)} found")
        return 1
    print(f"neutral_check: {files} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
