#include "strategies/mysql/repoint.h"

#include "strategies/mysql/gtid.h"
#include "strategies/mysql/replica_record.h"
#include "strategies/mysql/replica_start.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kBeginStep = "repoint.begin";
constexpr std::string_view kUndoneStep = "repoint.undone";
constexpr Millis kNewSourceTimeout{5000};
constexpr Millis kSourcePoll{200};
constexpr Seconds kPlanPatience{10};
constexpr Seconds kPatience{60};

ReplicaRecord record_of(const SnapshotMetadata& snapshot) {
  return {snapshot.master_host, snapshot.master_port, snapshot.replication_user, snapshot.replication_password, snapshot.require_tls, ""};
}

std::string place(const std::string& host, std::uint16_t port) { return host + ":" + std::to_string(port); }

GtidSet applied_here(ServerClient& client, const ReplicaStatus& channel) {
  return GtidSet::parse(client.dialect().gtid, channel.applied.gtid.value_or(""));
}

GtidSet own_transactions(ServerClient& client) {
  const GtidKind kind = client.dialect().gtid;
  const ServerIdentity server = client.identity();
  if (kind == GtidKind::mariadb) {
    return GtidSet::parse(kind, client.variable("gtid_binlog_state").value_or("")).written_by(std::to_string(server.server_id));
  }
  return GtidSet::parse(kind, client.gtid_executed()).written_by(server.server_uuid);
}

// What is here and not on the source, which may itself be on its way to there.
GtidSet beyond_source(const MysqlSettings& settings, const SnapshotMetadata& snapshot, const GtidSet& applied, GtidKind kind,
                      Millis patience, Clock& clock, const std::stop_token& stop) {
  ServerClient source(source_target(record_of(snapshot), settings.replication_ca_file, kNewSourceTimeout));
  const SteadyTime deadline = clock.steady() + patience;
  for (;;) {
    const GtidSet there = GtidSet::parse(kind, source.binlog_status().position.gtid.value_or(""));
    GtidSet beyond = applied.minus(there);
    if (beyond.empty() || clock.steady() >= deadline || stop.stop_requested()) return beyond;
    clock.sleep(kSourcePoll, stop);
  }
}

std::optional<std::string> unfit(const MysqlSettings& settings, const AttachRequest& request, ServerClient& client,
                                 const std::vector<ReplicaStatus>& channels) {
  const ServerIdentity here = client.identity();
  const ReplicaStatus& channel = channels.front();
  if (channels.size() > 1) return "it follows several sources";
  if (!channel.by_gtid || !follow_by_gtid(settings, request.snapshot, client.dialect())) return "it does not follow by GTID";
  if (channel.delay > 0) return "it is delayed on purpose";
  if (channel.sql == ThreadState::stopped && channel.sql_errno != 0) return "its applying thread is stopped by an error";
  if (request.server_id && *request.server_id != here.server_id) return "another server_id is asked for";
  if (request.read_only != here.read_only) return "another read_only is asked for";
  return std::nullopt;
}

}  // namespace

std::optional<std::string> why_not_repoint(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request,
                                           ServerClient& client, Clock& clock) {
  const std::vector<ReplicaStatus> channels = client.replica_status();
  if (auto why = unfit(settings, request, client, channels)) return why;
  const ReplicaStatus& channel = channels.front();
  const auto record = load_replica_record(state_dir);
  if (!record || record->host != channel.source_host || record->port != channel.source_port || record->user != channel.source_user) {
    return "this agent did not make it follow " + place(channel.source_host, channel.source_port);
  }
  const GtidKind kind = client.dialect().gtid;
  const GtidSet errant = own_transactions(client).minus(GtidSet::parse(kind, record->own_gtid));
  if (!errant.empty()) return "it has transactions of its own: " + errant.text();

  // The source keeps its binary logs from the lease on: what comes after it can be had from there.
  const SnapshotMetadata& snapshot = request.snapshot;
  const auto& from = snapshot.lease_position.gtid ? snapshot.lease_position.gtid : snapshot.binlog_position.gtid;
  if (!from) return "the snapshot has no GTID position";
  const bool waits = channel.io == ThreadState::running && channel.sql == ThreadState::running;
  if (!applied_here(client, channel).contains(GtidSet::parse(kind, *from)) && !(waits && client.wait_applied(*from, kPlanPatience))) {
    return "it has not all that the snapshot has (" + *from + ")";
  }
  const GtidSet beyond = beyond_source(settings, snapshot, applied_here(client, channel), kind, kPlanPatience, clock, {});
  if (!beyond.empty()) return "it has transactions that " + place(snapshot.master_host, snapshot.master_port) + " has not: " + beyond.text();
  return std::nullopt;
}

AttachOutcome repoint(const MysqlSettings& settings, const fs::path& state_dir, const AttachRequest& request, JobContext& job,
                      Clock& clock) {
  ServerClient client(local_target(settings));
  const auto record = load_replica_record(state_dir);
  const auto channels = client.replica_status();
  if (!record || channels.empty()) {
    throw Error(Code::failed_precondition, "pointing the replica at another source: it is no replica any more", "attach it with overwrite");
  }
  JsonWriter begin;
  begin.begin_object()
      .member("host", record->host)
      .member("port", unsigned{record->port})
      .member("user", record->user)
      .member("password", record->password.reveal())
      .member("tls", record->tls)
      .member("own_gtid", record->own_gtid)
      .member("receiving", channels.front().io != ThreadState::stopped)
      .member("applying", channels.front().sql != ThreadState::stopped)
      .end_object();
  job.journal().record(kBeginStep, begin.text());
  client.stop_replica();
  const SnapshotMetadata& snapshot = request.snapshot;
  const GtidSet beyond = beyond_source(settings, snapshot, applied_here(client, client.replica_status().front()), client.dialect().gtid,
                                       kPatience, clock, job.stop_token());
  job.check_cancelled();
  if (!beyond.empty()) {
    throw Error(Code::failed_precondition,
                "pointing the replica at another source: it has transactions that " + place(snapshot.master_host, snapshot.master_port) +
                    " has not: " + beyond.text(),
                "wait until that source has them, or attach with overwrite");
  }
  return start_replicating(settings, state_dir, request, job, clock);
}

std::string recover_repoint(const MysqlSettings& settings, const fs::path& state_dir, JobContext& job) {
  const Journal::Step* const step = job.journal().find(kBeginStep);
  if (step == nullptr || job.journal().find(kUndoneStep) != nullptr) return "";
  const JsonDocument document = parse_json(step->data, "journal");
  const JsonReader in(document, "journal", Code::data_loss);
  const ReplicaRecord record{in.string("host"),           static_cast<std::uint16_t>(in.uint("port", 1, 65535)), in.string("user"),
                             Secret(in.string("password")), in.boolean("tls"),                                   in.string("own_gtid")};
  ServerClient client(local_target(settings));
  client.stop_replica();
  client.reset_replica_all();
  NewSource source;
  source.host = record.host;
  source.port = record.port;
  source.user = record.user;
  source.password = record.password;
  source.tls = record.tls;
  source.ca_file = settings.replication_ca_file;
  client.change_source(source);
  if (in.boolean("receiving")) client.start_receiving();
  if (in.boolean("applying")) client.start_applying();
  save_replica_record(state_dir, record);
  job.journal().record(kUndoneStep);
  return "let the replica follow " + place(record.host, record.port) + " as before";
}

}  // namespace guestagent::mysql
