#include "strategies/mysql/follow/replica_stop.h"

#include <algorithm>

#include "strategies/mysql/follow/relay_log.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/server/gtid.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/replication_errors.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kDrainSlice{1000};
constexpr Millis kDrainPoll{200};
// How often in a row an applying thread without GTIDs must be idle at the same place before it is believed.
constexpr int kIdleProofs = 3;

// What an applying thread, or the coordinator of several, says of itself when nothing is left in the relay
// log.
constexpr std::string_view kReadAll = "has read all relay log";

std::string describe(const Position& position) {
  if (position.gtid && !position.gtid->empty()) return *position.gtid;
  return position.file ? *position.file + ":" + std::to_string(position.offset.value_or(0)) : "nothing";
}

ReplicaStatus only_channel(ServerClient& client) {
  const auto all = client.replica_status();
  if (all.empty()) {
    throw Error(Code::failed_precondition, "ending replication: this server is not a replica",
                "there is nothing to detach");
  }
  if (all.size() > 1) {
    throw Error(
        Code::failed_precondition,
        "ending replication: this server follows " + std::to_string(all.size()) + " sources, the agent ends one",
        "end the others by hand first (RESET SLAVE 'name' ALL)");
  }
  return all.front();
}

Error applying_stopped(const ReplicaStatus& status) {
  const std::string why =
      status.sql_errno != 0 ? thread_error(status.sql_errno, status.sql_error) : "it was stopped by hand";
  return {Code::failed_precondition,
          "draining the replica: the applying thread does not run at " + describe(status.applied) + ": " + why,
          "mend it and start it (START SLAVE SQL_THREAD), or detach with force, which gives up what was received "
          "after that"};
}

class Drain {
 public:
  Drain(const MysqlSettings& settings, const DetachRequest& request, JobContext& job, Clock& clock,
        ServerClient& client)
      : settings_(settings), request_(request), job_(job), clock_(clock), client_(client) {}

  // Until everything that was received whole is applied. With force it ends early where that cannot be.
  void run() {
    const ReplicaStatus start = only_channel(client_);
    if (start.sql != ThreadState::running) {
      give_up(start, applying_stopped(start));
      return;
    }
    by_gtid_ = start.by_gtid && start.received.gtid.has_value();
    if (by_gtid_) {
      const GtidKind kind = client_.dialect().gtid;
      target_ = *start.received.gtid;
      total_ = GtidSet::parse(kind, start.applied.gtid.value_or("")).missing(GtidSet::parse(kind, target_));
    }
    const SteadyTime deadline = clock_.steady() + request_.drain_timeout.value_or(settings_.drain_timeout);
    for (;;) {
      job_.check_cancelled();
      if (done()) return;
      const ReplicaStatus now = only_channel(client_);
      if (now.sql != ThreadState::running) {
        give_up(now, applying_stopped(now));
        return;
      }
      show_progress(now);
      if (clock_.steady() >= deadline) {
        give_up(now,
                Error(Code::deadline_exceeded,
                      "draining the replica: applied up to " + describe(now.applied) + " of " + describe(now.received) +
                          " in the time given" +
                          (now.delay > 0 ? " (it is delayed by " + std::to_string(now.delay) + " s on purpose)" : ""),
                      "a longer drain_timeout_s; the replica goes on following meanwhile"));
        return;
      }
    }
  }

 private:
  // Only force ends replication with something received and not applied, and says what.
  void give_up(const ReplicaStatus& now, const Error& why) {
    if (!request_.force) throw why;
    job_.warn("gave up what was received after " + describe(now.applied) + ", up to " + describe(now.received) + ": " +
              why.what());
  }

  bool done() { return by_gtid_ ? client_.wait_applied(target_, kDrainSlice) : idle_at_end(); }

  // Without GTIDs a half-received transaction leaves the file positions apart for good: what counts is that
  // the thread has read all of its relay log and that no worker is busy.
  bool idle_at_end() {
    const ReplicaStatus now = only_channel(client_);
    const bool read_all = now.sql_state.find(kReadAll) != std::string::npos;
    const bool same = now.applied == last_applied_;
    last_applied_ = now.applied;
    idle_ = read_all && same && !workers_busy() ? idle_ + 1 : 0;
    if (idle_ >= kIdleProofs) return true;
    clock_.sleep(kDrainPoll, job_.stop_token());
    return false;
  }

  // MySQL names its applying threads by their user alone; one that rests waits for the coordinator, which has
  // read everything; its daemons are no applying threads.
  bool workers_busy() {
    for (const Session& session : client_.sessions()) {
      const bool worker =
          session.command == "Slave_worker" ||
          (client_.dialect().family != Family::mariadb && session.user == "system user" && session.command != "Daemon");
      const bool rests = session.state.find("Waiting for work") != std::string::npos ||
                         session.state.find("Waiting for an event from Coordinator") != std::string::npos ||
                         session.state.find(kReadAll) != std::string::npos;
      if (worker && !rests) return true;
    }
    return false;
  }

  void show_progress(const ReplicaStatus& now) {
    if (!by_gtid_) {
      if (now.applied.file == now.received.file) job_.progress(now.applied.offset.value_or(0), now.received.offset);
      return;
    }
    const GtidKind kind = client_.dialect().gtid;
    const std::uint64_t left =
        GtidSet::parse(kind, now.applied.gtid.value_or("")).missing(GtidSet::parse(kind, target_));
    job_.progress(total_ - std::min(total_, left), total_);
  }

