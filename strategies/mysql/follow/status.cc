#include "strategies/mysql/follow/status.h"

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "base/text.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/server/replication_errors.h"

namespace guestagent::mysql {
namespace {

std::string seconds_text(double seconds) {
  return std::to_string(static_cast<std::int64_t>(std::llround(seconds))) + " s";
}

// Why a channel does not work, or nothing.
std::vector<std::string> faults(const ReplicaStatus& channel) {
  std::vector<std::string> out;
  const std::string name = channel.channel.empty() ? "" : " of channel " + channel.channel;
  if (channel.io == ThreadState::stopped || (channel.io == ThreadState::connecting && channel.io_errno != 0)) {
    out.push_back("the receiving thread" + name +
                  (channel.io == ThreadState::stopped ? " is stopped" : " cannot connect") +
                  (channel.io_errno != 0 ? ": " + thread_error(channel.io_errno, channel.io_error) : ""));
  }
  if (channel.sql != ThreadState::running) {
    out.push_back("the applying thread" + name + " is stopped" +
                  (channel.sql_errno != 0 ? ": " + thread_error(channel.sql_errno, channel.sql_error) : ""));
  }
  return out;
}

// How far behind the first channel is, if that can be said truthfully.
std::optional<double> lag_of(const StatusFacts& facts) {
  const ReplicaStatus& channel = facts.channels.front();
  if (channel.io != ThreadState::running || channel.sql != ThreadState::running) return std::nullopt;
  const std::optional<double> says =
      channel.seconds_behind ? std::optional<double>(static_cast<double>(*channel.seconds_behind)) : std::nullopt;
  if (facts.source_now) {
    if (facts.reached_after_s) return facts.reached_after_s;
    // The server's figure counts from what it has received: without all of it, it is 0 on a replica that is
    // hours behind.
    if (!facts.received_all) return std::nullopt;
    return says ? std::max(*says, facts.waited_s) : says;
  }
  // Right after its start the thread stands at offset 4 of an unknown file, and the server says 0.
  const bool begun = channel.received.offset.value_or(0) > 4;
  return begun ? says : std::nullopt;
}

void judge_lag(const StatusFacts& facts, Millis lag_limit, ReplicationStatus& out) {
  const ReplicaStatus& channel = facts.channels.front();
  const double limit = std::chrono::duration<double>(lag_limit).count() + static_cast<double>(channel.delay);
  if (channel.delay > 0) out.reasons.push_back("delayed by " + std::to_string(channel.delay) + " s on purpose");
  if (!facts.source_now && !facts.not_asked_because.empty()) {
    out.reasons.push_back("the source could not be asked where it is: " + facts.not_asked_because);
  }
  if (const std::optional<double> lag = lag_of(facts)) {
    if (*lag <= limit) return;
    out.verdict = ReplicationVerdict::lagging;
    out.reasons.push_back(seconds_text(*lag) + " behind, " + seconds_text(limit) + " are allowed");
    return;
  }
  out.verdict = ReplicationVerdict::lagging;
  if (channel.io == ThreadState::connecting) {
    out.reasons.push_back("connecting to the source");
  } else if (facts.behind) {
    out.reasons.push_back("still receiving: " + std::to_string(*facts.behind) + " transactions behind");
  } else {
    out.reasons.push_back("how far behind cannot be said yet");
  }
}

std::string errors_of(const std::vector<ReplicaStatus>& channels) {
  JsonWriter out;
  out.begin_array();
  const auto error = [&](std::string_view thread, unsigned code, const std::string& message, const std::string& at) {
    if (code == 0 && message.empty()) return;
    out.begin_object().member("thread", thread).member("code", code).member("message", to_utf8(message));
    if (!at.empty()) out.member("at", to_utf8(at));
    out.end_object();
  };
  for (const ReplicaStatus& channel : channels) {
    error("io", channel.io_errno, channel.io_error, channel.io_error_at);
    error("sql", channel.sql_errno, channel.sql_error, channel.sql_error_at);
  }
  return out.end_array().text();
}

// What is shown of the facts beside the verdict.
ReplicationStatus shown(const StatusFacts& facts) {
  ReplicationStatus out;
  if (facts.reachable) {
    out.own = own_server_id(facts.server_id);
    out.read_only = facts.read_only;
  }
  if (facts.channels.empty()) {
    if (facts.reachable) out.replicas = facts.replicas;
    if (facts.reachable && facts.own.file) out.source_position = own(facts.own);
    return out;
  }
  const ReplicaStatus& channel = facts.channels.front();
  out.source = {channel.source_host, channel.source_port};
  if (channel.source_server_id != 0) out.source->own = own_server_id(channel.source_server_id);
  out.threads = {{"io_thread", channel.io}, {"sql_thread", channel.sql, true}};
  out.lag_transactions = facts.behind;
  out.errant = facts.errant;
  out.numbers = {{"relay_log_bytes", "Room that the relay logs take.", channel.relay_log_bytes}};
  out.received = own(channel.received);
  out.applied = own(channel.applied);
  if (facts.source_now) out.source_position = own(*facts.source_now);
  out.errors_json = errors_of(facts.channels);
  return out;
}

// Of a replica that answers.
void judge_replica(const StatusFacts& facts, Millis lag_limit, ReplicationStatus& out) {
  out.role = ReplicationRole::replica;
  out.verdict = ReplicationVerdict::healthy;
  for (const ReplicaStatus& channel : facts.channels) {
    for (std::string& fault : faults(channel)) {
      out.verdict = ReplicationVerdict::broken;
      out.reasons.push_back(std::move(fault));
    }
  }
  if (facts.wants_read_only && !facts.read_only) {
    out.reasons.emplace_back("read_only is off, though it was attached to be read only");
  }
  if (!facts.errant.empty()) {
    out.reasons.push_back("it has transactions of its own, which the source has not: " + printable(facts.errant, 200));
  }
  const bool diverged = std::any_of(facts.channels.begin(), facts.channels.end(), means_diverged);
  if (diverged || !facts.errant.empty()) out.verdict = ReplicationVerdict::diverged;
  if (out.verdict == ReplicationVerdict::healthy) judge_lag(facts, lag_limit, out);
  if (const std::optional<double> lag = lag_of(facts)) out.lag_seconds = std::round(*lag * 1000) / 1000;
}

}  // namespace

ReplicationStatus judge(const StatusFacts& facts, Millis lag_limit) {
  ReplicationStatus out = shown(facts);
  if (facts.restoring) {
    out.verdict = ReplicationVerdict::restoring;
    out.reasons.emplace_back("the server's data is being exchanged");
  } else if (!facts.reachable) {
    out.verdict = ReplicationVerdict::unreachable;
    out.reasons.push_back(facts.unreachable_because);
  } else if (!facts.channels.empty()) {
    judge_replica(facts, lag_limit, out);
  } else {
    const bool followed = facts.replicas > 0 || facts.accounts > 0;
    out.role = followed ? ReplicationRole::source : ReplicationRole::standalone;
    out.verdict = followed ? ReplicationVerdict::source : ReplicationVerdict::standalone;
  }
  return out;
}

}  // namespace guestagent::mysql
