#include "strategies/mysql/server/replication_errors.h"

#include <array>

#include "base/text.h"

namespace guestagent::mysql {
namespace {

struct Row {
  unsigned number;
  Code code;
  bool passing;  // may go away by waiting
  std::string_view hint;
};

constexpr std::string_view kAccountHint =
    "the replication account of this snapshot must exist on the source and allow this host; "
    "cleanup_replication_source drops it";
constexpr std::string_view kNetworkHint = "is master.host:port reachable from this host, and the source running?";
constexpr std::string_view kKeysHint =
    "give this server the source's keys: the same key plugin or keyring component, with the same keys";

// Of the thread that receives. Everything else stops it for good.
constexpr std::array kIoErrors = {
    Row{1044, Code::permission_denied, false, kAccountHint},
    Row{1045, Code::permission_denied, false, kAccountHint},
    Row{1130, Code::permission_denied, false, kAccountHint},
    Row{1142, Code::permission_denied, false, kAccountHint},
    Row{1227, Code::permission_denied, false, kAccountHint},
    Row{1698, Code::permission_denied, false, kAccountHint},
    Row{2061, Code::permission_denied, false, "the account needs TLS or the source's public key"},
    Row{1040, Code::unavailable, true, "the source has no free connection: max_connections"},
    Row{1129, Code::unavailable, true, "the source blocks this host after failed connections: FLUSH HOSTS on it"},
    Row{2002, Code::unavailable, true, kNetworkHint},
    Row{2003, Code::unavailable, true, kNetworkHint},
    Row{2005, Code::unavailable, true, kNetworkHint},
    Row{2006, Code::unavailable, true, kNetworkHint},
    Row{2013, Code::unavailable, true, kNetworkHint},
    Row{2026, Code::failed_precondition, false, "TLS: mysql.replication_ca_file, and the source's certificate"},
    Row{3159, Code::failed_precondition, false, "the source insists on TLS"},
    Row{1236, Code::failed_precondition, false,
        "the source no longer has the binary logs from the snapshot's position on, or another history: take "
        "a new snapshot"},
    Row{13114, Code::failed_precondition, false,
        "the source no longer has the binary logs from the snapshot's position on, or another history: take "
        "a new snapshot"},
    Row{1593, Code::failed_precondition, false,
        "two servers have the same server_id or server_uuid: give this one another"},
    Row{13117, Code::failed_precondition, false,
        "two servers have the same server_id or server_uuid: give this one another"},
    Row{1597, Code::permission_denied, false, kAccountHint},
    Row{13120, Code::permission_denied, false, kAccountHint},
};

// Of the thread that applies, where it is this server and not its data that does not fit.
constexpr std::array kSqlErrors = {
    Row{3184, Code::failed_precondition, false, kKeysHint},
    Row{3185, Code::failed_precondition, false, kKeysHint},
    Row{1286, Code::failed_precondition, false, "install the storage engine that the source's table needs"},
    Row{1289, Code::failed_precondition, false, "turn on here what the source's statement needs"},
    Row{1524, Code::failed_precondition, false, "install the plugin that the source's statement needs"},
    Row{1021, Code::resource_exhausted, false, "free space for the replica's data and logs"},
    Row{1666, Code::failed_precondition, false,
        "binlog_format=MIXED or ROW: a server that logs statements only cannot log a source's rows"},
};

template <typename Rows>
const Row* find(const Rows& rows, unsigned number) {
  for (const Row& row : rows) {
    if (row.number == number) return &row;
  }
  return nullptr;
}

bool has(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

}  // namespace

std::string thread_error(unsigned number, const std::string& message) {
  return std::to_string(number) + ": " + printable(message, 400);
}

std::optional<Error> replication_error(const ReplicaStatus& status, bool include_passing) {
  // A running thread's number is that of a transaction which it tries again by itself.
  if (status.sql == ThreadState::stopped && (status.sql_errno != 0 || !status.sql_error.empty())) {
    const std::string what =
        "applying the source's transactions: error " + thread_error(status.sql_errno, status.sql_error);
    if (const Row* const row = find(kSqlErrors, status.sql_errno))
      return Error(row->code, what, std::string(row->hint));
    // MariaDB says it in words only; MySQL's workers stop with one number for all that goes wrong.
    for (const std::string_view words : {"master key", "decrypt", "encryption key", "encryption service"}) {
      if (has(status.sql_error, words)) return Error(Code::failed_precondition, what, std::string(kKeysHint));
    }
    return Error(Code::data_loss, what, "the replica's data does not fit the source's history: attach it anew");
  }
  if (status.io == ThreadState::running || (status.io_errno == 0 && status.io_error.empty())) return std::nullopt;
  const std::string message = "receiving from " + status.source_host + ":" + std::to_string(status.source_port) +
                              ": error " + thread_error(status.io_errno, status.io_error);
  const Row* const row = find(kIoErrors, status.io_errno);
  if (row == nullptr) {
    if (status.io != ThreadState::stopped && !include_passing) return std::nullopt;
    return Error(Code::internal, message, "see the replica's own error log");
  }
  if (row->passing && !include_passing) return std::nullopt;
  // Some versions report a missing right on the way in as a reconnecting thread with the right's number in
  // the words only.
  if (row->passing && (has(status.io_error, "Access denied") || has(status.io_error, "not allowed to connect"))) {
    return Error(Code::permission_denied, message, std::string(kAccountHint));
  }
  return Error(row->code, message, std::string(row->hint));
}

bool means_diverged(const ReplicaStatus& status) {
  switch (status.sql_errno) {
    case 1032:  // a row to change is not there
    case 1062:  // a row to add is there
    case 1950:  // gtid_strict_mode: out of order
    case 1396:  // an account to make is there, or one to drop is not
    case 1007:
    case 1008:
    case 1050:
    case 1051:
      return true;
    default:
      break;
  }
  return status.io_errno == 1236 && (has(status.io_error, "diverged") || has(status.io_error, "errant") ||
                                     has(status.io_error, "not in the master's binlog"));
}

}  // namespace guestagent::mysql
