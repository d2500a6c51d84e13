#include "strategies/mysql/follow/positions.h"

#include "base/error.h"
#include "strategies/mysql/follow/history.h"
#include "strategies/mysql/follow/relay_log.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/replication_errors.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kWaitSlice{1000};

// Of a server that does not log what it applies, only how far each domain has come is known.
bool has(ServerClient& client, const std::string& gtid) {
  const GtidKind kind = client.dialect().gtid;
  const GtidSet wanted = GtidSet::parse(kind, gtid);
  if (not_in_history(kind, wanted, client).empty()) return true;
  return kind == GtidKind::mariadb && !client.identity().log_updates &&
         GtidSet::parse(kind, client.gtid_executed()).contains(wanted);
}

bool reached(ServerClient& client, const Position& at, bool replica, Millis slice) {
  if (at.gtid) {
    if (has(client, *at.gtid)) return true;
    return replica && client.wait_applied(*at.gtid, slice) && has(client, *at.gtid);
  }
  if (replica) return client.wait_applied(at.file.value_or(""), at.offset.value_or(0), slice);
  const Position here = client.binlog_status().position;
  return std::pair(here.file.value_or(""), here.offset.value_or(0)) >=
         std::pair(at.file.value_or(""), at.offset.value_or(0));
}

// Why this server will not get there by itself.
std::optional<Error> hopeless(ServerClient& client) {
  const auto channels = client.replica_status();
  if (channels.empty()) {
    return Error(Code::failed_precondition, "waiting for a position: it is not reached here",
                 "this server follows nobody: it will not get there by itself");
  }
  for (const ReplicaStatus& channel : channels) {
    if (channel.sql != ThreadState::stopped) continue;
    return Error(Code::failed_precondition,
                 "waiting for a position: the applying thread does not run: " +
                     (channel.sql_errno != 0 ? thread_error(channel.sql_errno, channel.sql_error)
                                             : std::string("it was stopped by hand")),
                 "mend it and start it (START SLAVE SQL_THREAD)");
  }
  return std::nullopt;
}

}  // namespace

ReplicationPlace place_of(ServerClient& client) {
  ReplicationPlace out;
  const ServerIdentity server = client.identity();
  const auto channels = client.replica_status();
  Position executed = server.log_bin ? client.binlog_status().position : Position();
  if (server.gtid_on) executed.gtid = client.gtid_known();
  out.executed = own(executed);
  const auto count = [&](const std::string& gtid) {
    return GtidSet().missing(GtidSet::parse(client.dialect().gtid, gtid).position());
  };
  if (server.gtid_on) out.executed_transactions = count(*executed.gtid);
  if (channels.empty()) return out;
  Position received = channels.front().received, applied = channels.front().applied;
  if (server.gtid_on) {
    received.gtid = received_or_applied(client.dialect().gtid, channels.front()).text();
    if (!applied.gtid) applied.gtid = "";
  }
  if (server.gtid_on) out.received_transactions = count(*received.gtid);
  out.received = own(received);
  out.applied = own(applied);
  return out;
}

void wait_for_position(ServerClient& client, const Position& at, Millis timeout, JobContext& job, Clock& clock) {
  job.phase("wait for position");
  const bool replica = !client.replica_status().empty();
  const SteadyTime deadline = clock.steady() + timeout;
  for (;;) {
    job.check_cancelled();
    const auto left = std::chrono::ceil<Millis>(deadline - clock.steady());
    if (reached(client, at, replica, std::clamp(left, Millis(1), kWaitSlice))) return;
    // Looked at again: it may have got there between the two.
    if (const auto why = hopeless(client); why && !reached(client, at, false, Millis(1))) throw *why;
    if (clock.steady() >= deadline) {
      throw Error(Code::deadline_exceeded, "waiting for a position: it is not reached here in the time given",
                  "see the replica's status, or give it more time (timeout_s)");
    }
  }
}

}  // namespace guestagent::mysql
