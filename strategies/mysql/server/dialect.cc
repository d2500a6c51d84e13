#include "strategies/mysql/server/dialect.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace guestagent::mysql {
namespace {

using namespace std::string_view_literals;

constexpr StatusColumns kMariadbColumns = {
    .channel = "Connection_name",
    .source_host = "Master_Host",
    .source_port = "Master_Port",
    .source_user = "Master_User",
    .source_server_id = "Master_Server_Id",
    .source_uuid = "",
    .io_running = "Slave_IO_Running",
    .sql_running = "Slave_SQL_Running",
    .io_state = "Slave_IO_State",
    .sql_state = "Slave_SQL_Running_State",
    .received_file = "Master_Log_File",
    .received_offset = "Read_Master_Log_Pos",
    .applied_file = "Relay_Master_Log_File",
    .applied_offset = "Exec_Master_Log_Pos",
    .seconds_behind = "Seconds_Behind_Master",
    .delay = "SQL_Delay",
    .remaining_delay = "SQL_Remaining_Delay",
    .io_errno = "Last_IO_Errno",
    .io_error = "Last_IO_Error",
    .io_error_time = "",
    .sql_errno = "Last_SQL_Errno",
    .sql_error = "Last_SQL_Error",
    .sql_error_time = "",
    .gtid_received = "Gtid_IO_Pos",
    .gtid_applied = "Gtid_Slave_Pos",
    .gtid_mode = "Using_Gtid",
    .tls = "Master_SSL_Allowed",
};

constexpr StatusColumns kSlaveColumns = {
    .channel = "Channel_Name",  // from 5.7 on; absent before, which is the default channel
    .source_host = "Master_Host",
    .source_port = "Master_Port",
    .source_user = "Master_User",
    .source_server_id = "Master_Server_Id",
    .source_uuid = "Master_UUID",
    .io_running = "Slave_IO_Running",
    .sql_running = "Slave_SQL_Running",
    .io_state = "Slave_IO_State",
    .sql_state = "Slave_SQL_Running_State",
    .received_file = "Master_Log_File",
    .received_offset = "Read_Master_Log_Pos",
    .applied_file = "Relay_Master_Log_File",
    .applied_offset = "Exec_Master_Log_Pos",
    .seconds_behind = "Seconds_Behind_Master",
    .delay = "SQL_Delay",
    .remaining_delay = "SQL_Remaining_Delay",
    .io_errno = "Last_IO_Errno",
    .io_error = "Last_IO_Error",
    .io_error_time = "Last_IO_Error_Timestamp",
    .sql_errno = "Last_SQL_Errno",
    .sql_error = "Last_SQL_Error",
    .sql_error_time = "Last_SQL_Error_Timestamp",
    .gtid_received = "Retrieved_Gtid_Set",
    .gtid_applied = "Executed_Gtid_Set",
    .gtid_mode = "Auto_Position",
    .tls = "Master_SSL_Allowed",
};

constexpr StatusColumns kReplicaColumns = {
    .channel = "Channel_Name",
    .source_host = "Source_Host",
    .source_port = "Source_Port",
    .source_user = "Source_User",
    .source_server_id = "Source_Server_Id",
    .source_uuid = "Source_UUID",
    .io_running = "Replica_IO_Running",
    .sql_running = "Replica_SQL_Running",
    .io_state = "Replica_IO_State",
    .sql_state = "Replica_SQL_Running_State",
    .received_file = "Source_Log_File",
    .received_offset = "Read_Source_Log_Pos",
    .applied_file = "Relay_Source_Log_File",
    .applied_offset = "Exec_Source_Log_Pos",
    .seconds_behind = "Seconds_Behind_Source",
    .delay = "SQL_Delay",
    .remaining_delay = "SQL_Remaining_Delay",
    .io_errno = "Last_IO_Errno",
    .io_error = "Last_IO_Error",
    .io_error_time = "Last_IO_Error_Timestamp",
    .sql_errno = "Last_SQL_Errno",
    .sql_error = "Last_SQL_Error",
    .sql_error_time = "Last_SQL_Error_Timestamp",
    .gtid_received = "Retrieved_Gtid_Set",
    .gtid_applied = "Executed_Gtid_Set",
    .gtid_mode = "Auto_Position",
    .tls = "Source_SSL_Allowed",
};

constexpr Words kMariadbWords = {
    .change_source = "CHANGE MASTER TO",
    .option_prefix = "MASTER",
    .replica = "SLAVE",
    .show_replica_status = "SHOW ALL SLAVES STATUS",
    .show_replicas = "SHOW SLAVE HOSTS",
    .stop_all = "STOP ALL SLAVES",
    .reset_channel = "RESET SLAVE {channel} ALL",
    .position_wait = "MASTER_POS_WAIT",
    .columns = kMariadbColumns,
};
constexpr Words kSlaveWords = {
    .change_source = "CHANGE MASTER TO",
    .option_prefix = "MASTER",
    .replica = "SLAVE",
    .show_replica_status = "SHOW SLAVE STATUS",
    .show_replicas = "SHOW SLAVE HOSTS",
    .stop_all = "STOP SLAVE",
    .reset_channel = "RESET SLAVE ALL",
    .position_wait = "MASTER_POS_WAIT",
    .columns = kSlaveColumns,
};
// MySQL took the new words one after another from 8.0.22 to 8.0.26; the old ones work until 8.4.
constexpr Words kReplicaWords = {
    .change_source = "CHANGE REPLICATION SOURCE TO",
    .option_prefix = "SOURCE",
    .replica = "REPLICA",
    .show_replica_status = "SHOW REPLICA STATUS",
    .show_replicas = "SHOW REPLICAS",
    .stop_all = "STOP REPLICA",
    .reset_channel = "RESET REPLICA ALL",
    .position_wait = "SOURCE_POS_WAIT",
    .columns = kReplicaColumns,
};

constexpr std::array kExpireDays = {"expire_logs_days"sv};
constexpr std::array kExpireSeconds = {"binlog_expire_logs_seconds"sv};
constexpr std::array kExpireSecondsOrSize = {"binlog_expire_logs_seconds"sv, "max_binlog_total_size"sv};
constexpr std::array kExpireSecondsOrDays = {"binlog_expire_logs_seconds"sv, "expire_logs_days"sv};

constexpr std::array kMariadbTools = {"mariadb-backup"sv};
constexpr std::array kXtrabackup = {"xtrabackup"sv};
constexpr std::array kXtrabackupOrClone = {"xtrabackup"sv, "clone"sv};

constexpr std::array kOldInfo = {"xtrabackup_info"sv};
constexpr std::array kOldBinlogInfo = {"xtrabackup_binlog_info"sv};
constexpr std::array kOldCheckpoints = {"xtrabackup_checkpoints"sv};
constexpr std::array kNewInfo = {"mariadb_backup_info"sv, "xtrabackup_info"sv};
constexpr std::array kNewBinlogInfo = {"mariadb_backup_binlog_info"sv, "xtrabackup_binlog_info"sv};
constexpr std::array kNewCheckpoints = {"mariadb_backup_checkpoints"sv, "xtrabackup_checkpoints"sv};

// What an agent's account needs where it is not root. SUPER is for the event scheduler, which has no right of
// its own in MariaDB.
constexpr std::string_view kMariadbAgent =
    "SELECT, RELOAD, PROCESS, SHUTDOWN, CREATE USER, SUPER, REPLICATION SLAVE, BINLOG MONITOR, BINLOG ADMIN, "
    "SLAVE MONITOR, "
    "REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN, READ_ONLY ADMIN, CONNECTION ADMIN";
// SUPER is bit 15 of an account's access, READ_ONLY ADMIN bit 33; roles have an empty host.
constexpr std::string_view kPassesByRole =
    "WITH RECURSIVE pass (name) AS (SELECT User FROM mysql.global_priv WHERE Host='' AND "
    "(CAST(JSON_VALUE(Priv,'$.access') AS UNSIGNED) & (32768|8589934592))<>0 UNION SELECT m.User FROM "
    "mysql.roles_mapping m JOIN pass p ON m.Role=p.name WHERE m.Host='') SELECT "
    "CONCAT(QUOTE(m.User),'@',QUOTE(m.Host)) AS GRANTEE "
    "FROM mysql.roles_mapping m JOIN pass p ON m.Role=p.name WHERE m.Host<>'' UNION SELECT "
    "CONCAT(QUOTE(name),'@') FROM pass WHERE name='PUBLIC'";
constexpr std::string_view kOldAgent =
    "SELECT, RELOAD, LOCK TABLES, PROCESS, SHUTDOWN, CREATE USER, SUPER, REPLICATION SLAVE, REPLICATION CLIENT";
constexpr std::string_view kMysqlAgent =
    "SELECT, RELOAD, PROCESS, SHUTDOWN, CREATE USER, SUPER, REPLICATION SLAVE, REPLICATION CLIENT, "
    "BACKUP_ADMIN, CONNECTION_ADMIN, "
    "REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, BINLOG_ADMIN";
constexpr std::string_view kMysql9Agent =
    "SELECT, RELOAD, PROCESS, SHUTDOWN, CREATE USER, REPLICATION SLAVE, REPLICATION CLIENT, BACKUP_ADMIN, "
    "CLONE_ADMIN, "
    "CONNECTION_ADMIN, REPLICATION_SLAVE_ADMIN, SYSTEM_VARIABLES_ADMIN, BINLOG_ADMIN, SYSTEM_USER, "
    "SESSION_VARIABLES_ADMIN";

// MariaDB from 10.4.3 on, MySQL from 5.7.6 on.
constexpr std::string_view kLasting = " PASSWORD EXPIRE NEVER ACCOUNT UNLOCK";

constexpr ServerVersion v(Family family, unsigned major, unsigned minor, unsigned patch = 0) {
  return {family, major, minor, patch};
}
constexpr unsigned kNoEnd = 1000000;

// The rows of a family differ in few fields: each is made from the one before it.
constexpr Dialect mariadb_10_4() {
  return {
      .family = Family::mariadb,
      .from = v(Family::mariadb, 10, 4),
      .before = v(Family::mariadb, 10, 6, 1),
      .words = &kMariadbWords,
      .show_binlog_status = "SHOW MASTER STATUS",
      .reset_binlogs = "RESET MASTER",
      .gtid = GtidKind::mariadb,
      .gtid_executed = "@@global.gtid_current_pos",
      .gtid_binlog = "@@global.gtid_binlog_pos",
      .gtid_start = "gtid_slave_pos",
      .gtid_option = "MASTER_USE_GTID=slave_pos",
      .gtid_option_off = "MASTER_USE_GTID=no",
      .gtid_wait = "MASTER_GTID_WAIT",
      .gtid_wait_timed_out = "-1",
      .super_read_only = false,
      .passes_read_only = "'SUPER','READ_ONLY ADMIN'",
      .passes_by_role = kPassesByRole,
      .user_name_max = 32,
      .account_hash = AccountHash::native,
      .create_account =
          "CREATE USER {account} IDENTIFIED BY PASSWORD {hash}{require} WITH MAX_USER_CONNECTIONS {limit}{lasting}",
      .grant_replication = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {account}",
      .drop_account = "DROP USER IF EXISTS",
      .require_in_create = " REQUIRE SSL",
      .by_hash = "IDENTIFIED VIA mysql_native_password USING {hash}",
      .by_peer = "IDENTIFIED VIA unix_socket",
      .lasting = kLasting,
      .alter_account = true,
      .agent_privileges = kOldAgent,
      .source_options = "",
      .purge_variables = kExpireDays,
      .tablespace_paths = "SELECT PATH FROM information_schema.innodb_sys_datafiles",
      .innodb_tables = "information_schema.innodb_sys_tables",
      .encrypted_tables =
          "SELECT NAME FROM information_schema.innodb_tablespaces_encryption WHERE ENCRYPTION_SCHEME<>0",
      .looking_opens = true,
      .events = "mysql.event",
      .processlist = "information_schema.processlist",
      .log_updates = "log_slave_updates",
      .backup_tools = kMariadbTools,
      .info_files = kOldInfo,
      .binlog_info_files = kOldBinlogInfo,
      .checkpoints_files = kOldCheckpoints,
      .replica_option = "skip_slave_start",
      .private_option = "",
  };
}
constexpr Dialect mariadb_10_6() {
  Dialect d = mariadb_10_4();
  d.from = v(Family::mariadb, 10, 6, 1);
  d.before = v(Family::mariadb, 11, 0);
  d.purge_variables = kExpireSeconds;
  d.tablespace_paths = "SELECT FILENAME FROM information_schema.innodb_sys_tablespaces";
  d.agent_privileges = kMariadbAgent;
  // REPLICATION CLIENT is BINLOG MONITOR since 10.5.2.
  d.grant_replication = "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {account}";
  return d;
}
constexpr Dialect mariadb_11_0() {
  Dialect d = mariadb_10_6();
  d.from = v(Family::mariadb, 11, 0);
  d.before = v(Family::mariadb, 11, 4);
  d.passes_read_only = "'READ_ONLY ADMIN'";  // SUPER lost it with 10.11
  d.info_files = kNewInfo;
  d.binlog_info_files = kNewBinlogInfo;
  d.checkpoints_files = kNewCheckpoints;
  return d;
}
constexpr Dialect mariadb_11_4() {
  Dialect d = mariadb_11_0();
  d.from = v(Family::mariadb, 11, 4);
  d.before = v(Family::mariadb, kNoEnd, 0);
  d.purge_variables = kExpireSecondsOrSize;
  return d;
}

constexpr Dialect mysql_5_6() {
  return {
      .family = Family::mysql,
      .from = v(Family::mysql, 5, 6, 5),
      .before = v(Family::mysql, 5, 7, 8),
      .words = &kSlaveWords,
      .show_binlog_status = "SHOW MASTER STATUS",
      .reset_binlogs = "RESET MASTER",
      .gtid = GtidKind::mysql,
      .gtid_executed = "@@global.gtid_executed",
      .gtid_binlog = "@@global.gtid_executed",
      .gtid_start = "gtid_purged",
      .gtid_option = "MASTER_AUTO_POSITION=1",
      .gtid_option_off = "MASTER_AUTO_POSITION=0",
      .gtid_wait = "WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS",
      .gtid_wait_timed_out = "-1",
      .super_read_only = false,
      .passes_read_only = "'SUPER'",
      .passes_by_role = "",
      .user_name_max = 16,
      .account_hash = AccountHash::native,
      .create_account = "CREATE USER {account} IDENTIFIED BY PASSWORD {hash}",
      .grant_replication =
          "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {account}{require} WITH MAX_USER_CONNECTIONS {limit}",
      .drop_account = "DROP USER",
      .require_in_create = "",
      .by_hash = "IDENTIFIED BY PASSWORD {hash}",
      .by_peer = "IDENTIFIED WITH auth_socket",
      .lasting = "",
      .alter_account = false,
      .agent_privileges = kOldAgent,
      .source_options = "MASTER_RETRY_COUNT=4294967295",
      .purge_variables = kExpireDays,
      .tablespace_paths = "SELECT PATH FROM information_schema.innodb_sys_datafiles",
      .innodb_tables = "information_schema.innodb_sys_tables",
      .encrypted_tables = "",
      .looking_opens = true,
      .events = "mysql.event",
      .processlist = "information_schema.processlist",
      .log_updates = "log_slave_updates",
      .backup_tools = kXtrabackup,
      .info_files = kOldInfo,
      .binlog_info_files = kOldBinlogInfo,
      .checkpoints_files = kOldCheckpoints,
      .replica_option = "skip_slave_start",
      .private_option = "--gtid-mode=OFF",
  };
}
constexpr Dialect mysql_5_7() {
  Dialect d = mysql_5_6();
  d.from = v(Family::mysql, 5, 7, 8);
  d.before = v(Family::mysql, 8, 0);
  d.private_option = "";
  d.super_read_only = true;
  d.passes_read_only = "";
  d.user_name_max = 32;
  d.gtid_wait = "WAIT_FOR_EXECUTED_GTID_SET";
  d.gtid_wait_timed_out = "1";
  d.create_account =
      "CREATE USER {account} IDENTIFIED WITH mysql_native_password AS {hash}{require} WITH MAX_USER_CONNECTIONS "
      "{limit}{lasting}";
  d.lasting = kLasting;
  d.drop_account = "DROP USER IF EXISTS";
  d.grant_replication = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {account}";
  d.require_in_create = " REQUIRE SSL";
  d.by_hash = "IDENTIFIED WITH mysql_native_password AS {hash}";
  d.alter_account = true;
  d.encrypted_tables =
      "SELECT CONCAT(TABLE_SCHEMA,'/',TABLE_NAME) FROM information_schema.TABLES WHERE CREATE_OPTIONS LIKE "
      "'%ENCRYPTION=_Y_%'";
  return d;
}
constexpr Dialect mysql_8_0_0() {
  Dialect d = mysql_5_7();
  d.from = v(Family::mysql, 8, 0);
  d.before = v(Family::mysql, 8, 0, 17);
  d.account_hash = AccountHash::caching_sha2;
  d.create_account =
      "CREATE USER {account} IDENTIFIED WITH caching_sha2_password AS {hash}{require} WITH MAX_USER_CONNECTIONS "
      "{limit}{lasting}";
  d.by_hash = "IDENTIFIED WITH caching_sha2_password AS {hash}";
  d.agent_privileges = kMysqlAgent;
  d.source_options = "MASTER_RETRY_COUNT=4294967295, GET_MASTER_PUBLIC_KEY=1";
  d.tablespace_paths = "SELECT PATH FROM information_schema.innodb_datafiles";
  d.innodb_tables = "information_schema.innodb_tables";
  d.encrypted_tables = "SELECT NAME FROM information_schema.innodb_tablespaces WHERE ENCRYPTION='Y'";
  d.looking_opens = false;
  d.events = "(SELECT EVENT_SCHEMA AS db, EVENT_NAME AS name, STATUS AS status FROM information_schema.EVENTS)";
  d.purge_variables = kExpireSecondsOrDays;
  return d;
}
constexpr Dialect mysql_8_0_17() {
  Dialect d = mysql_8_0_0();
  d.from = v(Family::mysql, 8, 0, 17);
  d.before = v(Family::mysql, 8, 0, 26);
  d.backup_tools = kXtrabackupOrClone;
  return d;
}
constexpr Dialect mysql_8_0_26() {
  Dialect d = mysql_8_0_17();
  d.from = v(Family::mysql, 8, 0, 26);
  d.before = v(Family::mysql, 8, 2);
  d.words = &kReplicaWords;
  d.gtid_option = "SOURCE_AUTO_POSITION=1";
  d.gtid_option_off = "SOURCE_AUTO_POSITION=0";
  // 8.4 gives up after ten tries unless told otherwise.
  d.source_options = "SOURCE_RETRY_COUNT=4294967295, GET_SOURCE_PUBLIC_KEY=1";
  d.log_updates = "log_replica_updates";
  d.processlist = "performance_schema.processlist";
  d.replica_option = "skip_replica_start";
  return d;
}
constexpr Dialect mysql_8_2() {
  Dialect d = mysql_8_0_26();
  d.from = v(Family::mysql, 8, 2);
  d.before = v(Family::mysql, 8, 4);
  d.show_binlog_status = "SHOW BINARY LOG STATUS";
  d.reset_binlogs = "RESET BINARY LOGS AND GTIDS";
  return d;
}
constexpr Dialect mysql_8_4() {
  Dialect d = mysql_8_2();
  d.from = v(Family::mysql, 8, 4);
  d.before = v(Family::mysql, 9, 0);
  d.agent_privileges = kMysql9Agent;
  d.purge_variables = kExpireSeconds;
  return d;
}
constexpr Dialect mysql_9() {
  Dialect d = mysql_8_4();
  d.from = v(Family::mysql, 9, 0);
  d.before = v(Family::mysql, kNoEnd, 0);
  return d;
}

constexpr std::array kDialects = {mariadb_10_4(), mariadb_10_6(), mariadb_11_0(), mariadb_11_4(),
                                  mysql_5_6(),    mysql_5_7(),    mysql_8_0_0(),  mysql_8_0_17(),
                                  mysql_8_0_26(), mysql_8_2(),    mysql_8_4(),    mysql_9()};

// MySQL upgrades a data directory from one series to the next long-term one, and MariaDB from any to any newer. Percona
// Server has MySQL's rows. From 8.0.16 on MySQL upgrades its system tables itself; MariaDB, and MySQL before, leave
// that to a program. The redo log of MariaDB has had one format since 10.8.
constexpr std::array kCopyFits = {
    CopyFit{v(Family::mariadb, 10, 4), v(Family::mariadb, 10, 8), "mariadb-backup", "=", 0, false,
            v(Family::mariadb, kNoEnd, 0), true, "mariadb-upgrade"},
    CopyFit{v(Family::mariadb, 10, 8), v(Family::mariadb, kNoEnd, 0), "mariadb-backup", "=", 0, true,
            v(Family::mariadb, kNoEnd, 0), true, "mariadb-upgrade"},
    CopyFit{v(Family::mysql, 5, 6), v(Family::mysql, 5, 7), "xtrabackup", "2.3 2.4", 0, false, v(Family::mysql, 5, 8),
            true, "mysql_upgrade"},
    CopyFit{v(Family::mysql, 5, 7), v(Family::mysql, 8, 0), "xtrabackup", "2.4", 0, false, v(Family::mysql, 8, 1), true,
            ""},
    CopyFit{v(Family::mysql, 8, 0), v(Family::mysql, 8, 1), "xtrabackup", "8.0", 34, false, v(Family::mysql, 8, 5),
            false, ""},
    CopyFit{v(Family::mysql, 8, 1), v(Family::mysql, 8, 4), "xtrabackup", "=", 0, false, v(Family::mysql, 8, 5), false,
            ""},
    CopyFit{v(Family::mysql, 8, 4), v(Family::mysql, 9, 0), "xtrabackup", "=", 0, false, v(Family::mysql, 10, 0), false,
            ""},
    CopyFit{v(Family::mysql, 9, 0), v(Family::mysql, kNoEnd, 0), "xtrabackup", "=", 0, false,
            v(Family::mysql, kNoEnd, 0), false, ""},
    CopyFit{v(Family::mysql, 8, 0, 17), v(Family::mysql, 8, 4), "clone", "", 0, false, v(Family::mysql, 8, 5), false,
            ""},
    CopyFit{v(Family::mysql, 8, 4), v(Family::mysql, 9, 0), "clone", "", 0, false, v(Family::mysql, 10, 0), false, ""},
    CopyFit{v(Family::mysql, 9, 0), v(Family::mysql, kNoEnd, 0), "clone", "", 0, false, v(Family::mysql, kNoEnd, 0),
            false, ""},
};

// major.minor[.patch] at the start of `text`.
bool parse_number(std::string_view text, ServerVersion& out) {
  unsigned* const parts[] = {&out.major, &out.minor, &out.patch};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int i = 0; i < 3; ++i) {
    const auto [next, failed] = std::from_chars(at, end, *parts[i]);
    if (failed != std::errc()) return false;
    at = next;
    if (at == end || *at != '.') return i >= 1;
    ++at;
  }
  return true;
}

