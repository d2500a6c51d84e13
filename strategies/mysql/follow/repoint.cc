#include "strategies/mysql/follow/repoint.h"

#include "strategies/mysql/follow/history.h"
#include "strategies/mysql/follow/relay_log.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/host/set_mark.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/journal_steps.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kNewSourceTimeout{5000};
constexpr Seconds kPlanPatience{10};
constexpr Seconds kPatience{60};

ReplicaRecord record_of(const SnapshotMetadata& snapshot) {
  return {snapshot.master_host,          snapshot.master_port, snapshot.replication_user,
          snapshot.replication_password, snapshot.require_tls, ""};
}

std::string place(const std::string& host, std::uint16_t port) {
  return host + ":" + std::to_string(port);
}

GtidSet applied_here(ServerClient& client, const ReplicaStatus& channel) {
  return GtidSet::parse(client.dialect().gtid, channel.applied.gtid.value_or(""));
}

// What of `here` is not on the source, which may itself be on its way to there.
GtidSet beyond_source(const MysqlSettings& settings, const SnapshotMetadata& snapshot, const GtidSet& here,
                      GtidKind kind, Millis patience, Clock& clock, const std::stop_token& stop) {
  ServerClient source(source_target(record_of(snapshot), settings.replication_ca_file, kNewSourceTimeout));
  return not_in_history_soon(kind, here, source, patience, clock, stop);
}

void write_record(JsonWriter& out, const ReplicaRecord& record) {
  out.member("host", record.host)
      .member("port", unsigned{record.port})
      .member("user", record.user)
      .member("password", record.password.reveal())
      .member("tls", record.tls)
      .member("own_gtid", record.own_gtid);
}

ReplicaRecord read_record(const JsonReader& in) {
  return {in.string("host"), static_cast<std::uint16_t>(in.uint("port", 1, 65535)),
          in.string("user"), Secret(in.string("password")),
          in.boolean("tls"), in.string("own_gtid")};
}

// Makes sure that nothing is lost with the relay log, then stops both threads. False: something would be, and the
// threads go on.
bool give_up_new_source(const MysqlSettings& settings, const ReplicaRecord& old_source,
                        const std::optional<ReplicaRecord>& new_source, ServerClient& client, JobContext& job,
                        Clock& clock) {
  const auto channels = client.replica_status();
  if (!channels.empty()) {
    const GtidSet only_here = unapplied(client.dialect().gtid, channels.front());
    const bool elsewhere = only_here.empty() || (new_source && source_has(*new_source, settings, only_here)) ||
                           source_has(old_source, settings, only_here);
    if (!elsewhere) {
      if (channels.front().sql != ThreadState::running) return false;
      client.stop_receiving();
      try {
        drain(settings, kPatience, job, clock, client);
      } catch (const Error& e) {
        job.warn(std::string("undoing the change of the source: ") + e.what());
        if (client.replica_status().front().sql == ThreadState::running) client.start_receiving();
        return false;
      }
    }
  }
  client.stop_replica();
  return true;
}

std::optional<std::string> unfit(const MysqlSettings& settings, const AttachRequest& request, ServerClient& client,
                                 const std::vector<ReplicaStatus>& channels) {
  const ServerIdentity here = client.identity();
  const ReplicaStatus& channel = channels.front();
  if (channels.size() > 1) return "it follows several sources";
  if (!channel.by_gtid || !follow_by_gtid(settings, request.snapshot, client.dialect()))
    return "it does not follow by GTID";
  if (channel.delay > 0) return "it is delayed on purpose";
  if (channel.sql == ThreadState::stopped && channel.sql_errno != 0)
    return "its applying thread is stopped by an error";
  if (channel.sql == ThreadState::stopped && channel.io != ThreadState::stopped)
    return "it receives, but its applying thread is stopped";
  if (asked_server_id(request.own).value_or(here.server_id) != here.server_id) return "another server_id is asked for";
  if (request.read_only != here.read_only) return "another read_only is asked for";
  return std::nullopt;
}

}  // namespace

std::optional<std::string> why_not_repoint(const MysqlSettings& settings, const fs::path& state_dir,
                                           const AttachRequest& request, ServerClient& client, Clock& clock) {
  const std::vector<ReplicaStatus> channels = client.replica_status();
  if (auto why = unfit(settings, request, client, channels)) return why;
  const ReplicaStatus& channel = channels.front();
  const auto record = load_replica_record(state_dir);
  if (!record || record->host != channel.source_host || record->port != channel.source_port ||
      record->user != channel.source_user) {
    return "this agent did not make it follow " + place(channel.source_host, channel.source_port);
  }
  const GtidKind kind = client.dialect().gtid;
  const GtidSet errant = own_transactions(client).minus(GtidSet::parse(kind, record->own_gtid));
  if (!errant.empty()) return "it has transactions of its own: " + errant.text();

  // The source keeps its binary logs from the lease on: what comes after it can be had from there. What comes before
  // may be there or not: one that is told of without data says so itself when it is asked for it.
  const SnapshotMetadata& snapshot = request.snapshot;
  // GTIDs of servers that never met may look alike.
  const bool same_source = snapshot.master_host == record->host && snapshot.master_port == record->port;
  if (const std::string set = set_of(state_dir);
      !same_source && !set.empty() && !snapshot.set.empty() && set != snapshot.set)
    return "it is of another set than " + place(snapshot.master_host, snapshot.master_port);
  auto from = position_of(snapshot.lease_position).gtid;
  if (!from) from = position_of(snapshot.data_position).gtid;
  if (!from) return "the snapshot has no GTID position";
  const bool waits = channel.io == ThreadState::running && channel.sql == ThreadState::running;
  if (snapshot.has_data && !applied_here(client, channel).contains(GtidSet::parse(kind, *from)) &&
      !(waits && client.wait_applied(*from, kPlanPatience))) {
    return "it has not all that the snapshot has (" + *from + ")";
  }
  const std::vector<ReplicaStatus> later = client.replica_status();
  const GtidSet here = received_or_applied(kind, later.empty() ? channel : later.front());
  const GtidSet beyond = beyond_source(settings, snapshot, here, kind, kPlanPatience, clock, {});
  if (!beyond.empty())
    return "it has transactions that " + place(snapshot.master_host, snapshot.master_port) +
           " has not: " + beyond.text();
  return std::nullopt;
}

