// What differs between the servers of the MySQL family, as one table of data. A new version is a row (or a
// changed bound) in dialect.cc; no other file asks for a version.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace guestagent::mysql {

enum class Family { mariadb, mysql, percona };

std::string_view family_name(Family family);  // "mariadb", "mysql", "percona"

struct ServerVersion {
  Family family = Family::mariadb;
  unsigned major = 0, minor = 0, patch = 0;

  std::string text() const;    // "mariadb-10.11.19", the datastore_version of the RPC contract
  std::string series() const;  // "10.11"
  // Orders by number; of two families only equality makes sense.
  auto operator<=>(const ServerVersion&) const = default;
};

// From @@version ("10.11.19-MariaDB-0+deb12u1", "9.7.4", "5.5.5-10.4.2-MariaDB-log") and @@version_comment.
// Throws Error(failed_precondition) for a version that has no number.
ServerVersion parse_server_version(std::string_view version, std::string_view comment);
// From text() of an agent, possibly a newer one. Throws Error(invalid_argument).
ServerVersion parse_datastore_version(std::string_view text);

enum class GtidKind { none, mariadb, mysql };
enum class AccountHash { native, caching_sha2 };

// Names of the columns of the replica's status, one set per vocabulary. Empty where there is none.
struct StatusColumns {
  std::string_view channel, source_host, source_port, source_user, source_server_id, source_uuid;
  std::string_view io_running, sql_running, io_state, sql_state;
  std::string_view received_file, received_offset, applied_file, applied_offset;
  std::string_view seconds_behind, delay, remaining_delay;
  std::string_view io_errno, io_error, io_error_time, sql_errno, sql_error, sql_error_time;
  std::string_view gtid_received, gtid_applied, gtid_mode, tls;
};

// How one vocabulary speaks of replication.
struct Words {
  std::string_view change_source;        // "CHANGE MASTER TO"
  std::string_view option_prefix;        // "MASTER" in MASTER_HOST
  std::string_view replica;              // "SLAVE" in START SLAVE
  std::string_view show_replica_status;  // of every channel
  std::string_view show_replicas;        // who is connected, as seen on the source
  std::string_view stop_all;             // both threads of every channel
  std::string_view reset_channel;        // with {channel}, a quoted string
  std::string_view position_wait;        // function (file, offset, seconds)
  StatusColumns columns;
};

// The limit of connections of a replication account that an agent made. Together with its rights it tells such accounts
// from those that somebody made by hand, wherever a copy or replication brings them.
inline constexpr unsigned kAccountLimit = 100003;

struct Dialect {
  Family family;               // Percona Server uses MySQL's rows
  ServerVersion from, before;  // the range: from <= version < before

  const Words* words;
  std::string_view show_binlog_status;  // "SHOW MASTER STATUS"
  std::string_view reset_binlogs;       // "RESET MASTER"

  GtidKind gtid;
  std::string_view gtid_executed;  // expression: what this server has, applied or written by itself
  std::string_view gtid_binlog;    // expression: what stands in its binary log
  std::string_view gtid_start;     // variable that says where replication starts: gtid_slave_pos, gtid_purged
  std::string_view gtid_option;    // of the change-source statement
  std::string_view gtid_option_off;
  std::string_view gtid_wait;            // function (set, seconds) that waits until the set is applied; 0 done
  std::string_view gtid_wait_timed_out;  // what it answers past its time

  bool super_read_only;
  // Quoted privileges, any of which lets an account write while read_only is on; "" with super_read_only.
  std::string_view passes_read_only;
  // Query: GRANTEE, "'user'@'host'", of those who have one of them by a role, which may be granted to a role itself;
  // "" where there are no roles. Not in information_schema.
  std::string_view passes_by_role;
  std::size_t user_name_max;  // bytes of an account's name
  AccountHash account_hash;
  // With {account}, {hash}, {require}, {limit} and {lasting}; {hash} is a quoted string. A limit of connections of its
  // own makes the account independent of the global max_user_connections: all replicas of a snapshot and their agents
  // share it.
  std::string_view create_account;
  std::string_view grant_replication;  // with {account}, {require} and {limit}
  std::string_view
      drop_account;  // words before the account; a replica that lacks it must not stop, where that can be said
  std::string_view require_in_create;  // "" where only GRANT knows REQUIRE
  // The agent's own account: by a hash ({hash} quoted) or by the socket's peer.
  std::string_view by_hash, by_peer;
  std::string_view
      lasting;  // what keeps an account from expiring by the server's default_password_lifetime; "" where there is none
  bool alter_account;  // ALTER USER takes them; else the account is dropped and created
  std::string_view agent_privileges;
  // More options of the change-source statement, which this server needs so that the same is meant
  // everywhere.
  std::string_view source_options;

  // Variables that make the server purge binary logs, and are 0 while a lease holds.
  std::span<const std::string_view> purge_variables;
  std::string_view tablespace_paths;  // query: one column, the path of each InnoDB file
  std::string_view innodb_tables;     // table with TABLE_ID and NAME ("db/table") of InnoDB's tables
  std::string_view
      encrypted_tables;  // query: one column, the names of what InnoDB has encrypted; "": this server encrypts nothing
  bool looking_opens;    // information_schema.TABLES opens the tables to tell of them, and so says which ones it cannot
                         // open
  // Table of the events with db, name, status. Not information_schema.EVENTS where there is another: it fails while the
  // event scheduler is DISABLED.
  std::string_view events;
  std::string_view processlist;  // table with ID, USER, HOST, COMMAND, TIME, STATE, INFO
  std::string_view log_updates;  // name of log_slave_updates

  // The first that is installed and fits takes the copy.
  std::span<const std::string_view> backup_tools;  // "mariadb-backup", "xtrabackup", "clone"
  // Names of the files that the tool of this server writes beside the data, newest name first.
  std::span<const std::string_view> info_files, binlog_info_files, checkpoints_files;

  std::string_view
      replica_option;  // option-file name of "do not start replication": skip_slave_start, skip_replica_start
  // Of the server's command line, without which it does not start privately, with its binary log off; "": none.
  std::string_view private_option;
};

// The row for `version`; the newest row of the family for a server newer than the table. Throws
// Error(failed_precondition), naming the oldest that is supported, for one older than the table.
const Dialect& dialect_for(const ServerVersion& version);
// All rows, for tests and documentation.
std::span<const Dialect> dialects();

// Which tool copies which server, and whose data the prepared copy may become: the allowed triples (source, tool,
// target).
struct CopyFit {
  ServerVersion from, before;  // of the source: from <= version < before
  std::string_view tool;       // as in Dialect::backup_tools
  std::string_view series;     // of the tool, separated by spaces; "=": the source's own; "": it is part of the server
  unsigned
      any_patch_from;   // a tool below this patch does not copy a server with a newer patch than its own; 0: any does
  bool newer_prepares;  // the tool of a newer target may prepare the copy as well
  ServerVersion target_before;  // targets: the source's series and newer ones below this
  bool older_patch;             // within a series an older patch may follow
  // What the system tables of a newer series need before they are served: a program of the target's; "": the server
  // does it by itself.
  std::string_view upgrade;
};
std::span<const CopyFit> copy_fits();
// The row of `tool` for a source of `version`; nullptr where the tool does not copy it.
const CopyFit* copy_fit(const ServerVersion& version, std::string_view tool);

// May a server of version `target` become a replica of data from `source`? Empty, or why not.
std::string unsupported_pair(const ServerVersion& source, const ServerVersion& target);

}  // namespace guestagent::mysql