bool contains_no_case(std::string_view text, std::string_view word) {
  return std::search(text.begin(), text.end(), word.begin(), word.end(), [](char a, char b) {
           const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
           return lower(a) == lower(b);
         }) != text.end();
}

Family rows_of(Family family) {
  return family == Family::percona ? Family::mysql : family;
}

auto number(const ServerVersion& version) {
  return std::tuple(version.major, version.minor, version.patch);
}

bool covers(const CopyFit& row, const ServerVersion& source) {
  return row.from.family == rows_of(source.family) && number(source) >= number(row.from) &&
         number(source) < number(row.before);
}

}  // namespace

std::string_view family_name(Family family) {
  switch (family) {
    case Family::mariadb:
      return "mariadb";
    case Family::mysql:
      return "mysql";
    case Family::percona:
      return "percona";
  }
  return "mysql";
}

std::string ServerVersion::text() const {
  return std::string(family_name(family)) + "-" + series() + "." + std::to_string(patch);
}

std::string ServerVersion::series() const {
  return std::to_string(major) + "." + std::to_string(minor);
}

ServerVersion parse_server_version(std::string_view version, std::string_view comment) {
  ServerVersion out;
  const bool mariadb = contains_no_case(version, "mariadb") || contains_no_case(comment, "mariadb");
  out.family = mariadb ? Family::mariadb : contains_no_case(comment, "percona") ? Family::percona : Family::mysql;
  // MariaDB before 11 put "5.5.5-" before its version for old replicas.
  std::string_view text = version;
  if (mariadb && text.starts_with("5.5.5-")) text.remove_prefix(6);
  if (!parse_number(text, out)) {
    throw Error(Code::failed_precondition,
                "reading the server's version: @@version: \"" + std::string(version.substr(0, 80)) + "\" has no number",
                "the agent knows MariaDB, MySQL and Percona Server");
  }
  return out;
}