  const MysqlSettings& settings_;
  const DetachRequest& request_;
  JobContext& job_;
  Clock& clock_;
  ServerClient& client_;
  bool by_gtid_ = false;
  std::string target_;
  std::uint64_t total_ = 0;
  Position last_applied_;
  int idle_ = 0;
};

// Past the point of no return: each step may be done again.
void end_replication(const fs::path& state_dir, const RoleChange& role, ServerClient& client, DetachOutcome& out) {
  // A transaction that was received in part is rolled back here, and the position stays before it.
  client.stop_replica();
  std::string user;
  if (const auto channels = client.replica_status(); !channels.empty()) {
    out.last_applied = own(channels.front().applied);
    user = channels.front().source_user;
  }
  if (const auto record = load_replica_record(state_dir)) user = record->user;
  client.reset_replica_all();
  client.set_read_only(false);
  if (role.forget_source) out.dropped_accounts = role.forget_source(client, user);
  remove_replica_record(state_dir);
}

std::string write_detached(const DetachOutcome& outcome) {
  JsonWriter end;
  end.begin_object().key("last_applied").raw(outcome.last_applied.text());
  end.key("dropped_accounts").begin_array();
  for (const std::string& user : outcome.dropped_accounts) end.value(user);
  return end.end_array().end_object().text();
}

void go_on_following(const MysqlSettings& settings, const fs::path& state_dir, const RoleChange& role,
                     ServerClient& client, bool receiving, bool applying, JobContext& job) {
  if (role.stay_replica) role.stay_replica(client);
  resume_following(client, settings, load_replica_record(state_dir), receiving, applying, job);
}

}  // namespace

void drain(const MysqlSettings& settings, Millis timeout, JobContext& job, Clock& clock, ServerClient& client) {
  Drain(settings, {timeout, false}, job, clock, client).run();
}

Plan plan_stop(const ReplicationStatus& status, const DetachRequest& request) {
  Check replica{"replica", Check::Result::ok, "this server is a replica", "", Code::failed_precondition};
  if (status.role != ReplicationRole::replica) {
    replica.result = Check::Result::failed;
    replica.message =
        "this server is no replica: " + (status.role ? to_string(*status.role) : to_string(status.verdict));
    replica.hint = "there is nothing to detach; get_replication_status tells more";
  }
  Check applies{"sql thread", Check::Result::ok, "the SQL thread applies what was received", "",
                Code::failed_precondition};
  const auto thread =
      std::find_if(status.threads.begin(), status.threads.end(), [](const auto& each) { return each.applies; });
  const bool known = thread != status.threads.end();
  if (known && !thread->running() && request.start_applying) {
    applies.message = "the SQL thread is " + to_string(thread->state) + ", and is started";
  } else if ((!known || !thread->running()) && !request.force) {
    applies.result = Check::Result::failed;
    applies.message =
        "the SQL thread is " + (known ? to_string(thread->state) : "unknown") + ": what was received cannot be applied";
    applies.hint =
        "mend what stopped it (errors in get_replication_status); force: true gives up what it has not applied";
  }
  return {{std::move(replica), std::move(applies)},
          {"stop receiving from the source", "apply every complete transaction that was received",
           "remove the replication settings, now and for the next start", "make the server writable"}};
}

DetachOutcome stop_replicating(const MysqlSettings& settings, const fs::path& state_dir, const DetachRequest& request,
                               const RoleChange& role, JobContext& job, Clock& clock) {
  ServerClient client(local_target(settings));
  ReplicaStatus before = only_channel(client);
  if (request.start_applying && before.sql == ThreadState::stopped && before.sql_errno == 0 &&
      before.io != ThreadState::stopped) {
    client.start_applying();
    before = only_channel(client);
  }
  if (before.sql != ThreadState::running && !request.force) throw applying_stopped(before);
  const bool was_receiving = before.io != ThreadState::stopped;
  const bool was_applying = before.sql != ThreadState::stopped;
  job.phase("drain");
  job.journal().record(step::kDetachDrain, step::write_threads({was_receiving, was_applying}));
  // Where nothing applies, as may be with force, the receiving thread goes on until the point of no return: with both
  // stopped there may be no way back (resume_following).
  if (before.sql == ThreadState::running) client.stop_receiving();
  Drain(settings, request, job, clock, client).run();
  job.check_cancelled();
  job.phase("end replication");
  // What can fail for want of space or rights comes before the point of no return.
  if (role.become_standalone) role.become_standalone(client);
  DetachOutcome out;
  out.last_applied = own(only_channel(client).applied);
  job.journal().record(step::kDetachEnd, write_detached(out));
  end_replication(state_dir, role, client, out);
  return out;
}

std::string recover_stop_replicating(const MysqlSettings& settings, const fs::path& state_dir, const RoleChange& role,
                                     JobContext& job) {
  if (const Journal::Step* const end = job.journal().find(step::kDetachEnd)) {
    const JsonDocument document = parse_json(end->data, "journal");
    DetachOutcome outcome;
    outcome.last_applied = OwnJson::of(JsonReader(document, "journal", Code::data_loss).object("last_applied"));
    ServerClient client(local_target(settings));
    if (role.become_standalone) role.become_standalone(client);
    end_replication(state_dir, role, client, outcome);
    job.journal().record(kFinishedStep, write_detached(outcome));
    return "finished ending replication";
  }
  const Journal::Step* const begun = job.journal().find(step::kDetachDrain);
  if (begun == nullptr) return "replication was not touched";
  const step::Threads ran = step::read_threads(*begun);
  ServerClient client(local_target(settings));
  go_on_following(settings, state_dir, role, client, ran.receiving, ran.applying, job);
  return "let the replica go on following";
}

}  // namespace guestagent::mysql