AttachOutcome repoint(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                      JobContext& job, Clock& clock) {
  ServerClient client(local_target(settings));
  const auto record = load_replica_record(state_dir);
  const auto channels = client.replica_status();
  if (!record || channels.empty()) {
    throw Error(Code::failed_precondition, "pointing the replica at another source: it is no replica any more",
                "attach it with overwrite");
  }
  const bool receiving = channels.front().io != ThreadState::stopped;
  const bool applying = channels.front().sql != ThreadState::stopped;
  const SnapshotMetadata& snapshot = request.snapshot;
  ReplicaRecord next = record_of(snapshot);
  next.own_gtid = record->own_gtid;
  JsonWriter begin;
  begin.begin_object();
  write_record(begin, *record);
  begin.member("receiving", receiving).member("applying", applying).key("next").begin_object();
  write_record(begin, next);
  begin.end_object().end_object();
  job.journal().record(step::kRepointBegin, begin.text());
  if (applying) {
    job.phase("drain");
    client.stop_receiving();
    try {
      drain(settings, request.catch_up_timeout.value_or(settings.drain_timeout), job, clock, client);
    } catch (const Error& e) {
      if (e.code() == Code::cancelled) throw;
      throw Error(e.code(),
                  std::string("pointing the replica at another source: what it has received must be applied first: ") +
                      e.what(),
                  "it goes on following as before; try again when it has applied that, or attach with overwrite");
    }
  } else if (receiving) {
    throw Error(Code::failed_precondition,
                "pointing the replica at another source: it receives, but its applying thread is stopped",
                "start it (START SLAVE SQL_THREAD), so that what was received is applied, or attach with overwrite");
  }
  const GtidKind kind = client.dialect().gtid;
  const GtidSet beyond = beyond_source(settings, snapshot, received_or_applied(kind, client.replica_status().front()),
                                       kind, kPatience, clock, job.stop_token());
  job.check_cancelled();
  if (!beyond.empty()) {
    throw Error(Code::failed_precondition,
                "pointing the replica at another source: it has transactions that " +
                    place(snapshot.master_host, snapshot.master_port) + " has not: " + beyond.text(),
                "wait until that source has them, or attach with overwrite");
  }
  const AttachOutcome out = start_replicating(settings, state_dir, request, job, clock);
  try {
    // It was a replica before: its options are those of the agent that attached it.
    renew_managed(settings.managed_file, client.dialect());
  } catch (const Error& e) {
    job.warn("the replica's options are those of an earlier version: " + std::string(e.what()));
  }
  return out;
}

std::string recover_repoint(const MysqlSettings& settings, const fs::path& state_dir, JobContext& job, Clock& clock) {
  const Journal::Step* const begun = job.journal().find(step::kRepointBegin);
  if (begun == nullptr || job.journal().find(step::kRepointUndone) != nullptr) return "";
  const JsonDocument document = parse_json(begun->data, "journal");
  const JsonReader in(document, "journal", Code::data_loss);
  const ReplicaRecord record = read_record(in);
  std::optional<ReplicaRecord> next;  // an older agent did not write it
  if (in.has("next")) next = read_record(in.object("next"));
  ServerClient client(local_target(settings));
  if (job.journal().find(step::kReplicaStart) != nullptr) {
    if (!give_up_new_source(settings, record, next, client, job, clock)) {
      if (next) save_replica_record(state_dir, *next);
      job.journal().record(step::kRepointUndone);
      return "left the replica with its new source: it has received from there what is not applied and what no source "
             "that answers has";
    }
    client.reset_replica_all();
    NewSource source;
    source.host = record.host;
    source.port = record.port;
    source.user = record.user;
    source.password = record.password;
    source.tls = record.tls;
    source.ca_file = settings.replication_ca_file;
    client.change_source(source);
    save_replica_record(state_dir, record);
  }
  resume_following(client, settings, record, in.boolean("receiving"), in.boolean("applying"), job);
  job.journal().record(step::kRepointUndone);
  return "let the replica follow " + place(record.host, record.port) + " as before";
}

}  // namespace guestagent::mysql
