#include "strategies/mysql/follow/replica_start.h"

#include <algorithm>
#include <cctype>

#include "strategies/mysql/follow/history.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/host/set_mark.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/replication_errors.h"
#include "strategies/mysql/server/sql_connection.h"

namespace guestagent::mysql {
namespace {

constexpr int kTooManyRows = 1104;  // "The SELECT would examine more than MAX_JOIN_SIZE rows"
constexpr Millis kSlice{1000};      // of one wait in the server; between two of them the threads are looked at
constexpr Millis kConnectPatience{
    60000};  // how long the receiving thread may take to reach a source that does not refuse it
constexpr Millis kSourceTimeout{5000};

// The place that the source had when replication started, once it is known.
struct Target {
  std::optional<Position> position;
  std::optional<Error> refused;  // why the source could not be asked
};

class Follower {
 public:
  Follower(const MysqlSettings& settings, const AttachRequest& request, JobContext& job, Clock& clock)
      : settings_(settings), request_(request), job_(job), clock_(clock), client_(local_target(settings)) {}

  AttachOutcome run(const fs::path& state_dir) {
    const SnapshotMetadata& snapshot = request_.snapshot;
    const ServerIdentity server = client_.identity();
    by_gtid_ = follow_by_gtid(settings_, snapshot, client_.dialect());
    job_.phase("connect to source");
    job_.journal().record(step::kReplicaStart);
    point_at(snapshot);
    start_set_ = by_gtid_ ? client_.gtid_start() : "";

    ReplicaRecord record{snapshot.master_host,          snapshot.master_port, snapshot.replication_user,
                         snapshot.replication_password, snapshot.require_tls, own_transactions(client_).text()};
    client_.start_replica();
    ask_source(record);

    AttachOutcome out;
    out.own = own_server_id(server.server_id);
    out.read_only = request_.read_only;
    out.caught_up = catch_up();
    save_replica_record(state_dir, record);
    keep_set(state_dir, snapshot.set);
    return out;
  }

 private:
  void point_at(const SnapshotMetadata& snapshot) {
    client_.stop_replica();
    client_.reset_replica_all();
    const Position told = position_of(snapshot.data_position);
    const Position position = told.restored ? restored_position(snapshot) : told;
    if (by_gtid_ && !told.restored && !request_.data_is_here) client_.start_from(*position.gtid);
    NewSource source;
    source.host = snapshot.master_host;
    source.port = snapshot.master_port;
    source.user = snapshot.replication_user;
    source.password = snapshot.replication_password;
    source.tls = snapshot.require_tls;
    source.ca_file = settings_.replication_ca_file;
    source.by_gtid = by_gtid_;
    if (!by_gtid_) {
      if (!position.file || !position.offset) {
        throw Error(Code::failed_precondition, "starting replication: the snapshot has no binary log file and position",
                    "mysql.replication: gtid");
      }
      source.file = *position.file;
      source.offset = *position.offset;
    }
    client_.change_source(source);
  }

  // What the server that runs on the restored data says of itself. It was copied after the lease began: what it has
  // less than the source had then would be a copy of something else.
  Position restored_position(const SnapshotMetadata& snapshot) {
    if (!by_gtid_) return client_.cloned_position();
    Position out;
    const GtidKind kind = client_.dialect().gtid;
    out.gtid = client_.gtid_executed();
    const GtidSet lease = GtidSet::parse(kind, *told_gtid(snapshot));
    const std::uint64_t missing = GtidSet::parse(kind, *out.gtid).missing(lease);
    if (missing != 0) {
      throw Error(Code::data_loss,
                  "reading the position of the restored data: it lacks " + std::to_string(missing) +
                      " transactions that the source had when the copy began",
                  "take the snapshot again");
    }
    return out;
  }

  void ask_source(const ReplicaRecord& record) {
    try {
      ServerClient source(source_target(record, settings_.replication_ca_file, kSourceTimeout));
      target_.position = source.binlog_status().position;
    } catch (const Error& e) {
      // The receiving thread may do better; then what it has received when it waits for more is the place.
      target_.refused = e;
    }
  }

