#include "strategies/mysql/mysql_datastore.h"

#include <algorithm>

#include "base/error.h"
#include "base/held_dir.h"
#include "base/log.h"
#include "strategies/mysql/copy/backup_tools.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/follow/checksum.h"
#include "strategies/mysql/follow/join.h"
#include "strategies/mysql/follow/read_only.h"
#include "strategies/mysql/follow/replica_record.h"
#include "strategies/mysql/follow/replica_start.h"
#include "strategies/mysql/follow/replica_stop.h"
#include "strategies/mysql/follow/repoint.h"
#include "strategies/mysql/follow/role_change.h"
#include "strategies/mysql/follow/status.h"
#include "strategies/mysql/host/option_file.h"
#include "strategies/mysql/host/set_mark.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/install/install.h"
#include "strategies/mysql/install/preflight.h"
#include "strategies/mysql/install/receive.h"
#include "strategies/mysql/install/staged.h"
#include "strategies/mysql/install/switch_data.h"
#include "strategies/mysql/server/journal_steps.h"

namespace guestagent::mysql {
namespace {

// The agent's step, recorded when a job has succeeded.
constexpr std::string_view kResultStep = "result";

bool has_step_of(const Journal& journal, std::string_view prefix) {
  return std::any_of(journal.steps().begin(), journal.steps().end(),
                     [&](const Journal::Step& step) { return step.name.starts_with(prefix); });
}

// The tool's own files of a snapshot that has succeeded; a crash right after that left them.
void remove_tool_files(const Journal& journal, const fs::path& state_dir) {
  const Journal::Step* made = journal.find(step::kWork);
  if (made == nullptr) return;
  const fs::path dir = step::read_place(*made);
  if (dir.parent_path() == state_dir / "work") remove_tree(dir);
}

// Runs `f`, whose failure bars nobody.
template <typename F>
std::string harmless(const std::string& done, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw LeftBehind(done, e);
  }
}

std::string with_and(std::string first, const std::string& second) {
  if (!first.empty() && !second.empty()) first += ", ";
  return first + second;
}

}  // namespace

MysqlDatastore::MysqlDatastore(const Settings& settings, Clock& clock)
    : settings_(settings.mysql),
      keep_partial_(settings.attach.keep_partial),
      state_dir_(settings.agent.state_dir),
      clock_(clock),
      control_(make_server_control(settings_, state_dir_, clock)),
      accounts_(settings_, state_dir_, clock),
      source_(
          settings_, state_dir_, accounts_, [this](JobContext& job) { turn_on_binlog(settings_, *control_, job); },
          clock) {}

ServerDescription MysqlDatastore::describe() {
  ServerDescription out;
  out.advertised_address = settings_.advertised_address;
  out.port = settings_.advertised_port.value_or(0);
  out.tools = tools_found(settings_);
  out.staged = staged_copies(settings_);
  ServerIdentity server;
  try {
    out.volume_bytes = volume_bytes(settings_.data_dir);
    out.free_bytes = free_bytes(settings_.data_dir);
    ServerClient client(local_target(settings_));
    const ServerIdentity identity = client.identity();
    out.datastore_version = identity.version.text();
    out.port = settings_.advertised_port.value_or(identity.port);
    out.answers = out.datastore_version + " answers, server_id " + std::to_string(identity.server_id);
    server = identity;
    out.has_user_data = client.has_user_data();
    out.data_bytes = copied_bytes(identity);
    if (out.data_bytes == 0) out.data_bytes = client.data_bytes();
    out.reachable = true;
  } catch (const Error& e) {
    out.unreachable_because = e.what();
  }
  JsonWriter own;
  own.begin_object();
  own.member_or_null("server_id", out.reachable ? std::optional<std::uint64_t>(server.server_id) : std::nullopt);
  own.member_or_null("server_uuid", server.server_uuid.empty() ? std::nullopt : std::optional(server.server_uuid));
  out.own = OwnJson(own.end_object().text());
  return out;
}

// 0 when the source does not answer: should the id clash, replication says so and the attach is undone.
std::uint32_t MysqlDatastore::source_server_id(const SnapshotMetadata& snapshot) {
  const ReplicaRecord record{snapshot.master_host,          snapshot.master_port, snapshot.replication_user,
                             snapshot.replication_password, snapshot.require_tls, ""};
  try {
    return ServerClient(source_target(record, settings_.replication_ca_file, Seconds(10))).identity().server_id;
  } catch (const Error& e) {
    log_warning("the source does not tell its server_id", {{"error", e.what()}});
    return 0;
  }
}

