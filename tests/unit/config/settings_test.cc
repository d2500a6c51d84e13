#include "config/settings.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "base/file.h"
#include "config/datastore_names.h"
#include "config/settings_keys.h"
#include "config/yaml.h"
#include "storage/local/settings.h"
#include "storage/s3/settings.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"

namespace guestagent {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr std::string_view kMinimum = "mysql:\n  advertised_address: db1.example\n";

Settings parse(std::string_view yaml, std::string_view name) {
  return parse_settings(yaml, name, store_sections());
}

// All mistakes of a file, "accepted" when there is none.
std::string mistakes(const std::string& yaml) {
  try {
    parse(yaml, "f.yaml");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::invalid_argument);
    return e.what();
  }
  return "accepted";
}

// The same of a section beside what is required.
std::string mistakes_in(const std::string& section) {
  return mistakes(section + "\n" + std::string(kMinimum));
}

Settings with(const std::string& section) {
  return parse(section + "\n" + std::string(kMinimum), "f.yaml");
}

std::string in_mysql(const std::string& lines) {
  return "mysql:\n  advertised_address: db1\n" + lines;
}

TEST(Settings, DefaultDatastoreIsTheOneOfTheWire) {
  EXPECT_EQ(Settings{}.datastore, kDefaultDatastore);
}

TEST(Settings, TheLeastFileGivesTheDefaults) {
  Settings expected;
  expected.mysql.advertised_address = "db1.example";
  EXPECT_TRUE(parse(kMinimum, "f.yaml") == expected);
}

