// Operations on the role of this server in its set, and their dry runs.
#include "agent/operation_roles.h"

#include "agent/operations.h"
#include "agent/plans.h"
#include "agent/snapshot_metadata.h"
#include "base/id.h"

namespace guestagent {
namespace {

void write_names(JsonWriter& out, std::string_view key, const std::vector<std::string>& names) {
  out.key(key).begin_array();
  for (const std::string& name : names) out.value(name);
  out.end_array();
}

void write_place(JsonWriter& out, std::string_view key, const std::optional<OwnJson>& position) {
  out.key(key);
  if (position) {
    out.raw(position->text());
  } else {
    out.null();
  }
}

}  // namespace

std::string demoted(const std::vector<std::string>& dropped) {
  JsonWriter out;
  out.begin_object();
  write_names(out, "dropped_accounts", dropped);
  return out.end_object().text();
}

std::string Operations::set_read_only(const ReadOnlyRequest& request, JobContext& job) {
  job.phase("check");
  const ReadOnlyOutcome outcome = roles_.set_read_only(request, job);
  JsonWriter out;
  out.begin_object().member("read_only", outcome.read_only);
  write_names(out, "may_still_write", outcome.may_still_write);
  out.member("ended_sessions", outcome.ended_sessions).end_object();
  return journal_result(job, out.text());
}

std::string Operations::get_replication_position() {
  const ReplicationPlace place = roles_.place();
  JsonWriter out;
  out.begin_object();
  write_place(out, "executed", place.executed);
  write_place(out, "received", place.received);
  write_place(out, "applied", place.applied);
  if (place.executed_transactions) out.member("executed_transactions", *place.executed_transactions);
  if (place.received_transactions) out.member("received_transactions", *place.received_transactions);
  return out.end_object().text();
}

std::string Operations::wait_for_position(const WaitParams& params, JobContext& job) {
  roles_.wait_for(params.position, params.timeout, job);
  JsonWriter out;
  out.begin_object().member("reached", true);
  write_place(out, "executed", roles_.place().executed);
  return out.end_object().text();
}

std::string Operations::open_replication_source(const NoParams&, JobContext& job) {
  upkeep_.tend();
  const std::string id = new_id(clock_);
  SnapshotMetadata metadata = source_metadata(settings_.datastore, roles_.open_source(id, job));
  metadata.id = id;
  metadata.created_at = format_utc(clock_.now());
  return journal_result(job, write_metadata(metadata));
}

std::string Operations::demote_replication_source(const DemoteParams& params, JobContext& job) {
  job.phase("clean up");
  upkeep_.tend();
  return journal_result(job, demoted(roles_.demote_source(params.force, job)));
}

Plan Operations::plan_read_only(const ReadOnlyRequest& request) {
  return roles_.plan_read_only(request);
}

Plan Operations::plan_open_source(const NoParams&) {
  return roles_.plan_open_source();
}

Plan Operations::plan_demote(const DemoteParams& params) {
  return roles_.plan_demote(params.force);
}

Plan Operations::plan_wait(const WaitParams&) {
  Plan plan;
  plan.checks.push_back(check_by("server", "the server answers", [&] { roles_.place(); }));
  plan.steps = {"wait until the position is applied here"};
  return plan;
}

}  // namespace guestagent
