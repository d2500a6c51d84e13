#include "controller/promotion.h"

#include <algorithm>

#include "base/json.h"
#include "controller/at_once.h"
#include "controller/cleaner.h"

namespace guestagent::controller {
namespace {

constexpr Millis kSilence{2000};
// The source refuses writes meanwhile.
constexpr Millis kBusy{5000};
constexpr std::uint64_t kDrainSeconds = 3600;  // nothing that was received is given up because of time

const TaskError kCancelledHandOver{"CANCELLED", "cancelled on request", ""};

bool is_cancel(const JobEnd& end) {
  return end.how == JobEnd::How::cancelled || end.error.code == kCancelledHandOver.code;
}

bool wants(const Task& task, const char* action, const char* option) {
  const JsonDocument request = parse_json(task.request, "the task's request");
  const JsonReader in(request, "request", Code::internal);
  const auto params = in.opt_object(action);
  return params && params->opt_boolean(option).value_or(false);
}

std::string drain_params(bool eject) {
  JsonWriter out;
  out.begin_object().member("drain_timeout_s", kDrainSeconds);
  // Nobody but this replica may have it.
  if (eject) out.member("start_applying", true);
  return out.end_object().text();
}

}  // namespace

JobEnd Promotion::run(const Task& task, const std::string& instance_id, const std::string& method,
                      const std::string& params, const std::string& name, bool may_cancel, std::stop_token stop,
                      std::optional<Millis> busy) {
  RemoteJob job;
  job.address = t_.state.instance(instance_id).address;
  job.method = method;
  job.job_id = task.job_id(name);
  job.params = params;
  return runner_.run(
      job, [&] { return may_cancel && cancelled_(); },
      [&](JobView view) { t_.live.set_job(task.id, 0, std::move(view)); }, stop,
      [&, begun = t_.clock.steady()] { return busy && t_.clock.steady() - begun > *busy; });
}

JobEnd Promotion::insist(const Task& task, const std::string& instance_id, const std::string& method,
                         const std::string& params, const std::string& name, std::stop_token stop,
                         std::optional<Millis> busy) {
  for (;;) {
    JobEnd end = run(task, instance_id, method, params, name, false, stop, busy);
    if (end.how != JobEnd::How::lost || cancelled_()) return end;
    t_.clock.sleep(kSilence, stop);
    if (stop.stop_requested()) throw Error(Code::cancelled, "the controller stops");
  }
}

std::string Promotion::ask(const std::string& instance_id, const std::string& method, const std::string& params,
                           std::stop_token stop) {
  return t_.agents.call(t_.state.instance(instance_id).address, method, params, stop);
}

std::optional<State::HandOverEnd> Promotion::drain(const Task& task, std::stop_token stop) {
  const auto failed = [&](const std::string& doing, const TaskError& error, bool restore) {
    return State::HandOverEnd{
        {error.code, doing + error.message, error.hint}, restore, false, is_cancel({{}, {}, error})};
  };
  const std::string source = t_.state.instance(task.source_id).name, target = t_.state.instance(task.target_id).name;
  try {
    const std::string plan = ask(task.target_id, "open_replication_source", R"({"dry_run": true})", stop);
    const JsonDocument document = parse_json(plan, "the plan");
    const JsonReader in(document, "plan", Code::internal);
    if (!in.boolean("ok")) {
      std::string why;
      for (const JsonValue& check : in.array("checks")->GetArray()) {
        const JsonReader one(check, "check", Code::internal);
        if (one.string("result") == "failed" && why.empty()) why = one.string("message");
      }
      return failed(target + " cannot be a source: ", {"FAILED_PRECONDITION", why, ""}, false);
    }
  } catch (const Error& e) {
    if (stop.stop_requested()) throw;
    return failed("asking " + target + ": ", task_error(e), false);
  }
  // Twice: what takes long is waited for while the source still takes writes.
  const auto wait = [&](const std::string& name, bool restore) -> std::optional<State::HandOverEnd> {
    std::string position;
    try {
      const std::string answer = ask(task.source_id, "get_replication_position", "{}", stop);
      const JsonDocument place = parse_json(answer, "the position");
      position = to_json(JsonReader(place, "position", Code::internal).object("executed").value());
    } catch (const Error& e) {
      if (stop.stop_requested()) throw;
      return failed("asking " + source + " where it is: ", task_error(e), restore);
    }
    const std::string params = JsonWriter().begin_object().key("position").raw(position).end_object().text();
    // Begun again, the source may be further.
    const std::string id = name + "-" + std::to_string(std::hash<std::string>{}(position));
    const JobEnd end = run(task, task.target_id, "wait_for_position", params, id, true, stop);
    if (end.how == JobEnd::How::succeeded) return std::nullopt;
    return failed(target + " has not all that " + source + " has: ", end.error, restore);
  };
  if (auto end = wait("near", false)) return end;
  JsonWriter params;
  params.begin_object().member("read_only", true);
  if (wants(task, "promote_to_replica_source", "force")) params.member("force", true);
  const JobEnd still = run(task, task.source_id, "set_read_only", params.end_object().text(), "read-only", true, stop);
  if (still.how != JobEnd::How::succeeded)
    return failed(source + " does not stand still: ", still.error, still.how == JobEnd::How::lost);
  if (auto end = wait("wait", true)) return end;
  if (cancelled_()) return failed("", kCancelledHandOver, true);
  return std::nullopt;
}

std::optional<std::string> Promotion::alive(const Task& task, std::stop_token stop) {
  const auto verdict = [&](const std::string& instance_id) -> std::optional<Verdict> {
    try {
      const std::string status = ask(instance_id, "get_replication_status", "{}", stop);
      const JsonDocument document = parse_json(status, "the status");
      return from_text<Verdict>(JsonReader(document, "status", Code::internal).string("verdict"))
          .value_or(Verdict::unknown);
    } catch (const NoAnswer&) {
      if (stop.stop_requested()) throw;
      return std::nullopt;
    }
  };
  // An agent that refuses this controller, say, is one that answers.
  try {
    const auto source = verdict(task.source_id);
    if (source && *source != Verdict::unreachable) return "it answers";
  } catch (const Error& e) {
    if (stop.stop_requested()) throw;
    return "its agent answers: " + std::string(e.what());
  }
  // It may be this controller alone whom it does not reach.
  for (const Replica& replica : t_.state.replicas(task.id)) {
    try {
      const auto of_replica = verdict(replica.instance_id);
      if (of_replica == Verdict::healthy || of_replica == Verdict::lagging)
        return replica.instance_name + " receives from it, as far as that one knows";
    } catch (const Error&) {
      if (stop.stop_requested()) throw;  // what it has received is asked next
    }
  }
  return std::nullopt;
}

std::optional<State::HandOverEnd> Promotion::choose(const Task& task, std::string& target, std::stop_token stop) {
  const std::string source = t_.state.instance(task.source_id).name;
  const auto refused = [&](const std::string& why, const std::string& hint) {
    return State::HandOverEnd{{"FAILED_PRECONDITION", "ejecting " + source + ": " + why, hint}};
  };
  if (!wants(task, "eject_replica_source", "force")) {
    if (const auto why = alive(task, stop))
      return refused(*why, "promote a replica in its place; \"force\": true ejects it all the same");
  }
  std::uint64_t most = 0;
  std::string silent;
  for (const Replica& replica : t_.state.replicas(task.id)) {
    try {
      const std::string answer = ask(replica.instance_id, "get_replication_position", "{}", stop);
      const JsonDocument place = parse_json(answer, "the position");
      const auto received = JsonReader(place, "position", Code::internal).opt_uint("received_transactions");
      if (!received) return refused(replica.instance_name + " cannot tell how much it has received", "");
      if (target.empty() || *received > most) {
        target = replica.instance_id;
        most = *received;
      }
    } catch (const Error& e) {
      if (stop.stop_requested()) throw;
      silent += (silent.empty() ? "" : ", ") + replica.instance_name + " (" + e.what() + ")";
    }
  }
  // One that is silent may have what nobody else has.
  if (!silent.empty() && !wants(task, "eject_replica_source", "force")) {
    return refused("not all replicas say what they have: " + silent,
                   "bring them back, or forget them; \"force\": true goes on without them");
  }
  if (target.empty()) return refused("no replica answers", "bring one of them back");
  return std::nullopt;
}

void Promotion::hand_over(const Task& task, std::stop_token stop) {
  Task now = task;
  if (task.kind == "eject" && task.target_id.empty()) {
    if (const auto end = choose(task, now.target_id, stop)) return t_.state.hand_over_failed(task.id, *end);
    t_.state.target_chosen(task.id, now.target_id);
  }
  const auto rows = t_.state.replicas(task.id);
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const Replica& each) { return each.instance_id == now.target_id; });
  // Once it may have been asked to end replication, the target may take writes: then there is only forward.
  if (row->state != ReplicaState::detaching) {
    if (task.kind == "promote") {
      if (const auto end = drain(task, stop)) return t_.state.hand_over_failed(task.id, *end);
    }
    t_.state.replica_state(task.id, row->number, ReplicaState::detaching);
  }
  const bool promote = task.kind == "promote";
  const std::string target = t_.state.instance(now.target_id).name;
  const JobEnd detached = insist(now, now.target_id, "detach_replication_slave", drain_params(!promote), "detach", stop,
                                 promote ? std::optional(kBusy) : std::nullopt);
  if (detached.how != JobEnd::How::succeeded) {
    // A failed detach may yet be finished by its agent. Before the source takes writes again it is seen to that the
    // target takes none, whichever of the two it has become.
    const bool known = detached.how != JobEnd::How::lost;
    const bool begun = detached.error.code != code_row(Code::busy).wire;
    const auto hold = [&] {
      return insist(now, now.target_id, "set_read_only", R"({"read_only": true, "force": true})", "hold", stop).how ==
             JobEnd::How::succeeded;
    };
    const bool held = promote && known && (!begun || hold());
    const std::string hint = "the old source refuses writes; when it is known whether " + target +
                             " takes them: promote it anew, or set_read_only {\"read_only\": false} on the old source";
    return t_.state.hand_over_failed(
        task.id,
        {{detached.error.code,
          (known ? target + " does not end replication: " : "whether " + target + " takes writes is not known: ") +
              detached.error.message,
          held || !promote ? detached.error.hint : hint},
         held,
         false,
         is_cancel(detached)});
  }
  const JobEnd opened = insist(now, now.target_id, "open_replication_source", "{}", "open", stop);
  if (opened.how != JobEnd::How::succeeded) {
    return t_.state.hand_over_failed(
        task.id, {{opened.error.code, target + " takes writes, but no replica can follow it: " + opened.error.message,
                   opened.error.hint},
                  false,
                  true,
                  false});
  }
  check_master(opened.result);
  const JsonDocument metadata = parse_json(opened.result, "the source");
  const std::string account = JsonReader(metadata, "source", Code::internal).object("replication_user").string("name");
  t_.live.clear_jobs(task.id);
  t_.live.forget_status(now.target_id);
  t_.state.handed_over(task.id, Secret(opened.result), account);
}

