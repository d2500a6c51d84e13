#include "strategies/mysql/install/install.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/held_dir.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/follow/relay_log.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/follow/role_change.h"
#include "strategies/mysql/host/control_kinds.h"
#include "strategies/mysql/host/host_places.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/replica_options.h"
#include "strategies/mysql/host/server_identity.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/install/first_start.h"
#include "strategies/mysql/install/receive.h"
#include "strategies/mysql/install/staged.h"
#include "strategies/mysql/install/switch_data.h"
#include "strategies/mysql/install/table_check.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/server_client.h"

namespace guestagent::mysql {
namespace {

fs::path absolute_in(const fs::path& data_dir, const std::string& path) {
  if (path.empty()) return {};
  return fs::path(path).is_absolute() ? fs::path(path) : data_dir / path;
}

DataLayout layout_of(ServerClient& client, const ServerIdentity& identity, const MysqlSettings& settings) {
  const fs::path data_dir = fs::canonical(settings.data_dir);
  DataLayout layout;
  layout.data_dir = data_dir;
  layout.innodb_home = absolute_in(data_dir, identity.innodb_home);
  layout.redo_dir = absolute_in(data_dir, identity.redo_dir);
  layout.undo_dir = absolute_in(data_dir, identity.undo_dir);
  layout.aria_dir = absolute_in(data_dir, client.variable("aria_log_dir_path").value_or(""));
  layout.log_bin = absolute_in(data_dir, identity.log_bin ? identity.log_bin_basename : "");
  layout.relay_log = absolute_in(data_dir, identity.relay_log_basename);
  layout.system_tablespaces = tablespace_names(identity.innodb_data_file_path);
  layout.doublewrite_dir = absolute_in(data_dir, client.variable("innodb_doublewrite_dir").value_or(""));
  const std::vector<OptionLine> options = other_options(settings);
  for (const char* name : {"log_bin_index", "relay_log_index", "master_info_file", "relay_log_info_file"}) {
    std::string path = client.variable(name).value_or("");
    for (const OptionLine& line : options) {
      if (path.empty() && line.name == name) path = line.value;
    }
    if (!path.empty()) layout.files.push_back(absolute_in(data_dir, path));
  }
  layout.host = host_places(data_dir, options);
  return layout;
}

// What the server really runs with is what counts, not what stands in a file.
void check_running(const MysqlSettings& settings, const std::string& managed_text, ServerClient& client) {
  const ServerIdentity now = client.identity();
  const auto refuse = [&](const std::string& what) {
    throw Error(Code::failed_precondition, "checking the restarted server: " + what,
                "some other option file or the server's command line overrides " + settings.managed_file.string());
  };
  const std::vector<std::string> others = not_in_force(managed_text, client.variables());
  if (!others.empty()) refuse(joined(others, ", "));
  if (!now.log_bin) refuse("the binary log is off");
  if (!now.log_updates) refuse("it does not write what it applies to its binary log");
}

// Who holds the locks of the data files, and who answers on the socket. Known only where the machine lets both be seen.
struct Serving {
  std::optional<pid_t> holder;
  std::optional<ProcessId> answers;
  bool one() const { return holder && answers && *holder > 0 && *holder == answers->pid; }
};

Serving who_serves(const MysqlSettings& settings) {
  return {data_holder(settings.data_dir), socket_owner(settings.socket)};
}

// That the server which answers runs on the restored data, and not on what something else (a cluster it joined, another
// server on that socket) put in its place. `before`: as it was on the old data, where that could be seen.
void check_restored(const MysqlSettings& settings, const Serving& before, const DataMark& mark, const DataMark& now,
                    const fs::path& data_dir) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Code::data_loss, "checking the restarted server: it does not run on the restored data: " + what,
                "find out what replaces the data of this server, or who else answers on " + settings.socket.string() +
                    "; it must be no member of a cluster");
  };
  std::error_code ec;
  if (!fs::equivalent(settings.data_dir, data_dir, ec)) refuse("its data directory is " + data_dir.string());
  if (before.one()) {
    const Serving serves = who_serves(settings);
    if (!serves.one()) {
      refuse(serves.holder
                 ? "process " + std::to_string(*serves.holder) + " has the data files open, and another answers"
                 : "nobody has the data files in " + settings.data_dir.string() + " open");
    }
  }
  if (const auto why = why_other_data(mark, now)) refuse(*why);
}