Plan MysqlDatastore::plan_snapshot(const SnapshotRequest& request) {
  return source_.plan(request);
}

std::unique_ptr<SnapshotStream> MysqlDatastore::open_snapshot(const SnapshotRequest& request, JobContext& job) {
  return source_.open(request, job);
}

Plan MysqlDatastore::plan_attach(const AttachRequest& request, const std::string& server_json) {
  return plan_attach_checks(settings_, state_dir_, request, server_json, clock_);
}

std::uint64_t MysqlDatastore::receive(PieceSource& stream, const fs::path& dir, JobContext& job) {
  return receive_copy(stream, dir, settings_, job);
}

std::unique_ptr<Installation> MysqlDatastore::install(const AttachRequest& request, const fs::path& dir,
                                                      JobContext& job) {
  const std::uint32_t id = choose_server_id(asked_server_id(request.own), source_server_id(request.snapshot),
                                            settings_.data_dir, state_dir_);
  return install_data({settings_, state_dir_, *control_, clock_}, request, id, dir, job);
}

AttachOutcome MysqlDatastore::start_replicating(const AttachRequest& request, JobContext& job) {
  if (request.data_is_here) {
    const auto before = load_replica_record(state_dir_);
    ServerClient client(local_target(settings_));
    const bool replica = !client.replica_status().empty();
    AttachOutcome outcome = replica ? repoint(settings_, state_dir_, request, job, clock_)
                                    : join(settings_, state_dir_, *control_, request, job, clock_);
    const SnapshotMetadata& now = request.snapshot;
    if (replica && before && (before->host != now.master_host || before->port != now.master_port))
      forget_former_source(client, before->user, now.replication_user, job);
    return outcome;
  }
  return mysql::start_replicating(settings_, state_dir_, request, job, clock_);
}

// The former source drops them without telling anybody: it is no source any more.
void MysqlDatastore::forget_former_source(ServerClient& client, const std::string& user, const std::string& keep,
                                          JobContext& job) {
  // Where a replica stops at a DROP USER of what it has not, it keeps them.
  if (client.dialect().drop_account.find("IF EXISTS") == std::string_view::npos) return;
  try {
    accounts_.drop_inherited(client, user, keep);
  } catch (const Error& e) {
    job.warn(std::string("replication accounts of the former source are left here: ") + e.what());
  }
}

RoleChange MysqlDatastore::detaching(JobContext& job) {
  RoleChange role = role_change(settings_, job);
  role.forget_source = [this, &job](ServerClient& client, const std::string& user) {
    try {
      return accounts_.drop_inherited(client, user);
    } catch (const Error& e) {
      job.warn(std::string("replication accounts of the former source are left here: ") + e.what());
      return std::vector<std::string>();
    }
  };
  return role;
}

DetachOutcome MysqlDatastore::stop_replicating(const DetachRequest& request, JobContext& job) {
  DetachOutcome outcome = mysql::stop_replicating(settings_, state_dir_, request, detaching(job), job, clock_);
  restore_scheduler(settings_);
  return outcome;
}

void MysqlDatastore::tend() {
  if (!accounts_.any()) return;
  try {
    ServerClient client(local_target(settings_));
    for (const std::string& done : accounts_.tend(client)) log_info(done);
  } catch (const Error& e) {
    log_warning("the leases of replication accounts could not be looked after", {{"error", e.what()}});
  }
}

ReplicationStatus MysqlDatastore::status() {
  StatusFacts facts = collect_status(settings_, state_dir_, accounts_, clock_);
  facts.restoring = guard_stands(settings_.managed_file);
  const auto options = read_managed(settings_.managed_file);
  facts.wants_read_only = options && options->role == ReplicationRole::replica && options->read_only;
  return judge(facts, settings_.lag_limit);
}

fs::path MysqlDatastore::make_staging(const PieceSource::Kind& stream, JobContext& job) {
  const fs::path work = work_dir(settings_.data_dir);
  const fs::path parent = staging_parent(settings_);
  for (const StagedCopy& staged : staged_copies(settings_)) {
    if (!is_staged_for(staged.dir, stream)) continue;
    job.journal().record(step::kStaging, step::write_place(step::kStaging, staged.dir));
    return staged.dir;
  }
  const fs::path dir = new_work_path(parent, kStagingPrefix);
  job.journal().record(step::kStaging, step::write_place(step::kStaging, dir));
  if (parent == work) make_work_dir(work);
  make_own_dir(dir, 0700);
  return dir;
}

bool MysqlDatastore::tidy_due() {
  return !old_staged(settings_, keep_partial_, clock_).empty();
}

