#!/usr/bin/python3
"""Fails on an include that breaks the layers, or that takes a third-party library out of its adapter files.

include_check.py [ROOT]       checks a tree (this one)
include_check.py --self-test  checks that every rule here can be broken, and is then found
"""
import re
import sys
import tempfile
from pathlib import Path

# What each layer may include beside itself.
LAYERS = {
    "base": set(),
    "stream": {"base"},
    "net": {"base", "stream"},
    "config": {"base"},
    "storage": {"base", "net", "stream", "config"},
    "strategies": {"base", "stream", "config"},
    "agent": {"base", "net", "stream", "config", "storage", "strategies"},
    # The controller is a role of the same binary, but talks to agents by RPC only.
    "controller": {"base", "net", "stream", "config"},
}
# The program's main alone knows both roles.
EXCEPTIONS = {("agent/main.cc", "controller")}

# The tables that name the children of a layer; nobody else above a child's folder includes it.
TABLES = {"storage": "storage/stores.cc", "strategies": "strategies/datastores.cc"}
# The wings of a child: each may include those before it, and what is beside them all of them.
WINGS = {"strategies/mysql": ("server", "host", "copy", "source", "follow", "install")}
# Folders that are no stores but shared by some.
SHARED = {"storage/http": {"storage/swift", "storage/s3"}}

