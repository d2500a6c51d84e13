// A client of one database server with named operations: what the agent may do to a server is what stands
// here.
//
// Not thread-safe: one object, one connection, one thread at a time. It connects at the first use and again,
// once per call, after the server was restarted. Everything throws Error: unavailable when the server does
// not answer, permission_denied (naming the account and what it lacks), else internal with the server's
// number and message. No statement that it sends holds a password in clear, except change_source, where the
// protocol has no other way; that one is kept out of the general log where permitted.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/secret.h"
#include "config/settings.h"
#include "strategies/mysql/server/dialect.h"
#include "strategies/mysql/server/position.h"
#include "strategies/replication_status.h"

namespace guestagent::mysql {

// Where and as whom to connect.
struct ConnectTarget {
  fs::path socket;  // used when `host` is empty
  std::string host;
  std::uint16_t port = 3306;
  std::string user;
  Secret password;
  bool tls = false;
  fs::path ca_file, certificate, key;
  bool verify = false;
  Millis connect_timeout{10000};
  Millis read_timeout{600000};   // of one answer; waits of this class come in far shorter slices
  std::string describe() const;  // "root on /run/mysqld/mysqld.sock", "repl_x on 10.0.0.1:3306"
};

// The agent's own account on its own server: from mysql.user and mysql.password_file, or mysql.client_file
// ([client] user, password), read now. Throws Error(permission_denied) for a file that others can read,
// not_found, invalid_argument.
ConnectTarget local_target(const MysqlSettings& settings);

// [client] (and [mariadb-client], [mysql]) user and password of an option file of the server's kind; the
// values that are not there stay empty.
struct ClientCredentials {
  std::string user;
  Secret password;
};
ClientCredentials read_client_file(const fs::path& file);

struct ServerIdentity {
  ServerVersion version;
  std::string version_text, version_comment;
  std::uint32_t server_id = 0;
  std::string server_uuid;  // empty on MariaDB
  std::string hostname;
  fs::path data_dir, socket, pid_file;
  std::uint16_t port = 0;
  bool networking = true;  // false with skip_networking
  bool log_bin = false;
  std::string log_bin_basename, binlog_format;
  bool log_updates = false;  // log_slave_updates
  bool gtid_on = false;      // always on MariaDB; gtid_mode=ON on MySQL
  bool read_only = false, super_read_only = false;
  bool event_scheduler = false;
  bool event_scheduler_disabled = false;  // for the life of the process: it cannot be switched on
  bool tls = false;                       // the server can speak TLS
  std::uint64_t page_size = 0;
  unsigned lower_case_table_names = 0;
  std::uint64_t redo_bytes = 0;  // capacity of the redo log
  // As the server says; relative ones are below data_dir. Empty: in data_dir.
  std::string innodb_home, redo_dir, undo_dir, innodb_data_file_path, relay_log_basename;
  std::uint64_t undo_tablespaces = 0;
  std::vector<std::string> plugins;  // active and not built in
  std::uint64_t max_connections = 0;
};

struct BinlogStatus {
  Position position;             // gtid is filled where the server has GTIDs
  std::string do_db, ignore_db;  // filters of the source's binary log
};

// Files of the binary log, oldest first. Needs BINLOG MONITOR / REPLICATION CLIENT.
struct BinlogFile {
  std::string name;
  std::uint64_t bytes = 0;
};

struct ReplicaStatus {
  std::string channel;  // name of the channel (MySQL) or connection (MariaDB); empty for the default one
  std::string source_host, source_user, source_uuid;
  std::uint16_t source_port = 0;
  std::uint32_t source_server_id = 0;
  ThreadState io = ThreadState::stopped, sql = ThreadState::stopped;
  std::string io_state, sql_state;  // the server's words
  Position received, applied;       // gtid of received: the last *complete* group that is in the relay log
  bool by_gtid = false;
  bool tls = false;
  std::optional<std::uint64_t> seconds_behind;  // as the server says; not to be trusted right after the start
  std::uint64_t delay = 0;
  std::optional<std::uint64_t> remaining_delay;
  std::uint64_t relay_log_bytes = 0;
  unsigned io_errno = 0, sql_errno = 0;
  std::string io_error, sql_error;
  std::string io_error_at, sql_error_at;  // the server's spelling; empty where it does not tell
  std::vector<std::string> filters;       // names of replicate_… settings that are not empty
};

struct NewSource {
  std::string host;
  std::uint16_t port = 0;
  std::string user;
  Secret password;
  bool tls = false;
  fs::path ca_file;  // with tls: verify the source's certificate by it; empty: encrypt only
  unsigned connect_retry_s = 5;
  unsigned heartbeat_s = 5;
  // By GTID when the set is given (the replica's start set is then set by start_from), else by file and
  // offset.
  bool by_gtid = true;
  std::string file;
  std::uint64_t offset = 0;
};

struct DumpThread {
  std::uint64_t id = 0;
  std::string user, host;
};

// A transaction of a session that has changed something and is not committed.
struct OpenWrite {
  std::string transaction;
  std::uint64_t session = 0;
  std::string user, host;
  std::uint64_t seconds = 0;  // since it began
};

// A session of the server's list.
struct Session {
  std::uint64_t id = 0;
  std::string user, host, command, state, info;
  std::uint64_t seconds = 0;
};

struct TableName {
  std::string schema, name, engine;
  std::uint64_t bytes = 0;
};

struct TableFault {
  int number = 0;
  std::string message;
};

// What shows that a server runs on just the data that it ran on before: things that only this data has.
struct DataMark {
  std::string server_uuid;          // empty on MariaDB
  bool account = false;             // the snapshot's replication account, whose name is its own, came with the copy
  std::vector<std::string> tables;  // "17 db/table", with InnoDB's number of it: the first thousand
};
// Why data that shows `now` is not the data that showed `then`; nullopt where nothing speaks against it.
std::optional<std::string> why_other_data(const DataMark& then, const DataMark& now);

struct ReplicationAccount {
  std::string user, host;
  bool by_agent = false;  // it has the mark of one that an agent made (kAccountLimit)
};

struct TableDigest {
  std::uint64_t rows = 0;
  std::string digest;
};

class ServerClient {
 public:
  explicit ServerClient(ConnectTarget target);
  ~ServerClient();
  ServerClient(ServerClient&&) noexcept;
  ServerClient& operator=(ServerClient&&) noexcept;