// What an interrupted attach had of another snapshot: the data is another now.
void forget_parts(const MysqlSettings& settings) {
  for (const StagedCopy& staged : staged_copies(settings)) {
    if (!staged.ready) remove_staged(staged);
  }
}

void remove_staging(Journal& journal) {
  for (const Journal::Step& each : journal.steps()) {
    if (each.name != step::kStaging) continue;
    const fs::path dir = step::read_place(each);
    forget_staged(dir);
    remove_tree(dir);
    // The directory around it, where that is the agent's own.
    const std::string around = dir.parent_path().filename().string();
    if (around.ends_with(kHiddenDir)) remove_dir_if_empty(dir.parent_path());
  }
}

// What is remembered of the source that the old data followed: out of the way while the new data is tried, back with
// the old.
fs::path replica_record(const InstallParts& parts) {
  return parts.state_dir / "replica.json";
}
fs::path record_aside(const InstallParts& parts) {
  return parts.state_dir / "replica.json.before";
}

void set_record_aside(const InstallParts& parts, Journal& journal) {
  JsonWriter out;
  out.begin_object().member("had", fs::exists(replica_record(parts))).end_object();
  journal.record(step::kInstallRecord, out.text());
  if (::rename(replica_record(parts).c_str(), record_aside(parts).c_str()) != 0 && errno != ENOENT) {
    throw system_error("setting " + replica_record(parts).string() + " aside", errno);
  }
}

void put_record_back(const InstallParts& parts, const Journal& journal) {
  const Journal::Step* aside = journal.find(step::kInstallRecord);
  if (aside == nullptr) return;
  const JsonDocument document = parse_json(aside->data, "the journal's install.record");
  if (!JsonReader(document, "install.record", Code::data_loss).boolean("had")) {
    remove_tree(replica_record(parts));
    return;
  }
  // Not aside: it never came there, or is back already.
  if (::rename(record_aside(parts).c_str(), replica_record(parts).c_str()) != 0 && errno != ENOENT) {
    throw system_error("putting " + replica_record(parts).string() + " back", errno);
  }
}

// Old data that is gone for good would keep every other call waiting for it.
void give_back(const InstallParts& parts, DataSwitch& data) {
  try {
    data.put_back();
  } catch (const Error& e) {
    if (e.code() != Code::data_loss) throw;
    throw Error(e.code(), e.what(),
                e.hint() + "; to go on with what is in " + parts.settings.data_dir.string() +
                    " instead, stop the agent, remove the job's .journal file in " +
                    (parts.state_dir / "jobs").string() + " and " + parts.settings.managed_file.string() +
                    ", start the server and the agent, and attach anew");
  }
}

// The old data is given up by the request: what it has received may
// hold an attach up for a minute, and not for as long as a detach, which loses nothing.
constexpr Millis kReceivedPatience{60000};

// A server may empty its relay log when it starts (MariaDB by GTID does, MySQL with relay_log_recovery), and put_back()
// starts one: what only this replica has received must be applied before it is stopped. What cannot be is told: the old
// data was given up by the request.
void apply_received(const InstallParts& parts, ServerClient& client, JobContext& job) {
  const auto channels = client.replica_status();
  if (channels.size() != 1) return;
  const ReplicaStatus& now = channels.front();
  const auto left = [&](const std::string& why) {
    job.warn(
        "should this fail, what the replica has received and not applied may have to come from its source once more: " +
        why);
  };
  if (now.sql != ThreadState::running) {
    if (!unapplied(client.dialect().gtid, now).empty()) left("its applying thread is stopped");
    return;
  }
  if (now.delay > 0) return left("it is delayed on purpose");
  job.journal().record(step::kInstallDrain, step::write_threads({now.io != ThreadState::stopped, true}));
  client.stop_receiving();
  try {
    drain(parts.settings, std::min<Millis>(parts.settings.drain_timeout, kReceivedPatience), job, parts.clock, client);
  } catch (const Error& e) {
    if (e.code() == Code::cancelled) throw;
    left(e.what());
  }
}