TEST(Settings, EveryKeyArrivesInItsPlace) {
  const Settings s = parse(R"(
agent:
  socket: /run/a.sock
  socket_mode: 0600
  allow_users: [trove, "back up"]
  allow_groups: ops
  state_dir: /srv/state/
  job_history_days: 3
  log: {level: debug, format: json}
  listen:
    address: "[::]:8443"
    certificate: /c.pem
    key: /k.pem
    client_ca: /ca.pem
    client_crl: /etc/guestagent/crl.pem
    allow_names: [controller]
snapshot:
  compression: lz4
  level: 3
  segment_size: 8MiB
  memory_limit: 96MiB
  workers: 2
  transfers: 6
  spill: {dir: /spill, max_size: 1GiB, keep_free: 2GiB}
  throttle: {upload: 50MiB, download: 60MiB/s, read: 1KiB}
  encryption:
    write_key: "2026"
    keys:
      - {id: 2025, file: /k/2025}
      - id: "2026"
        file: /k/2026
    allow_plain: true
storage:
  store: swift
  container: c1
  prefix: a/b
  local: {path: /store}
  swift:
    auth: v3
    auth_url: https://k:5000/v3
    user: u
    user_domain: ud
    key_file: /key
    project: p
    project_domain: pd
    region: r
    interface: internal
    storage_url: http://s:8080/v1/AUTH_x
    storage_policy: gold
    delete_after: 7d
    large_object: false
    tls: {ca_file: /ca, insecure: true}
  s3: {endpoint: "http://m:9000", region: eu, access_key_file: /akf, secret_key_file: /sk, session_token_file: /st, path_style: no, tls: {ca_file: /s3ca}}
  retry: {tries: 3, first_delay: 1s, max_delay: 1m}
  timeouts: {connect: 5s, stall: 7s}
datastore: mysql
mysql:
  advertised_address: 10.0.0.1
  advertised_port: 3307
  socket: /s.sock
  user: agent
  password_file: /pw
  tls: {ca_file: /dbca, certificate: /dbcert, key: /dbkey, verify: true}
  defaults_file: /my.cnf
  managed_file: /conf.d/z.cnf
  data_dir: /data/mysql
  staging_dir: /data/staging
  os_user: db
  server:
    control: commands
    unit: mysql.service
    start: [/start, now]
    stop: [/stop]
    command: [mysqld, --verbose]
    start_timeout: 1m
    stop_timeout: 2m
  backup_tool: clone
  tools_dir: /opt/tools
  backup_parallel: 5
  prepare_memory: 1GiB
  lock_wait: 5s
  freeze_limit: 2s
  require_tls: yes
  replication_ca_file: /rca
  replication_host: 10.1.%
  replication: position
  allow_restart: true
  keep_previous_data: true
  catch_up_timeout: 1m
  drain_timeout: 2m
  lag_limit: 3m
  lease_limit: 4m
)",
                           "f.yaml");
  Settings e;
  e.agent.socket = "/run/a.sock";
  e.agent.socket_mode = 0600;
  e.agent.allow_users = {"trove", "back up"};
  e.agent.allow_groups = {"ops"};
  e.agent.state_dir = "/srv/state";
  e.agent.job_history_days = 3;
  e.agent.log_level = LogLevel::debug;
  e.agent.log_format = LogFormat::json;
  e.agent.listen = {"[::]:8443", "/c.pem", "/k.pem", "/ca.pem", "/etc/guestagent/crl.pem", {"controller"}};
  e.snapshot.compression = "lz4";
  e.snapshot.level = 3;
  e.snapshot.segment_bytes = 8 << 20;
  e.snapshot.memory_limit = 96 << 20;
  e.snapshot.workers = 2;
  e.snapshot.transfers = 6;
  e.snapshot.spill = {"/spill", std::uint64_t{1} << 30, std::uint64_t{2} << 30};
  e.snapshot.throttle = {50 << 20, 60 << 20, 1024};
  e.snapshot.encryption = {"2026", {{"2025", "/k/2025"}, {"2026", "/k/2026"}}, true};
  e.storage.store = "swift";
  e.storage.container = "c1";
  e.storage.prefix = "a/b";
  e.storage.own.of<LocalStoreSettings>().path = "/store";
  SwiftSettings& swift = e.storage.own.of<SwiftSettings>();
  swift.auth = "v3";
  swift.auth_url = "https://k:5000/v3";
  swift.user = "u";
  swift.user_domain = "ud";
  swift.key_file = "/key";
  swift.project = "p";
  swift.project_domain = "pd";
  swift.region = "r";
  swift.interface = "internal";
  swift.storage_url = "http://s:8080/v1/AUTH_x";
  swift.storage_policy = "gold";
  swift.delete_after_s = 7 * 86400;
  swift.large_object = false;
  swift.tls = {"/ca", true};
  e.storage.own.of<S3Settings>() = {"http://m:9000", "eu", "", "/akf", "/sk", "/st", false, {"/s3ca", false}};
  e.storage.retry = {3, Millis(1000), Millis(60000)};
  e.storage.timeouts = {Millis(5000), Millis(7000)};
  MysqlSettings& m = e.mysql;
  m.advertised_address = "10.0.0.1";
  m.advertised_port = 3307;
  m.socket = "/s.sock";
  m.user = "agent";
  m.password_file = "/pw";
  m.tls = {"/dbca", "/dbcert", "/dbkey", true};
  m.defaults_file = "/my.cnf";
  m.managed_file = "/conf.d/z.cnf";
  m.data_dir = "/data/mysql";
  m.staging_dir = "/data/staging";
  m.os_user = "db";
  m.server = {"commands",    "mysql.service", {"/start", "now"}, {"/stop"}, {"mysqld", "--verbose"},
              Millis(60000), Millis(120000)};
  m.backup_tool = "clone";
  m.tools_dir = "/opt/tools";
  m.backup_parallel = 5;
  m.prepare_memory = std::uint64_t{1} << 30;
  m.lock_wait = Millis(5000);
  m.freeze_limit = Millis(2000);
  m.require_tls = "yes";
  m.replication_ca_file = "/rca";
  m.replication_host = "10.1.%";
  m.replication = "position";
  m.allow_restart = true;
  m.keep_previous_data = true;
  m.catch_up_timeout = Millis(60000);
  m.drain_timeout = Millis(120000);
  m.lag_limit = Millis(180000);
  m.lease_limit = Millis(240000);
  EXPECT_TRUE(s.agent == e.agent);
  EXPECT_TRUE(s.snapshot == e.snapshot);
  EXPECT_TRUE(s.storage == e.storage);
  EXPECT_TRUE(s.mysql == e.mysql);
}

