#include "strategies/mysql/follow/status.h"

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "base/text.h"
#include "strategies/mysql/server/replication_errors.h"

namespace guestagent::mysql {
namespace {

std::string_view word_of(ThreadState state) {
  switch (state) {
    case ThreadState::running:
      return "running";
    case ThreadState::connecting:
      return "connecting";
    case ThreadState::stopped:
      return "stopped";
  }
  return "stopped";
}

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

void judge_lag(const StatusFacts& facts, Millis lag_limit, Verdict& out) {
  const ReplicaStatus& channel = facts.channels.front();
  const double limit = std::chrono::duration<double>(lag_limit).count() + static_cast<double>(channel.delay);
  if (channel.delay > 0) out.reasons.push_back("delayed by " + std::to_string(channel.delay) + " s on purpose");
  if (!facts.source_now && !facts.not_asked_because.empty()) {
    out.reasons.push_back("the source could not be asked where it is: " + facts.not_asked_because);
  }
  out.lag_seconds = lag_of(facts);
  if (out.lag_seconds) {
    if (*out.lag_seconds <= limit) return;
    out.verdict = "lagging";
    out.reasons.push_back(seconds_text(*out.lag_seconds) + " behind, " + seconds_text(limit) + " are allowed");
    return;
  }
  out.verdict = "lagging";
  if (channel.io == ThreadState::connecting) {
    out.reasons.push_back("connecting to the source");
  } else if (facts.behind) {
    out.reasons.push_back("still receiving: " + std::to_string(*facts.behind) + " transactions behind");
  } else {
    out.reasons.push_back("how far behind cannot be said yet");
  }
}

void write_errors(JsonWriter& out, const std::vector<ReplicaStatus>& channels) {
  out.key("errors").begin_array();
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
  out.end_array();
}

}  // namespace

Verdict judge(const StatusFacts& facts, Millis lag_limit) {
  Verdict out;
  if (facts.restoring) {
    out.verdict = "restoring";
    out.reasons.emplace_back("the server's data is being exchanged");
    return out;
  }
  if (!facts.reachable) {
    out.verdict = "unreachable";
    out.reasons.push_back(facts.unreachable_because);
    return out;
  }
  if (facts.channels.empty()) {
    out.role = out.verdict = facts.replicas > 0 || facts.accounts > 0 ? "source" : "standalone";
    return out;
  }
  out.role = "replica";
  out.verdict = "healthy";
  for (const ReplicaStatus& channel : facts.channels) {
    for (std::string& fault : faults(channel)) {
      out.verdict = "broken";
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
  if (diverged || !facts.errant.empty()) out.verdict = "diverged";
  if (out.verdict == "healthy") {
    judge_lag(facts, lag_limit, out);
  } else {
    out.lag_seconds = lag_of(facts);
  }
  return out;
}

std::string write_status(const StatusFacts& facts, const Verdict& verdict) {
  JsonWriter out;
  out.begin_object();
  if (!verdict.role.empty()) out.member("role", verdict.role);
  out.member("verdict", verdict.verdict);
  out.key("reasons").begin_array();
  for (const std::string& reason : verdict.reasons) out.value(to_utf8(reason));
  out.end_array();
  if (facts.reachable) {
    out.member("server_id", std::uint64_t{facts.server_id}).member("read_only", facts.read_only);
    if (facts.channels.empty()) out.member("replicas", std::uint64_t{facts.replicas});
  }
  if (!facts.channels.empty()) {
    const ReplicaStatus& channel = facts.channels.front();
    out.key("source").begin_object();
    out.member("host", to_utf8(channel.source_host)).member("port", unsigned{channel.source_port});
    if (channel.source_server_id != 0) out.member("server_id", std::uint64_t{channel.source_server_id});
    out.end_object();
    out.member("io_thread", word_of(channel.io)).member("sql_thread", word_of(channel.sql));
    if (verdict.lag_seconds) out.member("lag_seconds", *verdict.lag_seconds);
    if (facts.behind) out.member("lag_transactions", *facts.behind);
    if (!facts.errant.empty()) out.member("errant", to_utf8(facts.errant));
    out.member("relay_log_bytes", channel.relay_log_bytes);
    out.key("position").begin_object();
    out.key("received");
    write_position(out, channel.received);
    out.key("applied");
    write_position(out, channel.applied);
    if (facts.source_now) {
      out.key("source");
      write_position(out, *facts.source_now);
    }
    out.end_object();
  } else if (facts.reachable && facts.own.file) {
    out.key("position").begin_object().key("source");
    write_position(out, facts.own);
    out.end_object();
  }
  write_errors(out, facts.channels);
  out.end_object();
  return out.text();
}

}  // namespace guestagent::mysql