void MysqlDatastore::tidy() {
  for (const StagedCopy& copy : old_staged(settings_, keep_partial_, clock_)) {
    remove_staged(copy);
    log_info("removed what an attach had fetched and nobody went on with", {{"path", copy.dir.string()}});
  }
}

void MysqlDatastore::keep_staged(const fs::path& dir, const PieceSource::Kind& stream, JobContext& job) {
  keep_ready(dir, stream, job);
}

std::uint64_t MysqlDatastore::discard_staged(const PieceSource::Kind& stream, JobContext& job) {
  std::uint64_t bytes = 0;
  for (const StagedCopy& staged : staged_copies(settings_)) {
    if (!is_staged_for(staged.dir, stream)) continue;
    // Its record goes first: without this step nobody would know the directory after a crash.
    job.journal().record(step::kStaging, step::write_place(step::kStaging, staged.dir));
    remove_staged(staged);
    bytes += staged.bytes;
  }
  return bytes;
}

std::string MysqlDatastore::recover(Undertaking what, JobContext& job) {
  const bool succeeded = job.journal().find(kResultStep) != nullptr;
  if (what == Undertaking::snapshot) {
    if (succeeded) {
      harmless("", [&] {
        remove_tool_files(job.journal(), state_dir_);
        return recover_clone(settings_, job);
      });
    }
    if (succeeded || !has_step_of(job.journal(), "source.")) return "";
    const std::string options = recover_turn_on_binlog(settings_, *control_, job);
    try {
      return with_and(options, source_.recover(job));
    } catch (const LeftBehind& e) {
      throw LeftBehind(with_and(options, e.done()), e);
    }
  }
  if (what == Undertaking::stage) {
    if (succeeded) return "";
    const InstallParts parts{settings_, state_dir_, *control_, clock_};
    return harmless("", [&] { return settle_installation(parts, false, job); });
  }
  if (what == Undertaking::attach) {
    const std::string followed = succeeded ? ""
                                           : with_and(recover_repoint(settings_, state_dir_, job, clock_),
                                                      recover_join(settings_, state_dir_, *control_, job));
    const InstallParts parts{settings_, state_dir_, *control_, clock_};
    // What is left of a good attach, or of one that had not touched the server yet, are directories.
    if (succeeded || job.journal().find(step::kInstallBegin) == nullptr) {
      return with_and(followed, harmless(followed, [&] { return settle_installation(parts, succeeded, job); }));
    }
    // Of which set the old data is, its mark may not tell any more.
    if (!succeeded && job.journal().find(step::kReplicaStart) != nullptr) keep_set(state_dir_, "");
    return with_and(followed, settle_installation(parts, succeeded, job));
  }
  if (what == Undertaking::detach) {
    if (succeeded || !has_step_of(job.journal(), "detach.")) return "";
    const std::string done = recover_stop_replicating(settings_, state_dir_, detaching(job), job);
    restore_scheduler(settings_);
    return done;
  }
  if (what == Undertaking::read_only) return succeeded ? "" : recover_read_only(settings_, job);
  if (what == Undertaking::open_source || what == Undertaking::demote) {
    if (succeeded || !has_step_of(job.journal(), "source.")) return "";
    return harmless("", [&] {
      ServerClient client(local_target(settings_));
      return what == Undertaking::demote ? accounts_.finish_release_all(client, job)
                                         : accounts_.undo_journal(client, job);
    });
  }
  if (what == Undertaking::release) {
    if (succeeded || !has_step_of(job.journal(), "source.")) return "";
    return harmless("", [&] {
      ServerClient client(local_target(settings_));
      return accounts_.finish_release(client, job);
    });
  }
  return "";
}

Plan MysqlDatastore::plan_release(const std::string& replication_user) {
  return {{}, {"drop the account " + replication_user, "end its lease on the binary logs"}};
}

void MysqlDatastore::release_source(const std::string& replication_user, JobContext& job) {
  ServerClient client(local_target(settings_));
  accounts_.release(client, replication_user, job);
}

std::vector<TableChecksum> MysqlDatastore::checksum_tables(const std::vector<std::string>& tables,
                                                           std::optional<std::uint64_t> sample,
                                                           const std::optional<OwnJson>& at, OwnJson& read_at,
                                                           JobContext& job) {
  Position place;
  std::vector<TableChecksum> sums = mysql::checksum_tables(
      settings_, tables, sample, at ? std::optional(position_of(*at)) : std::nullopt, place, job, clock_);
  read_at = own(place);
  return sums;
}

}  // namespace guestagent::mysql