TEST(Settings, AllMistakesAreToldAtOnceWithPathAndLine) {
  EXPECT_EQ(mistakes(R"(agent:
  soket: /x
  job_history_days: many
storage:
  store: swift
  swift:
    user: [a]
    tls:
      insecure: perhaps
  retry:
    first_delay: 5
mysql:
  data_dir: lib/mysql
datasore: mysql
)"),
            "f.yaml: agent.soket (line 2): unknown key (did you mean \"socket\"?)\n"
            "f.yaml: agent.job_history_days (line 3): must be a whole number from 1 to 3650, not \"many\"\n"
            "f.yaml: storage.swift.auth_url (line 6): required\n"
            "f.yaml: storage.swift.key_file (line 6): required for storage.swift.auth v1\n"
            "f.yaml: storage.swift.user (line 7): must be a text, not a list\n"
            "f.yaml: storage.swift.tls.insecure (line 9): must be true or false, not \"perhaps\"\n"
            "f.yaml: storage.retry.first_delay (line 11): must be a time with its unit, such as 500ms, 30s, "
            "10m, 24h or 7d, not \"5\"\n"
            "f.yaml: mysql.advertised_address (line 12): required\n"
            "f.yaml: mysql.data_dir (line 13): must be an absolute path\n"
            "f.yaml: datasore (line 14): unknown key (did you mean \"datastore\"?)");
}

TEST(Settings, AnEmptyFileLacksOneKey) {
  for (const char* text :
       {"", "\n\n", "# nothing\n", "---\n", "{}", "mysql:\n", "mysql: {}\n", "mysql:\n  advertised_address:\n",
        "mysql:\n  advertised_address: \"\"\n", "mysql:\n  advertised_address: null\n"}) {
    EXPECT_EQ(mistakes(text).substr(0, 34), "f.yaml: mysql.advertised_address (") << text;
    EXPECT_THAT(mistakes(text), testing::EndsWith("): required")) << text;
  }
}

TEST(Settings, AKeyWithoutAValueIsItsDefault) {
  EXPECT_TRUE(with("agent:\n  socket:\n  log:\nsnapshot:\nstorage: ~") == parse(kMinimum, "f"));
}

TEST(Settings, EveryKeyRefusesAWrongShape) {
  // No key takes a map of an unknown member, and all but lists and sections refuse a list of lists.
  for (const std::string& key : setting_keys(store_sections())) {
    for (const char* value : {"{surely: wrong}", "[[1]]"}) {
      std::string yaml, rest = key, indent;
      for (std::size_t dot; (dot = rest.find('.')) != std::string::npos; rest = rest.substr(dot + 1), indent += "  ") {
        yaml += indent + rest.substr(0, dot) + ":\n";
      }
      yaml += indent + rest + ": " + value + "\n";
      if (key.substr(0, 6) != "mysql.") yaml += kMinimum;
      EXPECT_THAT(mistakes(yaml), HasSubstr(key)) << yaml;
    }
  }
}

TEST(Settings, RangesAreChecked) {
  for (const char* yaml : {"agent: {socket_mode: 0060}",
                           "agent: {socket_mode: rw}",
                           "agent: {job_history_days: 0}",
                           "agent: {log: {level: loud}}",
                           "snapshot: {compression: bzip2}",
                           "snapshot: {level: 10}",
                           "snapshot: {level: -1}",
                           "snapshot: {segment_size: 1023KiB}",
                           "snapshot: {segment_size: 65MiB}",
                           "snapshot: {segment_size: 32mib}",
                           "snapshot: {transfers: 0}",
                           "snapshot: {transfers: 65}",
                           "snapshot: {workers: 257}",
                           "snapshot: {throttle: {upload: 100}}",
                           "snapshot: {throttle: {upload: fast}}",
                           "storage: {retry: {tries: 0}}",
                           "storage: {retry: {first_delay: 0}}",
                           "storage: {timeouts: {stall: 0}}",
                           "storage: {retry: {first_delay: 1m}}",
                           "storage: {retry: {max_delay: 1ms}}",
                           "storage: {swift: {delete_after: 1500ms}}",
                           "storage: {store: floppy}",
                           "storage: {container: a/b}",
                           "storage: {container: .hidden}",
                           "storage: {container: \"\"}",
                           "storage: {prefix: ../x}",
                           "storage: {prefix: a//b}",
                           "storage: {prefix: /a}",
                           "storage: {prefix: a/}",
                           "storage: {prefix: a/./b}",
                           "storage: {prefix: \"a b\"}",
                           "datastore: oracle",
                           "agent: {socket: relative}",
                           "agent: {socket: \"\"}",
                           "agent: {state_dir: \"/a\\nb\"}"}) {
    EXPECT_NE(mistakes_in(yaml), "accepted") << yaml;
  }
  EXPECT_EQ(mistakes_in("snapshot: {segment_size: 1MiB, memory_limit: 36MiB}"), "accepted");
  EXPECT_EQ(mistakes_in("snapshot: {segment_size: 64MiB, memory_limit: 288MiB}"), "accepted");
  EXPECT_THAT(mistakes("agent: {socket: /" + std::string(107, 'x') + "}\n" + std::string(kMinimum)),
              HasSubstr("107 bytes"));
}