// Where apply_received() was the last that was done.
void receive_again(const InstallParts& parts, const Journal& journal) {
  const Journal::Step* drained = journal.find(step::kInstallDrain);
  if (drained == nullptr || journal.find(step::kInstallStop) != nullptr) return;
  if (step::read_threads(*drained).receiving) ServerClient(local_target(parts.settings)).start_receiving();
}

void put_back(const InstallParts& parts, const step::InstallBegin& begin, JobContext& job) {
  Journal& journal = job.journal();
  if (journal.find(step::kInstallBack) == nullptr) {
    // One that was asked to end may still be ending: nothing may be moved, or started, before it is gone.
    if (journal.find(step::kInstallStop) != nullptr) parts.control.stop(parts.settings.server.stop_timeout);
    if (auto data = DataSwitch::recorded(journal)) give_back(parts, *data);
    put_record_back(parts, journal);
    // From here on the server may run: another try must not stop it again, nor move what it has open.
    journal.record(step::kInstallBack);
  }
  // After the data: until these options stand the guard keeps everybody from starting a server on half of it.
  put_managed(parts.settings.managed_file, begin.managed_before);
  try {
    parts.control.start(parts.settings.server.start_timeout);
  } catch (const Error& e) {
    throw Error(e.code(), std::string("the old data is back in its place, but the server did not come up: ") + e.what(),
                "start the server by hand and call again: nothing else is left to undo" +
                    (e.hint().empty() ? "" : "; " + e.hint()));
  }
  receive_again(parts, journal);
}

// The old data last: each step may be done again after a crash, and as long as it is there nothing else has been lost.
void finish(const InstallParts& parts, const step::InstallBegin& begin, JobContext& job) {
  keep_server_id(begin.server_id, parts.state_dir);
  remove_tree(record_aside(parts));
  auto data = DataSwitch::recorded(job.journal());
  if (!data) return;
  if (begin.keep) {
    job.warn("the data from before is kept in " + data->previous().string());
  } else {
    data->discard_previous();
  }
}

// A server that cannot start for want of room seldom says so in a line that others can see.
template <typename F>
void with_room(const fs::path& data_dir, F&& start) {
  constexpr std::uint64_t kTooLittle = std::uint64_t{16} << 20;
  try {
    start();
  } catch (const Error& e) {
    const std::uint64_t free = free_bytes(data_dir);
    if (e.code() == Code::cancelled || free >= kTooLittle) throw;
    throw Error(
        Code::resource_exhausted,
        std::string(e.what()) + ": " + data_dir.string() + " has only " + std::to_string(free >> 10) + " KiB free",
        "free space there");
  }
}

class MysqlInstallation : public Installation {
 public:
  MysqlInstallation(const InstallParts& parts, JobContext& job) : parts_(parts), job_(job) {}

  void accept() override { settle_installation(parts_, true, job_); }

 private:
  const InstallParts parts_;
  JobContext& job_;
};

}  // namespace

