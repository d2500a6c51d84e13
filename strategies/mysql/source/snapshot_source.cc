#include "strategies/mysql/source/snapshot_source.h"

#include <utility>

#include "base/log.h"
#include "strategies/mysql/copy/backup_copy.h"
#include "strategies/mysql/copy/clone_copy.h"
#include "strategies/mysql/copy/copy_place.h"
#include "strategies/mysql/copy/tool_copy.h"
#include "strategies/mysql/host/set_mark.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/source/snapshot_checks.h"
#include "strategies/mysql/source/source_server.h"

namespace guestagent::mysql {
namespace {

constexpr std::size_t kPasswordLength = 32;

// A directory of the tool's own, made once the journal has it: a crash in between leaves nothing that nobody knows of.
fs::path make_work(const fs::path& parent, Journal& journal) {
  fs::path path = new_work_path(parent, "copy");
  journal.record(step::kWork, step::write_place(step::kWork, path));
  make_dir(path, 0700);
  return path;
}

class Stream : public SnapshotStream {
 public:
  // `prove` is called with the copy's position when it is whole.
  Stream(fs::path work, SourceFacts facts, std::unique_ptr<BackupCopy> copy, std::function<void(const Position&)> prove)
      : work_(std::move(work)), facts_(std::move(facts)), prove_(std::move(prove)), copy_(std::move(copy)) {}

  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = copy_->read(into);
    if (n == 0 && !into.empty() && prove_) std::exchange(prove_, nullptr)(copy_->position());
    return n;
  }
  std::uint64_t last_start() const override { return copy_ ? copy_->last_start() : 0; }
  std::uint64_t expected_bytes() const override { return facts_.dataset_bytes; }

  SourceFacts facts() override {
    SourceFacts out = facts_;
    out.data_position = own(copy_->position());
    out.tool = copy_->tool();
    out.format = copy_->format();
    // The tool has ended. Its files are no reason to give up a whole copy.
    copy_.reset();
    try {
      remove_tree(work_);
    } catch (const Error& e) {
      log_warning("a temporary directory stays", {{"path", work_.string()}, {"error", e.what()}});
    }
    return out;
  }

 private:
  const fs::path work_;
  SourceFacts facts_;
  std::function<void(const Position&)> prove_;
  std::unique_ptr<BackupCopy> copy_;
};

}  // namespace

SnapshotSource::SnapshotSource(const MysqlSettings& settings, fs::path state_dir, SourceAccounts& accounts,
                               std::function<void(JobContext&)> turn_on_binlog, Clock& clock)
    : settings_(settings),
      state_dir_(std::move(state_dir)),
      accounts_(accounts),
      turn_on_binlog_(std::move(turn_on_binlog)),
      clock_(clock) {}

Plan SnapshotSource::plan(const SnapshotRequest& request) {
  Plan plan;
  ServerClient client(local_target(settings_));
  check_source(settings_, client, plan.checks);
  const bool answers = plan.checks.front().result == Check::Result::ok;
  if (answers) {
    const auto taken = accounts_.name_taken(client, request.snapshot_id);
    plan.checks.push_back(taken ? Check{"account", Check::Result::failed, taken->what(), taken->hint(), taken->code()}
                                : Check{"account", Check::Result::ok, "its name is free", "", Code::already_exists});
  }
  plan.steps = {
      "make the replication account for snapshot " + request.snapshot_id + " and keep the binary logs from now on",
      "copy the server's data as a stream while it serves"};
  for (const Check& check : plan.checks) {
    if (check.name == "binary log" && check.result == Check::Result::warning) {
      plan.steps.insert(plan.steps.begin(), "restart the server with its binary log on");
    }
  }
  return plan;
}

std::unique_ptr<SnapshotStream> SnapshotSource::open(const SnapshotRequest& request, JobContext& job) {
  job.phase("check");
  Plan checked = plan(request);
  // Whoever asked for the plan has told the warnings already.
  std::erase_if(checked.checks, [](const Check& check) { return check.result == Check::Result::warning; });
  require_passed(checked, job);
  const ConnectTarget target = local_target(settings_);
  ServerClient client(target);
  ServerIdentity server = client.identity();
  if (!server.log_bin) {
    if (!turn_on_binlog_) throw Error(Code::failed_precondition, "turning the binary log on: not possible here");
    job.phase("restart");
    turn_on_binlog_(job);
    server = client.identity();
    if (!server.log_bin) {
      throw Error(Code::failed_precondition, "turning the binary log on: it is still off after the restart",
                  "is mysql.managed_file read by the server?");
    }
  }
  const BackupTool tool = choose_tool(settings_, server.version);
  job.check_cancelled();

  job.phase("prepare source");
  const fs::path parent = state_dir_ / "work";
  make_dir(parent, 0700);
  fs::path work = make_work(parent, job.journal());

  SourceFacts facts;
  facts.replication_password = random_password(kPasswordLength);
  facts.require_tls = account_requires_tls(settings_, server);
  const SourceAccount account =
      accounts_.make(client, request.snapshot_id, facts.replication_password, facts.require_tls, job);
  facts.replication_user = account.user;
  facts.set = set_of_source(state_dir_);
  const Position lease = client.binlog_status().position;
  facts.lease_position = own(lease);
  facts.master_host = settings_.advertised_address;
  facts.master_port = settings_.advertised_port.value_or(server.port);
  facts.datastore_version = server.version.text();
  facts.dataset_bytes = copied_bytes(server);
  if (facts.dataset_bytes == 0) facts.dataset_bytes = client.data_bytes();
  SourceServer described =
      describe_source(server, server.gtid_on && settings_.replication == "gtid", client.enabled_events(), tool.version);
  look_at_tables(described, client);
  facts.server_json = write_source_server(described);
  job.phase("copy");
  BackupSpec spec{tool, server, target, work, job.stop_token(), [&job](std::string_view words) { job.warn(words); },
                  &job};
  auto copy = start_copy(settings_, std::move(spec), clock_);
  const auto prove = [this, lease](const Position& position) {
    ServerClient now(local_target(settings_));
    require_place(position, lease, now.binlog_files(), now.dialect().gtid);
  };
  return std::make_unique<Stream>(std::move(work), std::move(facts), std::move(copy), prove);
}

std::string SnapshotSource::recover(JobContext& job) {
  std::string done;
  std::optional<Error> first;
  // One part that cannot be undone now does not keep the others.
  const auto part = [&](auto&& f) {
    try {
      const std::string words = f();
      done += (done.empty() || words.empty() ? "" : ", ") + words;
    } catch (const Error& e) {
      if (!first) first = e;
    }
  };
  part([&] { return remove_work(job.journal()); });
  part([&] { return recover_clone(settings_, job); });
  if (job.journal().find(step::kAccount) != nullptr) {
    part([&] {
      ServerClient client(local_target(settings_));
      return accounts_.undo_journal(client, job);
    });
  }
  if (first) throw LeftBehind(done, *first);
  return done.empty() ? "nothing was left on the source" : done;
}

std::string SnapshotSource::remove_work(const Journal& journal) const {
  std::string ended;
  for (const Journal::Step& each : journal.steps()) {
    if (each.name != step::kWork) continue;
    const fs::path path = step::read_place(each);
    // Only what stands where we make such directories.
    if (path.parent_path() != state_dir_ / "work") continue;
    // First of all: writers may stand behind them.
    if (end_left_sessions(settings_, path, clock_)) ended = "ended what the backup tool had left waiting in the server";
    remove_tree(path);
  }
  return ended;
}

}  // namespace guestagent::mysql
