#include "strategies/mysql/follow/history.h"

#include "base/text.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kHistoryPoll{200};
constexpr std::size_t kNamedSet = 400;

}  // namespace

GtidSet not_in_history(GtidKind kind, const GtidSet& here, ServerClient& source) {
  if (kind != GtidKind::mariadb) return here.minus(GtidSet::parse(kind, source.gtid_known()));
  const GtidSet logged = GtidSet::parse(kind, source.variable("gtid_binlog_state").value_or(""));
  const GtidSet followed = GtidSet::parse(kind, source.gtid_start());
  return here.position().not_written_in(logged, followed);
}

GtidSet not_in_history_soon(GtidKind kind, const GtidSet& here, ServerClient& source, Millis patience, Clock& clock,
                            const std::stop_token& stop) {
  const SteadyTime deadline = clock.steady() + patience;
  for (;;) {
    GtidSet beyond = not_in_history(kind, here, source);
    if (beyond.empty() || clock.steady() >= deadline || stop.stop_requested()) return beyond;
    clock.sleep(kHistoryPoll, stop);
  }
}

GtidSet own_transactions(ServerClient& client) {
  const GtidKind kind = client.dialect().gtid;
  const ServerIdentity server = client.identity();
  if (kind == GtidKind::mariadb) {
    return GtidSet::parse(kind, client.variable("gtid_binlog_state").value_or(""))
        .written_by(std::to_string(server.server_id));
  }
  return GtidSet::parse(kind, client.gtid_executed()).written_by(server.server_uuid);
}

std::string count_and_name(const GtidSet& transactions) {
  const std::uint64_t count = GtidSet().missing(transactions);
  return std::to_string(count) + (count == 1 ? " transaction: " : " transactions: ") +
         printable(transactions.text(), kNamedSet);
}

}  // namespace guestagent::mysql
