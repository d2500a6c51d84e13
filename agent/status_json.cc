#include "agent/status_json.h"

#include "base/json.h"
#include "base/text.h"

namespace guestagent {
namespace {

void write_source(JsonWriter& out, const ReplicationStatus::Source& source) {
  out.key("source").begin_object();
  out.member("host", to_utf8(source.host)).member("port", unsigned{source.port});
  source.own.write_members(out);
  out.end_object();
}

void write_positions(JsonWriter& out, const ReplicationStatus& status) {
  if (!status.received && !status.applied && !status.source_position) return;
  out.key("position").begin_object();
  const auto position = [&](std::string_view name, const std::optional<OwnJson>& at) {
    if (at) out.key(name).raw(at->text());
  };
  position("received", status.received);
  position("applied", status.applied);
  position("source", status.source_position);
  out.end_object();
}

}  // namespace

std::string write_status(const ReplicationStatus& status) {
  JsonWriter out;
  out.begin_object();
  if (status.role) out.member("role", to_string(*status.role));
  out.member("verdict", to_string(status.verdict)).key("reasons").begin_array();
  for (const std::string& reason : status.reasons) out.value(to_utf8(reason));
  out.end_array();
  status.own.write_members(out);
  if (status.read_only) out.member("read_only", *status.read_only);
  if (status.replicas) out.member("replicas", *status.replicas);
  if (status.source) write_source(out, *status.source);
  for (const ReplicationStatus::Thread& thread : status.threads) out.member(thread.name, to_string(thread.state));
  if (status.lag_seconds) out.member("lag_seconds", *status.lag_seconds);
  if (status.lag_transactions) out.member("lag_transactions", *status.lag_transactions);
  if (!status.errant.empty()) out.member("errant", to_utf8(status.errant));
  for (const ReplicationStatus::Number& number : status.numbers) out.member(number.name, number.value);
  write_positions(out, status);
  out.key("errors").raw(status.errors_json).end_object();
  return out.text();
}

}  // namespace guestagent