  // Throws when the threads' errors say that waiting is useless.
  ReplicaStatus look() {
    const auto all = client_.replica_status();
    if (all.empty()) throw Error(Code::failed_precondition, "starting replication: somebody removed it meanwhile");
    const ReplicaStatus& status = all.front();
    if (const auto error = replication_error(status, false)) throw error->with_context("starting replication");
    if (status.io == ThreadState::running) {
      connecting_since_ = clock_.steady();
    } else if (target_.refused && target_.refused->code() == Code::permission_denied) {
      throw target_.refused->with_context("starting replication: asking the source");
    }
    if (clock_.steady() - connecting_since_ > kConnectPatience) {
      if (const auto error = replication_error(status, true)) throw error->with_context("starting replication");
      throw Error(Code::unavailable,
                  "starting replication: the receiving thread does not reach " + status.source_host + ":" +
                      std::to_string(status.source_port) + ": " + status.io_state,
                  "is master.host:port reachable from this host, and the source running?");
    }
    if (!target_.position && status.io == ThreadState::running && status.io_state.find("Waiting for") == 0 &&
        status.io_state.find("send event") != std::string::npos) {
      target_.position = status.received;
    }
    return status;
  }

  void show_progress(const ReplicaStatus& status) {
    if (!by_gtid_ || !target_.position || !target_.position->gtid) return;
    const GtidKind kind = client_.dialect().gtid;
    const GtidSet target = GtidSet::parse(kind, *target_.position->gtid);
    const std::uint64_t all = GtidSet::parse(kind, start_set_).missing(target);
    const std::uint64_t left = GtidSet::parse(kind, status.applied.gtid.value_or("")).missing(target);
    job_.progress(all - std::min(all, left), all);
  }

  bool reached(Millis slice) {
    if (!target_.position) {
      clock_.sleep(std::min(slice, Millis(200)), job_.stop_token());
      return false;
    }
    if (by_gtid_) return client_.wait_applied(target_.position->gtid.value_or(""), slice);
    if (!target_.position->file) return true;
    // The thread that applies may not be up yet, which is no failure here: its errors were looked at.
    if (client_.replica_status().front().sql != ThreadState::running) {
      clock_.sleep(Millis(200), job_.stop_token());
      return false;
    }
    return client_.wait_applied(*target_.position->file, target_.position->offset.value_or(0), slice);
  }

  // True when the target was reached with both threads running, false when the time was up with both running.
  bool catch_up() {
    const SteadyTime deadline = clock_.steady() + request_.catch_up_timeout.value_or(settings_.catch_up_timeout);
    connecting_since_ = clock_.steady();
    bool phase_told = false, arrived = false;
    for (;;) {
      job_.check_cancelled();
      const ReplicaStatus status = look();
      const bool both = status.io == ThreadState::running && status.sql == ThreadState::running;
      if (both && !phase_told) {
        job_.phase("catch up");
        phase_told = true;
      }
      show_progress(status);
      if (arrived && both) return true;
      const SteadyTime now = clock_.steady();
      if (now >= deadline) {
        if (both) return false;
        if (const auto error = replication_error(status, true)) throw error->with_context("starting replication");
        throw Error(Code::deadline_exceeded,
                    "starting replication: a thread does not run: " + status.io_state + status.sql_state,
                    "see the replica's own error log");
      }
      if (arrived) {
        clock_.sleep(Millis(100), job_.stop_token());
      } else {
        arrived = reached(std::min(kSlice, std::chrono::duration_cast<Millis>(deadline - now) + Millis(1)));
      }
    }
  }