  const ConnectTarget& target() const;

  // --- what is it ---
  void ping();  // one round trip
  // Waits until it answers, or deadline_exceeded with the last reason; `alive` (may be empty) says whether
  // waiting still makes sense.
  void wait_until_up(Millis timeout, Clock& clock, std::stop_token stop, const std::function<bool()>& alive = {});
  ServerVersion version();
  const Dialect& dialect();
  ServerIdentity identity();
  // Any variable, for the few that have no field above: nullopt when the server does not know it.
  std::optional<std::string> variable(const std::string& name);
  std::map<std::string, std::string> variables();  // all global ones, names in lower case
  bool in_a_group();                               // a member of MySQL's group replication, now
  // MySQL's replication filters for every channel, as option names and values; MariaDB has them as variables.
  std::vector<std::pair<std::string, std::string>> applier_filters();
  std::string keyring_component();  // name of MySQL's keyring component where one is active, else empty
  DataMark data_mark(const std::string& replication_user);

  // --- what is in it ---
  // A database, table, view, routine or event that is not the server's own; an empty database counts.
  bool has_user_data();
  // Data and indexes of all tables, as the server estimates; 0 on a replica that may not be asked (read_quietly).
  std::uint64_t data_bytes();
  std::uint64_t redo_written();  // bytes of redo log since the server was started
  // Base tables, ordered by name. With their bytes each of them is opened; without, none, and deadline_exceeded after a
  // second in which a statement held one (CREATE TABLE … SELECT, on some servers).
  std::vector<TableName> user_tables(bool with_bytes = true);
  bool has_rows(const TableName& table);
  // To be called before tables are opened to be looked at. The first opening of a MEMORY table after its server's start
  // makes the server log a statement that empties it: on a replica that would be a transaction of its own. From here on
  // this session logs nothing there; false: it is a replica and the account may not do that (BINLOG ADMIN,
  // SYSTEM_VARIABLES_ADMIN).
  bool read_quietly();
  // Tables with DATA DIRECTORY or INDEX DIRECTORY, that is outside of the data directory.
  std::vector<std::string> tables_elsewhere();
  std::uint64_t open_temporary_tables();      // of the applying thread
  std::vector<std::string> enabled_events();  // "db.event"
  // Tables and sequences that are not the server's own and whose files lie in the data directory; none of them is
  // opened by that.
  std::vector<TableName> tables_in_files();
  // Opens the table and reads no row. nullopt: it can be opened.
  std::optional<TableFault> why_not_opened(const std::string& schema, const std::string& name);
  // "db.table" of those that cannot be opened, where listing them shows it (Dialect::looking_opens), else none.
  std::vector<std::string> unopenable_tables();
  std::vector<std::string> encrypted_tables();  // "db/table", and names of other tablespaces

  // --- where is it ---
  BinlogStatus binlog_status();  // failed_precondition when the binary log is off
  std::vector<BinlogFile> binlog_files();
  std::string gtid_executed();  // everything it has; empty without GTIDs
  std::string gtid_binlog();    // what its own binary log says: on a source, where it is now
  // Both: on MariaDB a server that has applied something and logged nothing since it was copied has it all the same.
  std::string gtid_known();
  // The name of the engine's word for where replication starts: gtid_slave_pos / gtid_purged (its value).
  std::string gtid_start();

