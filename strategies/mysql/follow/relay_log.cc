#include "strategies/mysql/follow/relay_log.h"

#include "base/log.h"
#include "base/text.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kAskTimeout{5000};
constexpr std::size_t kShownSet = 200;

}  // namespace

GtidSet received_or_applied(GtidKind kind, const ReplicaStatus& channel) {
  const std::string received = channel.received.gtid.value_or(""), applied = channel.applied.gtid.value_or("");
  return GtidSet::parse(kind, received + (received.empty() || applied.empty() ? "" : ",") + applied).position();
}

GtidSet unapplied(GtidKind kind, const ReplicaStatus& channel) {
  return GtidSet::parse(kind, channel.received.gtid.value_or(""))
      .minus(GtidSet::parse(kind, channel.applied.gtid.value_or("")));
}

bool source_has(const ReplicaRecord& source, const MysqlSettings& settings, const GtidSet& wanted) {
  try {
    ServerClient client(source_target(source, settings.replication_ca_file, kAskTimeout));
    return GtidSet::parse(client.dialect().gtid, client.gtid_known()).contains(wanted);
  } catch (const Error& e) {
    log_info("a source does not say what it has", {{"source", source.host}, {"error", e.what()}});
    return false;
  }
}

void resume_following(ServerClient& client, const MysqlSettings& settings, const std::optional<ReplicaRecord>& source,
                      bool receiving, bool applying, JobContext& job) {
  const auto channels = client.replica_status();
  if (channels.empty() || (!receiving && !applying)) return;
  const ReplicaStatus& now = channels.front();
  const bool clears = client.dialect().gtid == GtidKind::mariadb && now.by_gtid && now.io == ThreadState::stopped &&
                      now.sql == ThreadState::stopped;
  if (clears) {
    const GtidSet only_here = unapplied(GtidKind::mariadb, now);
    if (!only_here.empty() && !(source && source_has(*source, settings, only_here))) {
      job.warn("the replica's threads are left stopped: it has received " + printable(only_here.text(), kShownSet) +
               " and not applied it, the source does not answer that it has that, and a start would throw the relay "
               "log away; "
               "start it (START SLAVE) when the source is back, or apply the relay log by hand first");
      return;
    }
  }
  if (receiving) client.start_receiving();
  if (applying) client.start_applying();
}

}  // namespace guestagent::mysql