  const MysqlSettings& settings_;
  const AttachRequest& request_;
  JobContext& job_;
  Clock& clock_;
  ServerClient client_;
  bool by_gtid_ = true;
  std::string start_set_;
  Target target_;
  SteadyTime connecting_since_;
};

// Whether a session there may begin with a limit on what it reads, set for everybody or by init_connect.
bool limits_reads(ServerClient& source, std::string_view init_connect) {
  std::string lower(init_connect);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const std::string big = source.variable("sql_big_selects").value_or("ON");
  return big == "OFF" || big == "0" || lower.find("max_join_size") != std::string::npos ||
         lower.find("sql_big_selects") != std::string::npos;
}

// The first question of a receiving thread, under the limits that it will have: our own sessions lift them, it does
// not. What init_connect does is done once more, as by each login of this account.
void ask_as_a_receiving_thread(const ConnectTarget& target, Family family, const std::string& init_connect) {
  SqlConnection session(target);
  session.run("SET SESSION sql_select_limit=DEFAULT, max_join_size=DEFAULT, sql_big_selects=DEFAULT");
  if (!init_connect.empty()) session.run(init_connect);
  session.run(family == Family::mariadb ? "SHOW VARIABLES LIKE 'SERVER_ID'" : "SELECT @@GLOBAL.SERVER_ID");
}

}  // namespace

bool follow_by_gtid(const MysqlSettings& settings, const SnapshotMetadata& snapshot, const Dialect& dialect) {
  if (settings.replication != "gtid" || dialect.gtid == GtidKind::none) return false;
  return told_gtid(snapshot).has_value();
}

std::optional<std::string> told_gtid(const SnapshotMetadata& snapshot) {
  const Position data = position_of(snapshot.data_position);
  return data.restored ? position_of(snapshot.lease_position).gtid : data.gtid;
}

AttachOutcome start_replicating(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                                JobContext& job, Clock& clock) {
  return Follower(settings, request, job, clock).run(state_dir);
}

void check_source_reachable(const MysqlSettings& settings, const SnapshotMetadata& snapshot, std::uint32_t server_id,
                            std::vector<Check>& out) {
  const std::string where = snapshot.master_host + ":" + std::to_string(snapshot.master_port);
  const auto add = [&](std::string name, Check::Result result, std::string message, std::string hint = "",
                       Code code = Code::failed_precondition) {
    out.push_back({std::move(name), result, std::move(message), std::move(hint), code});
  };
  ReplicaRecord record{snapshot.master_host,          snapshot.master_port, snapshot.replication_user,
                       snapshot.replication_password, snapshot.require_tls, ""};
  try {
    ServerClient source(source_target(record, settings.replication_ca_file, kSourceTimeout));
    const ServerIdentity identity = source.identity();
    add("source", Check::Result::ok, where + " answers the snapshot's account");
    if (const std::string at_login = source.variable("init_connect").value_or(""); limits_reads(source, at_login)) {
      try {
        ask_as_a_receiving_thread(source_target(record, settings.replication_ca_file, kSourceTimeout),
                                  source.dialect().family, at_login);
      } catch (const SqlError& e) {
        const bool refused = e.number() == kTooManyRows;
        add("source", refused ? Check::Result::failed : Check::Result::warning,
            std::string(refused ? "a receiving thread may not read what it needs: " : "its limits cannot be tried: ") +
                e.what(),
            "take max_join_size and sql_big_selects out of the source's init_connect and its option files: they hold "
            "for the replicas' account");
      }
    }
    if (identity.server_id == server_id) {
      add("server id", Check::Result::failed, "the source has server_id " + std::to_string(server_id) + " too",
          "another server_id for this host (slave_config.server_id); a server is not its own replica");
    } else {
      add("server id", Check::Result::ok, std::to_string(server_id) + " is not the source's");
    }
    if (const auto first = position_of(snapshot.lease_position).file) {
      const auto files = source.binlog_files();
      const bool there =
          std::any_of(files.begin(), files.end(), [&](const BinlogFile& each) { return each.name == *first; });
      if (there) {
        add("binary logs", Check::Result::ok, "the source has them from " + *first + " on");
      } else {
        add("binary logs", Check::Result::failed, "the source has no " + *first + " any more", "take a new snapshot");
      }
    }
  } catch (const SqlError& e) {
    // After the login: its init_connect has failed for an account that may do little.
    const bool cut = e.number() == 2013;
    add("source", Check::Result::failed, e.what(),
        e.hint() + (cut ? "; does the source's init_connect do what the replicas' account may not do?" : ""), e.code());
  } catch (const Error& e) {
    add("source", Check::Result::failed, e.what(), e.hint(), e.code());
  }
}

}  // namespace guestagent::mysql