TEST(Settings, MemoryHoldsFourSegments) {
  EXPECT_THAT(mistakes_in("snapshot:\n  memory_limit: 159MiB"),
              HasSubstr("snapshot.memory_limit (line 2): must be at least 160MiB"));
  EXPECT_THAT(mistakes_in("snapshot:\n  segment_size: 64MiB"),
              HasSubstr("snapshot.memory_limit (line 1): must be at least 288MiB"));
}

TEST(Settings, EncryptionKeysBelongTogether) {
  const auto keys = [](const std::string& lines) { return mistakes_in("snapshot:\n  encryption:\n" + lines); };
  EXPECT_THAT(keys("    write_key: k1\n"),
              HasSubstr("snapshot.encryption.write_key (line 3): must be the id of one of"));
  EXPECT_THAT(keys("    keys: [{id: k1}]\n"), HasSubstr("snapshot.encryption.keys[0].file (line 3): required"));
  EXPECT_THAT(keys("    keys: [{id: a, file: /a}, {file: /b}]\n"),
              HasSubstr("snapshot.encryption.keys[1].id (line 3): required"));
  EXPECT_THAT(keys("    keys:\n      - {id: a, file: /a}\n      - {id: a, file: /b}\n"), HasSubstr("twice"));
  EXPECT_THAT(keys("    keys: [{id: \"../x\", file: /a}]\n"), HasSubstr("an id must be"));
  EXPECT_THAT(keys("    keys: [{id: a, fiel: /a}]\n"),
              HasSubstr("keys[0].fiel (line 3): unknown key (did you mean \"file\"?)"));
  EXPECT_THAT(keys("    keys: [/etc/key]\n"), HasSubstr("snapshot.encryption.keys[0] (line 3): must be a map of keys"));
  EXPECT_EQ(keys("    write_key: b\n    keys: [{id: a, file: /a}, {id: b, file: /b}]\n"), "accepted");
}

TEST(Settings, SwiftRequiresWhatItsAuthNeeds) {
  const auto swift = [](const std::string& members) {
    return mistakes_in("storage: {store: swift, swift: {" + members + "}}");
  };
  const std::string url = "auth_url: \"http://s:8080/auth\"";
  EXPECT_THAT(swift(""), HasSubstr("storage.swift.auth_url (line 1): required"));
  EXPECT_THAT(mistakes_in("storage:\n  store: swift"), HasSubstr("storage.swift.auth_url (line 1): required"));
  EXPECT_EQ(swift(url + ", user: u, key_file: /k"), "accepted");
  EXPECT_THAT(swift(url + ", key_file: /k"), HasSubstr("swift.user"));
  EXPECT_THAT(swift(url + ", user: u"), HasSubstr("swift.key_file"));
  EXPECT_THAT(swift(url + ", auth: v3, user: u, key_file: /k"), HasSubstr("swift.project"));
  EXPECT_EQ(swift(url + ", auth: v3, user: u, key_file: /k, project: p"), "accepted");
  EXPECT_EQ(swift(url + ", auth: v3, application_credential_id: i, application_credential_secret_file: /s"),
            "accepted");
  EXPECT_THAT(swift(url + ", auth: v3, application_credential_id: i"), HasSubstr("application_credential_secret_file"));
  EXPECT_THAT(swift(url + ", auth: v3, application_credential_secret_file: /s"),
              HasSubstr("application_credential_id"));
  EXPECT_THAT(swift("auth: token"), HasSubstr("swift.storage_url"));
  EXPECT_THAT(swift("auth: token"), HasSubstr("swift.token_file"));
  EXPECT_THAT(swift("auth: token"), Not(HasSubstr("auth_url")));
  EXPECT_EQ(swift("auth: token, storage_url: \"http://s/v1/A\", token_file: /t"), "accepted");
  EXPECT_THAT(swift("auth: v2"), HasSubstr("must be one of v1, v3, token"));
  // Nothing of it is required while another store is used.
  EXPECT_EQ(mistakes_in("storage: {store: local, swift: {auth: v3}}"), "accepted");
}

