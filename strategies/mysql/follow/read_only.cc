#include "strategies/mysql/follow/read_only.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "strategies/mysql/follow/role_change.h"
#include "strategies/mysql/host/option_file.h"

namespace guestagent::mysql {
namespace {

constexpr Millis kWritesTimeout{10000};
// InnoDB answers from what it had collected before where it was asked within 0.1 s (INNODB_TRX in both manuals).
constexpr Millis kWritesPoll{150};
constexpr std::size_t kNamed = 5;
// While read_only waits for a statement that writes, all other writers wait behind it: for so long at a time, with a
// pause in which they go on.
constexpr Seconds kWritersWait{1};
constexpr Millis kWritersPause{300};
constexpr Millis kAfterForce{5000};

std::string name(const std::vector<OpenWrite>& writes) {
  std::string out;
  for (std::size_t i = 0; i < std::min(kNamed, writes.size()); ++i) {
    out += (i == 0 ? "" : ", ") + ("session " + std::to_string(writes[i].session) + " of " + writes[i].user + "@" +
                                   writes[i].host + ", " + std::to_string(writes[i].seconds) + " s");
  }
  return out + (writes.size() > kNamed ? ", and " + std::to_string(writes.size() - kNamed) + " more" : "");
}

Error still_written(const std::vector<OpenWrite>& writes) {
  return Error(Code::deadline_exceeded,
               "refusing writes: transactions that write did not end in the time given: " +
                   (writes.empty() ? std::string("statements that hold tables") : name(writes)),
               "let them end, give it more time (timeout_s), or force: true, which ends their sessions");
}

std::uint64_t end_sessions(ServerClient& client, const std::vector<OpenWrite>& writes) {
  for (const OpenWrite& write : writes) client.kill_session(write.session);
  return writes.size();
}

// Those of accounts that read_only does not hold back; never the agent's own.
std::uint64_t end_sessions_of(ServerClient& client, const std::vector<std::string>& accounts) {
  std::uint64_t ended = 0;
  for (const Session& session : client.sessions()) {
    const bool theirs = std::any_of(accounts.begin(), accounts.end(), [&](const std::string& account) {
      return account.starts_with("'" + session.user + "'@");
    });
    if (!theirs || session.user == client.target().user || session.command.starts_with("Binlog Dump")) continue;
    client.kill_session(session.id);
    ++ended;
  }
  return ended;
}

}  // namespace

step::WritesBefore writes_now(const MysqlSettings& settings, ServerClient& client, bool scheduler) {
  const ServerIdentity server = client.identity();
  step::WritesBefore out{managed_content(settings.managed_file), server.read_only, std::nullopt};
  if (scheduler && !server.event_scheduler_disabled) out.scheduler = server.event_scheduler;
  return out;
}

void put_writes_back(const MysqlSettings& settings, ServerClient& client, const step::WritesBefore& before) {
  put_managed(settings.managed_file, before.managed);
  client.set_read_only(before.read_only);
  if (before.scheduler) client.set_event_scheduler(*before.scheduler);
}

std::uint64_t refuse_writes(ServerClient& client, Millis timeout, bool force, JobContext& job, Clock& clock) {
  std::uint64_t ended = 0;
  SteadyTime deadline = clock.steady() + timeout;
  bool forced = false;
  const auto in_time = [&](const std::vector<OpenWrite>& writes) {
    job.check_cancelled();
    if (clock.steady() < deadline) return;
    if (!force || forced) throw still_written(writes);
    forced = true;
    ended += end_sessions(client, writes);
    deadline = clock.steady() + kAfterForce;
  };
  // Those that have begun by now: a commit would be refused to them. Later ones take their chance.
  std::set<std::string> begun;
  clock.sleep(kWritesPoll, job.stop_token());
  for (const OpenWrite& write : client.open_writes()) begun.insert(write.transaction);
  while (!begun.empty()) {
    std::vector<OpenWrite> left = client.open_writes();
    std::erase_if(left, [&](const OpenWrite& write) { return begun.count(write.transaction) == 0; });
    if (left.empty()) break;
    in_time(left);
    clock.sleep(kWritesPoll, job.stop_token());
  }
  while (!client.try_refuse_writes(kWritersWait)) {
    in_time(client.open_writes());
    clock.sleep(kWritersPause, job.stop_token());
  }
  return ended;
}

ReadOnlyOutcome change_read_only(const MysqlSettings& settings, const ReadOnlyRequest& request, JobContext& job,
                                 Clock& clock) {
  ServerClient client(local_target(settings));
  require_managed_file_read(settings);
  job.phase("change the options");
  const step::WritesBefore before = writes_now(settings, client, true);
  job.journal().record(step::kReadOnlyBegin, step::write_writes_before(before));
  ManagedOptions options = standalone_options(settings, client);
  const auto now = read_managed(settings.managed_file);
  if (now && now->role == ReplicationRole::replica) options.role = now->role;
  const bool replica = options.role == ReplicationRole::replica;
  // Told twice: what counts is how it was before the first time.
  if (request.read_only && !replica && before.scheduler && !(now && now->refuses_writes()))
    options.scheduler_before = before.scheduler;
  options.read_only = request.read_only;
  ReadOnlyOutcome out;
  out.read_only = request.read_only;
  const std::string text = write_managed(options, client.dialect());
  if (!request.read_only) {
    put_managed(settings.managed_file, text);
    client.set_read_only(false);
    if (!replica && options.scheduler_before && before.scheduler) client.set_event_scheduler(*options.scheduler_before);
    return out;
  }
  if (before.scheduler.value_or(false)) client.set_event_scheduler(false);
  job.phase("wait for writes");
  out.ended_sessions = refuse_writes(client, request.timeout.value_or(kWritesTimeout), request.force, job, clock);
  put_managed(settings.managed_file, text);
  out.may_still_write = client.who_passes_read_only();
  out.ended_sessions += end_sessions_of(client, out.may_still_write);
  return out;
}

std::string recover_read_only(const MysqlSettings& settings, JobContext& job) {
  const Journal::Step* const begun = job.journal().find(step::kReadOnlyBegin);
  if (begun == nullptr || job.journal().find(step::kReadOnlyUndone) != nullptr) return "";
  ServerClient client(local_target(settings));
  put_writes_back(settings, client, step::read_writes_before(*begun));
  job.journal().record(step::kReadOnlyUndone);
  return "let the server take writes as before";
}

}  // namespace guestagent::mysql
