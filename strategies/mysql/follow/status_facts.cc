// How the facts of the status are collected.
#include <algorithm>

#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/follow/status.h"
#include "strategies/mysql/server/gtid.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kLookTimeout{2000};
constexpr Millis kSoon{500};  // how long a place of the source's may take to be reached here

// The number at the end of a binary log's name, by which files are ordered.
std::uint64_t file_number(const std::optional<std::string>& file) {
  if (!file) return 0;
  const std::size_t dot = file->rfind('.');
  std::uint64_t out = 0;
  for (std::size_t i = dot == std::string::npos ? file->size() : dot + 1; i < file->size(); ++i) {
    if ((*file)[i] < '0' || (*file)[i] > '9') return 0;
    out = out * 10 + static_cast<std::uint64_t>((*file)[i] - '0');
  }
  return out;
}

bool at_or_past(const Position& here, const Position& there) {
  return std::pair(file_number(here.file), here.offset.value_or(0)) >=
         std::pair(file_number(there.file), there.offset.value_or(0));
}

class Collector {
 public:
  Collector(const MysqlSettings& settings, const fs::path& state_dir, Clock& clock, ServerClient& client,
            StatusFacts& facts)
      : settings_(settings), state_dir_(state_dir), clock_(clock), client_(client), facts_(facts) {}

  void own(SourceAccounts& accounts) {
    const ServerIdentity server = client_.identity();
    facts_.reachable = true;
    facts_.server_id = server.server_id;
    facts_.read_only = server.read_only || server.super_read_only;
    kind_ = client_.dialect().gtid;
    if (server.log_bin) facts_.own = client_.binlog_status().position;
    facts_.channels = client_.replica_status();
    facts_.accounts = accounts.list().size();
    for (const Session& session : client_.sessions()) {
      if (session.command.starts_with("Binlog Dump")) ++facts_.replicas;
    }
    if (!facts_.channels.empty()) following(server);
  }

 private:
  void following(const ServerIdentity& server) {
    const auto record = load_replica_record(state_dir_);
    const ReplicaStatus& channel = facts_.channels.front();
    // A replica that somebody else pointed elsewhere is not the one that was attached.
    if (!record || record->host != channel.source_host || record->port != channel.source_port ||
        record->user != channel.source_user) {
      return;
    }
    facts_.errant = errant(server, *record);
    if (channel.io != ThreadState::running) return;
    try {
      ServerClient source(source_target(*record, settings_.replication_ca_file, kLookTimeout));
      facts_.source_now = source.binlog_status().position;
    } catch (const Error& e) {
      facts_.not_asked_because = e.what();
      return;
    }
    measure();
  }

  std::string errant(const ServerIdentity& server, const ReplicaRecord& record) {
    const GtidSet before = GtidSet::parse(kind_, record.own_gtid);
    if (kind_ == GtidKind::mariadb) {
      return GtidSet::parse(kind_, client_.variable("gtid_binlog_state").value_or(""))
          .written_by(std::to_string(server.server_id))
          .minus(before)
          .text();
    }
    return GtidSet::parse(kind_, client_.gtid_executed()).written_by(server.server_uuid).minus(before).text();
  }

  void measure() {
    const Position there = *facts_.source_now;
    const bool gtid = facts_.channels.front().by_gtid && there.gtid.has_value();
    const bool waits = facts_.channels.front().sql == ThreadState::running && facts_.channels.front().delay == 0;
    const SteadyTime asked = clock_.steady();
    const auto passed = [&] { return std::chrono::duration<double>(clock_.steady() - asked).count(); };
    if (gtid && waits) {
      if (client_.wait_applied(*there.gtid, kSoon)) facts_.reached_after_s = passed();
    } else if (waits) {
      while (!at_or_past(facts_.channels.front().applied, there) &&
             passed() < std::chrono::duration<double>(kSoon).count()) {
        clock_.sleep(Millis(20), {});
        refresh();
      }
      if (at_or_past(facts_.channels.front().applied, there)) facts_.reached_after_s = passed();
    }
    facts_.waited_s = passed();
    refresh();
    const ReplicaStatus& now = facts_.channels.front();
    if (gtid) {
      const GtidSet wanted = GtidSet::parse(kind_, *there.gtid);
      facts_.behind = GtidSet::parse(kind_, now.applied.gtid.value_or("")).missing(wanted);
      // MySQL's received set begins with the connection: what is applied counts as received.
      GtidSet left = wanted.minus(GtidSet::parse(kind_, now.applied.gtid.value_or("")));
      facts_.received_all = GtidSet::parse(kind_, now.received.gtid.value_or("")).contains(left);
    } else {
      facts_.received_all = at_or_past(now.received, there);
    }
  }

  void refresh() {
    auto channels = client_.replica_status();
    if (!channels.empty()) facts_.channels = std::move(channels);
  }

  const MysqlSettings& settings_;
  const fs::path& state_dir_;
  Clock& clock_;
  ServerClient& client_;
  StatusFacts& facts_;
  GtidKind kind_ = GtidKind::none;
};

}  // namespace

StatusFacts collect_status(const MysqlSettings& settings, const fs::path& state_dir, SourceAccounts& accounts,
                           Clock& clock) {
  ConnectTarget target = local_target(settings);
  target.connect_timeout = Seconds(5);
  target.read_timeout = Seconds(30);
  ServerClient client(std::move(target));
  StatusFacts facts;
  try {
    Collector(settings, state_dir, clock, client, facts).own(accounts);
  } catch (const Error& e) {
    if (facts.reachable && e.code() != Code::unavailable) throw;
    facts = StatusFacts();
    facts.unreachable_because = e.what();
  }
  return facts;
}

}  // namespace guestagent::mysql
