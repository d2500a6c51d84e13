#include "strategies/mysql/follow/join.h"

#include "base/error.h"
#include "strategies/mysql/follow/history.h"
#include "strategies/mysql/follow/read_only.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/follow/role_change.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/host/set_mark.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/journal_steps.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kJoinAskTimeout{5000};
constexpr Seconds kJoinPlanPatience{3};
constexpr Seconds kJoinPatience{30};
constexpr Millis kJoinWritesTimeout{10000};

std::string source_of(const SnapshotMetadata& snapshot) {
  return snapshot.master_host + ":" + std::to_string(snapshot.master_port);
}

GtidSet only_here(const MysqlSettings& settings, const SnapshotMetadata& snapshot, ServerClient& client,
                  Millis patience, Clock& clock, const std::stop_token& stop) {
  const ReplicaRecord record{snapshot.master_host,          snapshot.master_port, snapshot.replication_user,
                             snapshot.replication_password, snapshot.require_tls, ""};
  ServerClient source(source_target(record, settings.replication_ca_file, kJoinAskTimeout));
  const GtidKind kind = client.dialect().gtid;
  const GtidSet here = GtidSet::parse(kind, client.gtid_known());
  return not_in_history_soon(kind, here, source, patience, clock, stop);
}

std::string names_errant(const SnapshotMetadata& snapshot, const GtidSet& errant) {
  return "it has what " + source_of(snapshot) + " has not, " + count_and_name(errant);
}

}  // namespace

std::optional<std::string> why_not_join(const MysqlSettings& settings, const fs::path& state_dir,
                                        const AttachRequest& request, ServerClient& client, Clock& clock) {
  const ServerIdentity here = client.identity();
  if (!here.gtid_on || !follow_by_gtid(settings, request.snapshot, client.dialect()))
    return "without GTIDs nobody can tell whether it has parted from that source";
  if (request.snapshot.set.empty() || set_of(state_dir) != request.snapshot.set)
    return "its agent does not know it as one of that source's set";
  if (client.gtid_known().empty()) return "it has data and no GTIDs";
  if (here.server_id == 0) return "its server_id is 0";
  if (asked_server_id(request.own).value_or(here.server_id) != here.server_id)
    return "another server_id is asked for than its own, " + std::to_string(here.server_id);
  if (!here.log_bin) return "its binary log is off";
  const GtidSet errant = only_here(settings, request.snapshot, client, kJoinPlanPatience, clock, {});
  if (!errant.empty()) return names_errant(request.snapshot, errant);
  return std::nullopt;
}

AttachOutcome join(const MysqlSettings& settings, const fs::path& state_dir, ServerControl& control,
                   const AttachRequest& request, JobContext& job, Clock& clock) {
  ServerClient client(local_target(settings));
  const Dialect& dialect = client.dialect();
  const ServerIdentity server = client.identity();
  const SnapshotMetadata& snapshot = request.snapshot;
  ManagedOptions options = options_as_replica(settings, request, server.server_id, server, dialect);
  // Its relay logs begin before its next start: under another name it would not find them then.
  if (server.log_updates) options.relay_log = server.relay_log_basename;
  const std::string managed = write_managed(options, dialect);
  options.read_only = true;
  const std::string held = write_managed(options, dialect);
  job.journal().record(step::kJoinBegin, step::write_writes_before(writes_now(settings, client, true)));
  job.phase("refuse writes");
  // Also where the replica is to be writable: what is compared must stand still, over a restart too. Events are of
  // accounts that often pass read_only.
  if (!server.event_scheduler_disabled) client.set_event_scheduler(false);
  refuse_writes(client, kJoinWritesTimeout, false, job, clock);
  const GtidSet own_before = own_transactions(client);
  const GtidSet errant = only_here(settings, snapshot, client, kJoinPatience, clock, job.stop_token());
  job.check_cancelled();
  if (!errant.empty()) {
    throw Error(Code::failed_precondition,
                "letting this server follow " + source_of(snapshot) + ": " + names_errant(snapshot, errant),
                "look at them before they are given up: attach it with a snapshot and overwrite");
  }
  if (!server.log_updates) {
    job.phase("restart");
    job.journal().record(step::kJoinRestart);
    control.stop(settings.server.stop_timeout);
    put_managed(settings.managed_file, held);
    control.start(settings.server.start_timeout, job.stop_token());
    client.wait_until_up(settings.server.start_timeout, clock, job.stop_token());
    job.journal().record(step::kJoinRestarted);
  }
  put_managed(settings.managed_file, held);
  if (dialect.gtid == GtidKind::mariadb) {
    client.stop_replica();
    client.start_from(GtidSet::parse(dialect.gtid, client.gtid_known()).position().text());
  }
  const AttachOutcome out = start_replicating(settings, state_dir, request, job, clock);
  // By who passes read_only: it was not looked at, and is not known on the new source.
  if (const GtidSet later = own_transactions(client).minus(own_before); !later.empty()) {
    throw Error(Code::failed_precondition,
                "letting this server follow " + source_of(snapshot) + ": somebody wrote to it meanwhile, " +
                    count_and_name(later),
                "take SUPER and READ_ONLY ADMIN from accounts that applications use");
  }
  if (!request.read_only) {
    put_managed(settings.managed_file, managed);
    client.set_read_only(false);
  }
  if (!client.identity().log_updates) {
    job.warn(
        "this server does not write what it applies to its binary log: no replica may follow it, and it cannot take "
        "over");
  }
  return out;
}

std::string recover_join(const MysqlSettings& settings, const fs::path& state_dir, ServerControl& control,
                         JobContext& job) {
  const Journal::Step* const begun = job.journal().find(step::kJoinBegin);
  if (begun == nullptr || job.journal().find(step::kJoinUndone) != nullptr) return "";
  const step::WritesBefore before = step::read_writes_before(*begun);
  if (job.journal().find(step::kJoinRestart) != nullptr && job.journal().find(step::kJoinRestarted) == nullptr) {
    control.stop(settings.server.stop_timeout);
    put_managed(settings.managed_file, before.managed);
    control.start(settings.server.start_timeout);
    job.journal().record(step::kJoinRestarted);
  }
  ServerClient client(local_target(settings));
  if (job.journal().find(step::kReplicaStart) != nullptr) {
    client.stop_replica();
    client.reset_replica_all();
    remove_replica_record(state_dir);
  }
  put_writes_back(settings, client, before);
  job.journal().record(step::kJoinUndone);
  return "let the server follow nobody, as before";
}

}  // namespace guestagent::mysql