HTTP_FILES = r"net/http_(server|session|message)\.(h|cc)"
# (what is included, where it may be, in how many files at most)
LIBRARIES = [
    (r"curl/", r"net/(http_client|curl_failure)\.(h|cc)", None),
    (r"(cppconn/|mysql_|mysql/|mariadb/|mysql\.h|conncpp)", r"strategies/mysql/.*\.cc", 1),
    (r"yaml-cpp/", r"config/yaml\.cc", None),
    (r"boost/(beast|asio)", HTTP_FILES, None),
    (r"boost/program_options", r"(agent|controller)/.*", None),
    (r"archive(_entry)?\.h", r"stream/.*", None),
    (r"zlib\.h", r"stream/crc32\.cc", 1),
    (r"xxhash\.h", r"(stream|strategies)/.*", None),
    (r"(spdlog|fmt)/", r"base/log\.cc", None),
    (r"rapidjson/", r"base/json\.(h|cc)", None),
    (r"sqlite3\.h", r"controller/.*", 1),
    (r"openssl/", r"(net|stream|storage|strategies|agent|controller)/.*", None),
    (r"systemd/", r"(net|strategies|agent|controller)/.*", None),
    (r"prometheus/", r"(agent|controller)/.*", None),
]
SYSTEM = re.compile(r"[a-z0-9_]+|[a-z0-9_]+\.h|(sys|net|netinet|arpa|linux|asm)/[a-z0-9_]+\.h")
# Libraries that look like headers of the system.
FOREIGN = re.compile(r"(zstd|zdict|lz4|lz4hc|lz4frame|zlib|lzma|bzlib|yaml|gtest|gmock|jansson|pq-fe|libpq-fe)\.h")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def folder_of(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def wing_problem(path, included, child):
    wings = WINGS.get(child)
    if not wings or path.count("/") < 3:
        return None
    mine, theirs = path.split("/")[2], included.split("/")[2]
    if mine not in wings:
        return f"{child}/{mine} is none of its wings ({', '.join(wings)})"
    if theirs in wings and wings.index(theirs) <= wings.index(mine):
        return None
    return f"{mine}/ must not include {theirs}: it may include {', '.join(wings[:wings.index(mine) + 1])}"


def own_include_problem(path, included, root):
    layer, target = path.split("/")[0], included.split("/")[0]
    if target not in LAYERS:
        return 'write project includes from the root: "layer/file.h"'
    if not (root / included).is_file():
        return "there is no such file"
    if target != layer:
        if (path, target) in EXCEPTIONS or target in LAYERS[layer]:
            pass
        else:
            return f"{layer}/ must not include {target}/"
    mine, theirs = folder_of(path), folder_of(included)
    if mine == theirs:
        return wing_problem(path, included, mine)
    if "/" not in theirs:
        return None
    # A child's folder, seen from outside of it.
    if mine in SHARED.get(theirs, ()):
        return None
    if mine == target:
        return None if TABLES.get(target) == path else f"only {TABLES.get(target)} may name the children of {target}/"
    if mine.split("/")[0] == target:
        return f"{mine}/ must not include its sibling {theirs}/"
    return f"{theirs}/ is private to {target}/: go through {target}/*.h"


def library_problem(path, included, users):
    for pattern, place, most in LIBRARIES:
        if not re.match(pattern, included):
            continue
        if not re.fullmatch(place, path):
            return f"{included} is confined to {place}"
        if most is not None:
            users.setdefault((pattern, most), set()).add(path)
        return None
    if FOREIGN.fullmatch(included) or not SYSTEM.fullmatch(included):
        return f"{included} belongs to no library that the project knows; add it to LIBRARIES with its place"
    return None


def cycles(graph):
    """Paths of headers that include each other."""
    found, state, trail = [], {}, []

    def visit(node):
        state[node] = "open"
        trail.append(node)
        for other in graph.get(node, ()):
            if state.get(other) == "open":
                found.append(" -> ".join(trail[trail.index(other) :] + [other]))
            elif other not in state:
                visit(other)
        trail.pop()
        state[node] = "done"

    for node in sorted(graph):
        if node not in state:
            visit(node)
    return found


def check(root):
    root = Path(root)
    problems, users, graph, files = [], {}, {}, 0
    for layer in LAYERS:
        for file in sorted((root / layer).rglob("*")):
            if file.suffix not in (".h", ".cc", ".hpp", ".cpp") or not file.is_file():
                continue
            files += 1
            path = file.relative_to(root).as_posix()
            for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                kind, included = match.groups()
                if kind == '"':
                    problem = own_include_problem(path, included, root)
                    graph.setdefault(path, []).append(included)
                else:
                    problem = library_problem(path, included, users)
                if problem:
                    problems.append(f"{path}:{number}: {problem}")
    for (pattern, most), paths in users.items():
        if len(paths) > most:
            problems.append(f"{pattern} is confined to {most} file, but is in {', '.join(sorted(paths))}")
    problems += [f"includes go in a circle: {cycle}" for cycle in cycles(graph)]
    return files, problems


GOOD = {
    "base/error.h": "#include <string>\n#include <sys/stat.h>\n",
    "base/log.cc": "#include <spdlog/logger.h>\n",
    "base/json.h": "#include <rapidjson/document.h>\n",
    "stream/codec.h": '#include "base/error.h"\n',
    "stream/codec.cc": '#include <archive.h>\n#include "stream/codec.h"\n',
    "config/settings.h": '#include "base/error.h"\n',
    "config/yaml.cc": "#include <yaml-cpp/parser.h>\n",
    "storage/object_store.h": '#include "stream/codec.h"\n',
    "storage/stores.h": '#include "storage/object_store.h"\n',
    "storage/stores.cc": '#include "storage/swift/swift_store.h"\n#include "storage/local/local_store.h"\n',
    "storage/http/client.h": '#include "base/error.h"\n',
    "storage/http/client.cc": '#include "net/http_client.h"\n',
    "net/http_client.h": '#include "stream/codec.h"\n',
    "net/http_client.cc": "#include <curl/curl.h>\n",
    "storage/swift/swift_store.h": '#include "storage/object_store.h"\n#include "storage/http/client.h"\n',
    "storage/s3/s3_store.h": '#include "storage/http/client.h"\n',
    "storage/local/local_store.h": '#include "storage/object_store.h"\n',
    "strategies/datastore.h": '#include "stream/codec.h"\n',
    "strategies/datastores.cc": '#include "strategies/mysql/mysql_datastore.h"\n',
    "strategies/mysql/mysql_datastore.h": '#include "strategies/datastore.h"\n',
    "strategies/mysql/server/gtid.h": '#include "base/error.h"\n',
    "strategies/mysql/copy/tool_copy.h": '#include "strategies/mysql/server/gtid.h"\n',
    "strategies/mysql/server/connection.cc": "#include <cppconn/statement.h>\n#include <mysql_connection.h>\n",
    "net/http_session.cc": "#include <boost/beast/http.hpp>\n",
    "agent/server.cc": '#include "storage/stores.h"\n#include "strategies/datastore.h"\n',
    "agent/main.cc": '#include "controller/controller.h"\n',
    "controller/controller.h": '#include "base/error.h"\n',
    "controller/state.cc": '#include <sqlite3.h>\n#include "config/settings.h"\n',
}
# Each must be found, by the words of its message.
BAD = [
    ("base/bad.cc", '#include "stream/codec.h"', "base/ must not include stream/"),
    ("base/bad.cc", "#include <spdlog/logger.h>", "confined to"),
    ("stream/bad.cc", '#include "config/settings.h"', "stream/ must not include config/"),
    ("stream/bad.cc", "#include <rapidjson/document.h>", "confined to"),
    ("stream/bad.cc", "#include <zstd.h>", "no library that the project knows"),
    ("config/bad.cc", '#include "stream/codec.h"', "config/ must not include stream/"),
    ("config/bad.cc", "#include <yaml-cpp/yaml.h>", "confined to"),
    ("storage/bad.cc", '#include "strategies/datastore.h"', "storage/ must not include strategies/"),
    ("storage/bad.cc", '#include "storage/swift/swift_store.h"', "only storage/stores.cc may name the children"),
    ("storage/bad.cc", '#include "storage/http/client.h"', "only storage/stores.cc may name the children"),
    ("storage/bad.cc", "#include <curl/curl.h>", "confined to"),
    ("storage/local/bad.cc", '#include "storage/http/client.h"', "must not include its sibling"),
    ("storage/swift/bad.cc", '#include "storage/local/local_store.h"', "must not include its sibling"),
    ("storage/http/bad.cc", "#include <curl/curl.h>", "confined to"),
    ("controller/bad.cc", "#include <curl/curl.h>", "confined to"),
    ("net/bad.cc", "#include <curl/curl.h>", "confined to"),
    ("net/bad.cc", '#include "config/settings.h"', "net/ must not include config/"),
    ("stream/bad.cc", '#include "net/http_client.h"', "stream/ must not include net/"),
    ("storage/http/bad.cc", '#include "storage/swift/swift_store.h"', "must not include its sibling"),
    ("strategies/bad.cc", '#include "storage/object_store.h"', "strategies/ must not include storage/"),
    ("strategies/bad.cc", '#include "strategies/mysql/mysql_datastore.h"', "only strategies/datastores.cc may name"),
    ("strategies/mysql/bad.cc", '#include "agent/server.h"', "there is no such file"),
    ("strategies/mysql/bad.cc", "#include <archive.h>", "confined to"),
    ("strategies/mysql/bad.cc", "#include <cppconn/driver.h>", "confined to 1 file"),
    ("strategies/mysql/server/bad.cc", '#include "strategies/mysql/copy/tool_copy.h"', "server/ must not include copy"),
    (
        "strategies/mysql/copy/bad.cc",
        '#include "strategies/mysql/mysql_datastore.h"',
        "copy/ must not include mysql_datastore.h",
    ),
    ("strategies/mysql/attic/bad.cc", '#include "strategies/mysql/server/gtid.h"', "none of its wings"),
    ("agent/bad.cc", '#include "strategies/mysql/mysql_datastore.h"', "is private to strategies/"),
    ("agent/bad.cc", '#include "controller/controller.h"', "agent/ must not include controller/"),
    ("agent/bad.cc", "#include <boost/beast/http.hpp>", "confined to"),
    ("agent/bad.cc", "#include <sqlite3.h>", "confined to"),
    ("agent/bad.cc", '#include "server.h"', "from the root"),
    ("agent/bad.cc", "#include <boost/filesystem.hpp>", "no library that the project knows"),
    ("controller/bad.cc", '#include "agent/server.h"', "there is no such file"),
    ("controller/bad.cc", '#include "storage/object_store.h"', "controller/ must not include storage/"),
    ("controller/bad.cc", '  #  include "strategies/datastore.h"', "controller/ must not include strategies/"),
    ("base/error.h", '#include "base/error.h"', "in a circle"),
]


def write_tree(root, extra=None):
    for path, text in GOOD.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if extra:
        path, line = extra
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + line + "\n")


def self_test():
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        good = Path(temporary) / "good"
        write_tree(good)
        problems = check(good)[1]
        if problems:
            failures += 1
            print("the good tree is refused:", *problems, sep="\n  ")
        for number, (path, line, words) in enumerate(BAD):
            bad = Path(temporary) / str(number)
            write_tree(bad, (path, line))
            problems = check(bad)[1]
            if len(problems) != 1 or words not in problems[0]:
                failures += 1
                print(f'{path}: {line}: expected one problem with "{words}", found {problems}')
    print(f"include_check self-test: {len(BAD) + 1} cases, {failures} failed")
    return failures


def main(arguments):
    if arguments == ["--self-test"]:
        return 1 if self_test() else 0
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    files, problems = check(root)
    for problem in problems:
        print(problem)
    if files == 0:
        print(f"{root}: no source file found")
        return 1
    print(f"include_check: {files} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