TEST(Settings, S3RequiresItsKeys) {
  for (const char* key : {"storage.s3.endpoint", "storage.s3.access_key", "storage.s3.secret_key_file"}) {
    EXPECT_THAT(mistakes_in("storage: {store: s3}"), HasSubstr(key + std::string(" (line 1): required")));
  }
  EXPECT_EQ(mistakes_in("storage: {store: s3, s3: {endpoint: \"https://s3.x\", access_key: a, secret_key_file: /k}}"),
            "accepted");
  EXPECT_EQ(mistakes_in("storage: {store: s3, s3: {endpoint: \"https://s3.x\", access_key_file: /a, secret_key_file: "
                        "/k, session_token_file: /t}}"),
            "accepted");
  EXPECT_THAT(mistakes_in("storage: {store: s3, s3: {endpoint: \"https://s3.x\", access_key: a, access_key_file: /a, "
                          "secret_key_file: /k}}"),
              HasSubstr("must not be set together with access_key"));
}

TEST(Settings, AddressesAreUrlsWithoutSecrets) {
  for (const char* url : {"s:8080", "ftp://s/", "http://", "http:///x", "http://s/a b", "http://u:hunter2@s/auth",
                          "http://s/?token=hunter2"}) {
    const std::string text = mistakes_in(std::string("storage: {swift: {auth_url: \"") + url + "\"}}");
    EXPECT_THAT(text, HasSubstr("storage.swift.auth_url (line 1): must")) << url;
    EXPECT_THAT(text, Not(HasSubstr("hunter2")));
  }
}

TEST(Settings, ASecretInPlaceOfItsFileIsNotShown) {
  const std::string text =
      mistakes(in_mysql("  password_file: hunter2\n  password: hunter2\n")) +
      mistakes_in("storage: {swift: {key_file: hunter2, key: hunter2}, s3: {secret_key_file: hunter2}}");
  EXPECT_THAT(text, HasSubstr("mysql.password_file (line 3): must be an absolute path"));
  EXPECT_THAT(text, HasSubstr("mysql.password (line 4): unknown key"));
  EXPECT_THAT(text, Not(HasSubstr("hunter2")));
}

TEST(Settings, MysqlIsConsistent) {
  for (const char* address : {"http://db1", "db1:3306", "0.0.0.0", "\"::\"", "\"a b\"", "\"db1'\""}) {
    EXPECT_THAT(mistakes(std::string("mysql: {advertised_address: ") + address + "}"),
                HasSubstr("mysql.advertised_address (line 1)"))
        << address;
  }
  for (const char* address : {"db1", "db1.example.org", "10.0.0.1", "\"fe80::1\""}) {
    EXPECT_EQ(mistakes(std::string("mysql: {advertised_address: ") + address + "}"), "accepted") << address;
  }
  EXPECT_THAT(mistakes(in_mysql("  advertised_port: 0\n")), HasSubstr("from 1 to 65535"));
  EXPECT_THAT(mistakes(in_mysql("  advertised_port: 65536\n")), HasSubstr("from 1 to 65535"));
  EXPECT_THAT(mistakes(in_mysql("  client_file: /c\n  password_file: /p\n")),
              HasSubstr("mysql.password_file (line 4): must not"));
  EXPECT_THAT(mistakes(in_mysql("  client_file: /c\n  user: u\n")), HasSubstr("mysql.user (line 4): must not"));
  EXPECT_EQ(mistakes(in_mysql("  client_file: /c\n")), "accepted");
  EXPECT_THAT(mistakes(in_mysql("  tls: {certificate: /c}\n")), HasSubstr("mysql.tls.key"));
  EXPECT_THAT(mistakes(in_mysql("  server: {control: commands}\n")),
              HasSubstr("mysql.server.start (line 3): required"));
  EXPECT_THAT(mistakes(in_mysql("  server: {control: commands, start: [a]}\n")),
              HasSubstr("mysql.server.stop (line 3): required"));
  EXPECT_THAT(mistakes(in_mysql("  server: {start: systemctl start x}\n")),
              HasSubstr("mysql.server.start (line 3): must be a list"));
  EXPECT_THAT(mistakes(in_mysql("  server: {command: []}\n")), HasSubstr("mysql.server.command"));
  EXPECT_THAT(mistakes(in_mysql("  server: {unit: \"\"}\n")), HasSubstr("mysql.server.unit"));
  EXPECT_THAT(mistakes(in_mysql("  replication_host: \"x' or 1\"\n")), HasSubstr("mysql.replication_host"));
  EXPECT_THAT(mistakes(in_mysql("  os_user: \"\"\n")), HasSubstr("mysql.os_user"));
  EXPECT_THAT(mistakes(in_mysql("  lock_wait: 0\n")), HasSubstr("mysql.lock_wait (line 3): must be at least 1s"));
}