  // --- accounts ---
  // Least rights for a replica's connection, from a hash made here; not in the binary log when `log` is false
  // (the replicas of this source would otherwise get it too).
  void create_replication_account(const std::string& user, const std::string& host, const Secret& password,
                                  bool require_tls, bool log);
  void drop_account(const std::string& user, const std::string& host, bool log);  // gone already: no error
  bool account_exists(const std::string& user, const std::string& host);
  // Accounts whose name begins so and which may do nothing but replicate.
  std::vector<ReplicationAccount> replication_accounts(const std::string& prefix);
  // The agent's own account, with all rights it needs, made or given this password again; never in the binary
  // log. An empty password means authentication by the socket's peer where the server can.
  void make_agent_account(const std::string& user, const std::string& host, const Secret& password);
  bool skips_grants();  // started with skip_grant_tables: everybody may everything, and no account can be made
  // Active plugins that must see each new password in clear (MariaDB's strict_password_validation); empty: a hash will
  // do.
  std::vector<std::string> password_validators();
  std::vector<std::string> own_grants();  // the lines of SHOW GRANTS for the agent's account; they may hold its hash
  std::vector<DumpThread> dump_threads(const std::string& user);
  std::vector<Session> sessions();
  void kill_session(std::uint64_t id);  // gone already: no error
  std::uint64_t uptime_s();             // since the server was started

  // --- binary logs' expiry (the lease) ---
  // Every variable that lets the server purge, with its value.
  std::vector<std::pair<std::string, std::string>> purge_settings();
  void set_purge_setting(const std::string& name, const std::string& value);
  void flush_binlog();
  void reset_binlogs();  // removes all binary logs and, on MySQL, its GTIDs; a replica must be stopped

  // --- cloning (MySQL's plugin) ---
  bool has_clone_plugin();  // there and active
  bool may_load_plugins();  // this account has the right
  // Neither leaves a trace in the binary log; there already, and gone already, are no errors. A plugin that is in use
  // cannot be unloaded: failed_precondition.
  void install_clone_plugin();
  void uninstall_clone_plugin();
  // The server copies its data into `dir`, which must not exist; its parent must be the server's to write. Returns when
  // that is done, however long it takes (as the target's read_timeout allows); ended early by kill_session().
  void clone_into(const fs::path& dir);
  std::vector<std::uint64_t> clones_into(const fs::path& dir);  // sessions that do so now
  std::pair<std::uint64_t, std::uint64_t> clone_progress();     // bytes done and estimated, of the last clone made here
  // The file and offset of the source that the data stands at which this server was made of by cloning; null when it
  // was not.
  Position cloned_position();

  // --- replication ---
  std::vector<ReplicaStatus> replica_status();  // one per channel, the default one first; empty when there is none
  void change_source(const NewSource& source);  // REQUIRES: stopped
  // Sets gtid_slave_pos / gtid_purged; on MySQL the server's own binary logs go. REQUIRES: stopped.
  void start_from(const std::string& gtid);
  void start_replica();
  void stop_replica();     // both threads; not running: no error. All channels.
  void start_receiving();  // the IO thread alone
  void stop_receiving();
  void start_applying();     // the SQL thread alone
  void reset_replica_all();  // all settings of all channels are gone; REQUIRES: stopped
  // The table of GTIDs that a copy brings, emptied (MariaDB: mysql.gtid_slave_pos), without a trace in the
  // binary log.
  void clear_gtid_start();
  // Waits at most `slice` until `gtid` is applied here.
  bool wait_applied(const std::string& gtid, Millis slice);
  // The same by the source's file and offset, on a running replica. Throws failed_precondition when the SQL
  // thread does not run.
  bool wait_applied(const std::string& file, std::uint64_t offset, Millis slice);

  // --- global settings ---
  void set_read_only(bool on);  // with super_read_only where there is one
  // set_read_only(true), which waits for statements that write; false when some still did after `patience`.
  bool try_refuse_writes(Seconds patience);
  std::vector<OpenWrite> open_writes();  // InnoDB's, without those of replication
  // Accounts that may write while read_only is on ("'app'@'%'"), without the agent's own; empty where super_read_only
  // holds them back too.
  std::vector<std::string> who_passes_read_only();
  // Whether not even who may pass read_only may write: super_read_only; MariaDB 12: read_only=NO_LOCK_NO_ADMIN. Turned
  // off, read_only stays on.
  bool refuses_all_writes();
  void refuse_all_writes(bool on);  // REQUIRES of true: it was so before
  void set_event_scheduler(bool on);
  void set_server_id(std::uint32_t id);
  void shutdown();  // asks the server to end, in order

  // --- checksums ---
  // Opens a snapshot of all tables at one position without blocking writers; digests read in it until
  // end_snapshot.
  Position begin_consistent_read();
  TableDigest digest_table(const std::string& schema, const std::string& name, std::optional<std::uint64_t> sample,
                           std::stop_token stop);
  void end_consistent_read();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// An identifier for use inside a statement: `name` with back-quotes doubled. Throws invalid_argument for an
// empty one or one with a zero byte.
std::string quote_name(std::string_view name);
// 'user'@'host'.
std::string quote_account(std::string_view user, std::string_view host);

}  // namespace guestagent::mysql