void Promotion::follow(const Task& task, std::stop_token stop) {
  const Secret metadata = t_.state.snapshot_metadata(task.id);
  std::vector<Replica> left;
  for (const Replica& replica : t_.state.replicas(task.id)) {
    if (!replica.ended()) left.push_back(replica);
  }
  const auto members = t_.state.members();
  at_once(left.size(), t_.settings.agents.parallel_attaches, [&](std::size_t n) {
    const Replica& replica = left[n];
    const auto member = std::find_if(members.begin(), members.end(),
                                     [&](const Member& each) { return each.instance_id == replica.instance_id; });
    try {
      RemoteJob job;
      job.address = t_.state.instance(replica.instance_id).address;
      job.method = "attach_replication_slave";
      job.job_id = task.job_id("follow-" + std::to_string(replica.number));
      JsonWriter params;
      params.begin_object().key("snapshot").raw(metadata.reveal()).key("slave_config").begin_object();
      params.member("read_only", member == members.end() || member->read_only).end_object().end_object();
      job.params = params.text();
      t_.state.replica_state(task.id, replica.number, ReplicaState::attaching);
      const JobEnd end = runner_.run(
          job, cancelled_, [&](JobView view) { t_.live.set_job(task.id, replica.number, std::move(view)); }, stop);
      t_.live.clear_job(task.id, replica.number);
      t_.live.forget_status(replica.instance_id);
      t_.state.follower_ended(task.id, replica.number, end.how == JobEnd::How::succeeded ? TaskError{} : end.error,
                              is_cancel(end));
      if (end.how != JobEnd::How::lost) t_.look(replica.instance_id, stop);
    } catch (const std::exception&) {
      // The task's thread sees that it has not ended, and does it again.
    }
  });
  if (stop.stop_requested()) throw Error(Code::cancelled, "the controller stops");
  for (const Replica& replica : t_.state.replicas(task.id)) {
    if (!replica.ended()) throw Error(Code::internal, replica.instance_name + " is not done");
  }
  t_.state.set_reshaped(task.id);
  t_.look(task.target_id, stop);
}

}  // namespace guestagent::controller