TEST(Settings, NothingOfTheAgentsLiesInTheDataDirectory) {
  for (const char* staging : {"/var/lib/mysql", "/var/lib/mysql/staging", "/var/lib"}) {
    EXPECT_THAT(mistakes(in_mysql("  staging_dir: " + std::string(staging) + "\n")),
                HasSubstr("mysql.staging_dir (line 3): must be neither"));
  }
  EXPECT_EQ(mistakes(in_mysql("  staging_dir: /var/lib/mysql-staging\n")), "accepted");
  EXPECT_THAT(mistakes_in("agent:\n  state_dir: /var/lib/mysql/agent"),
              HasSubstr("agent.state_dir (line 2): must not be inside"));
  EXPECT_THAT(mistakes_in("storage: {local: {path: /var/lib/mysql/store}}"), HasSubstr("storage.local.path (line 1)"));
  EXPECT_THAT(mistakes_in("snapshot: {spill: {dir: /var/lib/mysql/../mysql/x}}"),
              HasSubstr("snapshot.spill.dir (line 1)"));
  EXPECT_THAT(mistakes(in_mysql("  managed_file: /var/lib/mysql/z.cnf\n")), HasSubstr("mysql.managed_file (line 3)"));
  EXPECT_THAT(mistakes(in_mysql("  data_dir: /var/lib/guestagent/\n")), HasSubstr("agent.state_dir (line 1)"));
}

TEST(Settings, ListenNeedsItsCertificates) {
  const std::string text = mistakes_in("agent:\n  listen:\n    address: 0.0.0.0:8443");
  for (const char* key : {"certificate", "key", "client_ca"}) {
    EXPECT_THAT(text,
                HasSubstr("agent.listen." + std::string(key) + " (line 2): required when agent.listen.address is set"));
  }
  for (const char* address : {"8443", ":8443", "host:", "host:0", "host:99999", "host:x"}) {
    EXPECT_THAT(mistakes_in("agent: {listen: {address: \"" + std::string(address) + "\"}}"),
                HasSubstr("agent.listen.address"))
        << address;
  }
}

TEST(Settings, LoadNamesTheFile) {
  const TempDir dir(fs::temp_directory_path(), "guestagent-config-");
  const fs::path file = dir.path() / "guestagent.yaml";
  write_file_atomic(file, kMinimum);
  EXPECT_EQ(load_settings(file, store_sections()).mysql.advertised_address, "db1.example");
  write_file_atomic(file, "mysq: 1\n");
  try {
    load_settings(file, store_sections());
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(file.string() + ": mysq (line 1): unknown key (did you mean \"mysql\"?)"));
  }
  try {
    load_settings(dir.path() / "none.yaml", store_sections());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::not_found);
    EXPECT_FALSE(e.hint().empty());
  }
  write_file_atomic(file, std::string(2 << 20, '#'));
  for (const fs::path& wrong : {file, dir.path()}) {
    try {
      load_settings(wrong, store_sections());
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::invalid_argument) << e.what();
      EXPECT_THAT(e.hint(), HasSubstr("--config"));
    }
  }
}

}  // namespace
}  // namespace guestagent
