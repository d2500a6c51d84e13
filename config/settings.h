// What the one YAML file says, checked. config/guestagent.yaml documents each key; the defaults stand here and there
// alike (a test holds them together).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/secret.h"
#include "config/store_section.h"

namespace guestagent {

namespace fs = std::filesystem;

struct TlsListenSettings {  // agent.listen: for a controller on another host; off unless `address` is set
  std::string address;      // "0.0.0.0:8443"
  fs::path certificate, key, client_ca;
  fs::path client_crl;                   // what that CA and those below it have revoked; empty: not checked
  std::vector<std::string> allow_names;  // subject common names or DNS names; empty: any certificate of client_ca
  bool operator==(const TlsListenSettings&) const = default;
};

struct AgentSettings {
  fs::path socket = "/run/guestagent/agent.sock";
  unsigned socket_mode = 0660;
  std::vector<std::string> allow_users;   // beside root and the agent's own user
  std::vector<std::string> allow_groups;  // members may connect
  fs::path state_dir = "/var/lib/guestagent";
  unsigned job_history_days = 30;
  LogLevel log_level = LogLevel::info;
  LogFormat log_format = LogFormat::logfmt;
  TlsListenSettings listen;
  bool operator==(const AgentSettings&) const = default;
};

struct SpillSettings {
  fs::path dir = "/var/lib/guestagent/spill";
  std::uint64_t max_bytes = std::uint64_t{4} << 30;  // 0: off
  std::uint64_t keep_free_bytes = std::uint64_t{1} << 30;
  bool operator==(const SpillSettings&) const = default;
};

struct ThrottleSettings {  // bytes per second; 0: none
  std::uint64_t upload = 0;
  std::uint64_t download = 0;
  std::uint64_t read = 0;  // of the source's data, by the backup tool's stream
  bool operator==(const ThrottleSettings&) const = default;
};

struct EncryptionSettings {
  std::string write_key;  // key id; empty: not encrypted
  struct KeyFile {
    std::string id;
    fs::path file;  // exactly 32 bytes
    bool operator==(const KeyFile&) const = default;
  };
  std::vector<KeyFile> keys;
  bool allow_plain = false;  // read snapshots that are not encrypted although there is a write_key
  bool operator==(const EncryptionSettings&) const = default;
};

struct SnapshotSettings {
  std::string compression = "zstd";
  int level = 0;  // 0: the codec's fast default
  std::uint64_t segment_bytes = std::uint64_t{32} << 20;
  std::uint64_t memory_limit = std::uint64_t{192} << 20;  // of the agent's data path
  unsigned workers = 0;                                   // compression threads; 0: one a core
  unsigned transfers = 4;                                 // requests to the store at a time
  SpillSettings spill;
  ThrottleSettings throttle;
  EncryptionSettings encryption;
  bool operator==(const SnapshotSettings&) const = default;
};

struct RetrySettings {
  unsigned tries = 8;
  Millis first_delay{500};
  Millis max_delay{30000};
  bool operator==(const RetrySettings&) const = default;
};

struct TlsClientSettings {  // of a store that is reached by HTTP
  fs::path ca_file;         // empty: the system's
  bool insecure = false;    // explicit, warned about
  bool operator==(const TlsClientSettings&) const = default;
};

struct HttpTimeouts {
  Millis connect{10000};
  Millis stall{30000};  // without a byte moved; never a limit on the whole transfer
  bool operator==(const HttpTimeouts&) const = default;
};

struct StorageSettings {
  std::string store = "local";  // the name of one of store_sections()
  std::string container = "guestagent";
  std::string prefix = "snapshots";
  OwnSettings own;  // of each store, by its type: storage/STORE/settings.h
  RetrySettings retry;
  HttpTimeouts timeouts;
  bool operator==(const StorageSettings&) const = default;
};

struct ServerSettings {             // mysql.server: how the database server is stopped and started
  std::string control = "systemd";  // systemd | commands | process
  std::string unit = "mariadb.service";
  std::vector<std::string> start, stop;  // control: commands
  // The server itself, argv without options of the agent's: for its private first start, and for control: process.
  std::vector<std::string> command = {"mariadbd"};
  Millis start_timeout{600000};
  Millis stop_timeout{600000};
  bool operator==(const ServerSettings&) const = default;
};

struct MysqlTlsSettings {
  fs::path ca_file, certificate, key;  // of the agent's own connection
  bool verify = false;
  bool operator==(const MysqlTlsSettings&) const = default;
};

struct MysqlSettings {
  std::string advertised_address;                // required: what replicas connect to
  std::optional<std::uint16_t> advertised_port;  // else the server's own
  fs::path socket = "/run/mysqld/mysqld.sock";
  std::string user = "root";
  std::optional<fs::path> password_file;  // none: the socket's peer decides
  std::optional<fs::path>
      client_file;  // an option file of the server's kind, [client] user and password; instead of both
  MysqlTlsSettings tls;
  fs::path defaults_file = "/etc/mysql/my.cnf";
  // Written by the agent, read by the server last of all; must be in a directory that defaults_file includes.
  fs::path managed_file = "/etc/mysql/conf.d/zz-guestagent.cnf";
  fs::path data_dir = "/var/lib/mysql";
  fs::path
      staging_dir;  // empty: beside data_dir ("<data_dir>.guestagent"); on the same file system for a switch by rename
  std::string os_user = "mysql";  // owner of the data and of the server's process
  ServerSettings server;
  std::string backup_tool = "auto";  // auto | mariadb-backup | xtrabackup | clone
  fs::path tools_dir;                // where the tools are if not on PATH
  unsigned backup_parallel = 2;
  std::uint64_t prepare_memory = 0;    // 0: from the redo's size and what is free
  Millis lock_wait{60000};             // the longest that the backup's lock may wait on the source, or be held
  Millis freeze_limit{3000};           // the longest that writers may stand at once behind that waiting
  std::string require_tls = "auto";    // auto | yes | no, for the replication account
  fs::path replication_ca_file;        // on a replica: the CA that the source's certificate must have
  std::string replication_host = "%";  // host part of the replication account
  std::string replication = "gtid";    // gtid | position
  bool allow_restart = false;          // may the agent restart the source to turn its binary log on
  bool keep_previous_data = false;
  Millis catch_up_timeout{3600000};
  Millis drain_timeout{3600000};
  Millis lag_limit{60000};       // past it the verdict is lagging
  Millis lease_limit{86400000};  // how long binary logs are kept for an account that never connects
  bool operator==(const MysqlSettings&) const = default;
};

struct AttachSettings {
  Millis keep_partial{24LL * 3600 * 1000};  // what an interrupted attach had fetched
  Millis follow_timeout{600000};            // without a sign of the source
  bool operator==(const AttachSettings&) const = default;
};

struct Settings {
  AgentSettings agent;
  AttachSettings attach;
  SnapshotSettings snapshot;
  StorageSettings storage;
  std::string datastore = "mysql";
  MysqlSettings mysql;
  bool operator==(const Settings&) const = default;
};

// Reads and checks a file. Throws Error(invalid_argument): "FILE: storage.swift.auth_url (line 14): required", one line
// for every mistake that was found, not only for the first. Files that keys name are not opened here. `stores`: the
// stores that there are (storage/stores.h).
Settings load_settings(const fs::path& file, StoreSections stores);
// The same from text, `name` standing for the file in errors.
Settings parse_settings(std::string_view yaml, std::string_view name, StoreSections stores);

}  // namespace guestagent