std::unique_ptr<Installation> install_data(const InstallParts& parts, const AttachRequest& request,
                                           std::uint32_t server_id, const fs::path& staging, JobContext& job) {
  const MysqlSettings& settings = parts.settings;
  Journal& journal = job.journal();
  ServerClient client(local_target(settings));
  const ServerIdentity identity = client.identity();
  const Dialect dialect = client.dialect();
  // All that the running server alone can tell is asked before it is stopped, and what may refuse is tried then.
  const auto upgrade =
      find_upgrade_tool(settings, parse_datastore_version(request.snapshot.datastore_version), identity.version);
  const DataLayout layout = layout_of(client, identity, settings);
  const ManagedOptions options = options_as_replica(settings, request, server_id, identity, dialect);
  const std::string managed_text = write_managed(options, dialect);
  const Serving serving = who_serves(settings);
  const SourceServer source = request.server_json.empty() ? SourceServer() : read_source_server(request.server_json);

  const step::InstallBegin begin{managed_content(settings.managed_file),
                                 request.keep_previous_data.value_or(settings.keep_previous_data), server_id};
  job.check_cancelled();
  // Before "begin": until then an undo leaves the running server alone.
  apply_received(parts, client, job);
  journal.record(step::kInstallBegin, step::write_install_begin(begin));

  job.phase("stop");
  // The guard first: there is no instant at which somebody could start a server that the agent has stopped.
  journal.record(step::kInstallStop);
  put_managed(settings.managed_file, guard_text());
  // Not cancellable: a server that was asked to end ends, and only when it has can anything be moved or started.
  parts.control.stop(settings.server.stop_timeout);
  job.check_cancelled();
  DataSwitch data(layout, staging, journal);
  job.phase("switch");
  data.exchange();
  job.check_cancelled();

  // Not before the exchange: until then the old data is served again as it was, with its record.
  set_record_aside(parts, journal);

  job.phase("first start");
  DataMark mark;
  with_room(settings.data_dir, [&] {
    mark = first_start(settings, dialect, upgrade, request.snapshot.replication_user, parts.clock, job);
  });

  job.phase("start");
  journal.record(step::kInstallStart);
  with_room(settings.data_dir, [&] {
    // In the guard's place, at once: from here on anybody may start the server, on data that is whole.
    put_managed(settings.managed_file, managed_text);
    parts.control.start(settings.server.start_timeout, job.stop_token());
    // The control says that a process runs, which may still be reading its redo log.
    client.wait_until_up(settings.server.start_timeout, parts.clock, job.stop_token());
  });
  // Whose data it is before how it runs, and the tables last: opening them all takes longest.
  check_restored(settings, serving, mark, client.data_mark(request.snapshot.replication_user),
                 client.identity().data_dir);
  check_running(settings, managed_text, client);
  job.phase("open tables");
  check_tables_open(client, source, parts.clock, job);
  journal.record(step::kInstallDone);
  return std::make_unique<MysqlInstallation>(parts, job);
}

std::string settle_installation(const InstallParts& parts, bool accepted, JobContext& job) {
  Journal& journal = job.journal();
  std::string done;
  if (const Journal::Step* begun = journal.find(step::kInstallBegin);
      begun != nullptr && journal.find(step::kInstallSettled) == nullptr) {
    const step::InstallBegin begin = step::read_install_begin(*begun);
    // Its server was the agent's child: it has ended, with its job or with the agent.
    remove_first_start(journal);
    if (accepted) {
      finish(parts, begin, job);
      forget_parts(parts.settings);
      done = begin.keep ? "kept the data from before" : "removed the data from before";
    } else {
      put_back(parts, begin, job);
      done = "put the old data back and started the server on it";
    }
    remove_staging(journal);
    journal.record(step::kInstallSettled);
    return done;
  }
  if (journal.find(step::kStaging) != nullptr && journal.find(step::kInstallSettled) == nullptr) {
    receive_again(parts, journal);
    const Journal::Step* staging = journal.find(step::kStaging);
    if (!accepted && is_staged(step::read_place(*staging))) {
      done = "kept what had been fetched, for the next attach";
    } else {
      remove_staging(journal);
      done = "removed what had been extracted";
    }
    journal.record(step::kInstallSettled);
  }
  return done;
}

}  // namespace guestagent::mysql