ServerVersion parse_datastore_version(std::string_view text) {
  for (const Family family : {Family::mariadb, Family::mysql, Family::percona}) {
    const std::string_view name = family_name(family);
    if (!text.starts_with(name) || text.substr(name.size(), 1) != "-") continue;
    ServerVersion out;
    out.family = family;
    if (parse_number(text.substr(name.size() + 1), out)) return out;
  }
  throw Error(Code::invalid_argument,
              "reading datastore_version: \"" + std::string(text.substr(0, 80)) + "\" is not FAMILY-NUMBER",
              "for example mariadb-10.11.19, mysql-8.4.3, percona-8.0.36");
}

std::span<const Dialect> dialects() {
  return kDialects;
}

const Dialect& dialect_for(const ServerVersion& version) {
  const Dialect* oldest = nullptr;
  for (const Dialect& row : kDialects) {
    if (row.family != rows_of(version.family)) continue;
    if (oldest == nullptr) oldest = &row;
    if (number(version) >= number(row.from) && number(version) < number(row.before)) return row;
  }
  throw Error(Code::failed_precondition, "choosing how to speak to the server: " + version.text() + " is too old",
              "supported from " + oldest->from.text() + " on");
}

std::span<const CopyFit> copy_fits() {
  return kCopyFits;
}

const CopyFit* copy_fit(const ServerVersion& version, std::string_view tool) {
  for (const CopyFit& row : kCopyFits) {
    if (row.tool == tool && covers(row, version)) return &row;
  }
  return nullptr;
}

std::string unsupported_pair(const ServerVersion& source, const ServerVersion& target) {
  const auto pair = source.text() + " to " + target.text();
  if (rows_of(source.family) != rows_of(target.family)) return pair + ": a physical copy fits only its own family";
  if (source.family != target.family) return pair + ": MySQL and Percona Server are not mixed";
  const auto series = [](const ServerVersion& s) { return std::pair(s.major, s.minor); };
  const CopyFit* row = nullptr;
  for (const CopyFit& each : kCopyFits) {
    if (row == nullptr && covers(each, source)) row = &each;
  }
  if (row == nullptr) return pair + ": " + source.text() + " is too old";
  const bool older = series(target) < series(source) ||
                     (series(target) == series(source) && target.patch < source.patch && !row->older_patch);
  if (older) return pair + ": a replica cannot be older than its source";
  if (number(target) >= number(row->target_before)) {
    return pair + ": a data directory is upgraded to the next series only, here to one before " +
           row->target_before.series();
  }
  return {};
}

}  // namespace guestagent::mysql
