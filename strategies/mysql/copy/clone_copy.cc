#include "strategies/mysql/copy/clone_copy.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/held_dir.h"
#include "base/log.h"
#include "strategies/mysql/copy/backup_copy.h"
#include "strategies/mysql/copy/copy_names.h"
#include "strategies/mysql/host/server_control.h"
#include "strategies/mysql/host/work_places.h"
#include "strategies/mysql/server/journal_steps.h"
#include "strategies/mysql/server/writable.h"
#include "stream/tar.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kPrefix = "clone";
constexpr std::string_view kData = "data";  // the clone in its directory: the server makes it
constexpr Millis kClonePoll{100};
constexpr Millis kNoLimit{Millis::rep{7} * 24 * 3600 * 1000};  // a clone of any size answers within that
constexpr int kEndTries = 600;
constexpr int kUnloadTries = 100;

// What in the clone shows that it is whole enough for a server to start on it.
void require_data(const fs::path& dir) {
  for (const char* name : {"ibdata1", "mysql.ibd"}) {
    if (!fs::exists(dir / name)) {
      throw Error(Code::data_loss, "checking the clone: " + std::string(name) + " is missing",
                  "take the snapshot again");
    }
  }
}

// Ends what still writes into `dir`; a server that is down writes nothing.
void end_clones(ServerClient& client, const fs::path& dir) {
  for (int i = 0; i < kEndTries; ++i) {
    const auto ids = client.clones_into(dir);
    if (ids.empty()) return;
    for (const std::uint64_t id : ids) client.kill_session(id);
    system_clock().sleep(kClonePoll, {});
  }
  throw Error(Code::deadline_exceeded, "ending a clone: the server still writes to " + dir.string(),
              "end that session, then remove the directory");
}

// A session that was ended lets go of the plugin a little later than it is gone from the list.
void unload_plugin(ServerClient& client, Journal& journal) {
  if (!client.has_clone_plugin()) return;
  Writable writable(client, journal);
  for (int i = 0;; ++i) {
    try {
      client.uninstall_clone_plugin();
      writable.close();
      return;
    } catch (const Error& e) {
      if (e.code() != Code::failed_precondition || i >= kUnloadTries) throw;
    }
    system_clock().sleep(kClonePoll, {});
  }
}

// The directory and the one around it, where that is the agent's own and empty.
void remove_clone(const fs::path& around) {
  remove_tree(around);
  if (around.parent_path().filename().string().ends_with(kHiddenDir)) remove_dir_if_empty(around.parent_path());
}

class CloneCopy : public BackupCopy {
 public:
  CloneCopy(const MysqlSettings& settings, BackupSpec spec)
      : settings_(settings), spec_(std::move(spec)), client_(spec_.target), cloner_(patient(spec_.target)) {
    prepare();
    worker_ = std::thread([this, tags = LogScope::current()] {
      const LogScope scope(tags);
      work();
    });
  }

  ~CloneCopy() override { stop_worker(); }

  std::size_t read(std::span<std::byte> into) override {
    if (ended_ || into.empty()) return 0;
    if (!archive_) {
      wait_for_clone();
      require_data(data_);
      spec_.job->phase("copy");
      archive_ = tar_directory(data_);
    }
    if (spec_.stop.stop_requested()) throw Error(Code::cancelled, "archiving the clone: cancelled on request");
    const std::size_t n = archive_->read(into);
    if (n == 0) {
      archive_.reset();
      clean_up();
      ended_ = true;
    }
    return n;
  }

  // Only the server that runs on the clone can tell.
  Position position() const override {
    Position out;
    out.restored = true;
    return out;
  }
  std::string tool() const override { return std::string(kClone) + " " + spec_.server.version.text(); }
  std::string format() const override { return std::string(kCloneFormat); }

 private:
  static ConnectTarget patient(ConnectTarget target) {
    target.read_timeout = kNoLimit;
    return target;
  }

  void prepare() {
    const fs::path parent = clone_parent(settings_);
    around_ = new_work_path(parent, kPrefix);
    data_ = around_ / kData;
    spec_.job->journal().record(step::kClone, step::write_place(step::kClone, around_));
    // The server's user must be able to pass through to it, and nobody else to look into it.
    if (parent == work_dir(settings_.data_dir)) make_work_dir(parent);
    make_own_dir(around_, 0700);
    if (const auto user = server_user(settings_)) give_dir(around_, user->first, user->second);
    if (!client_.has_clone_plugin()) {
      spec_.job->journal().record(step::kClonePlugin);
      Writable writable(client_, spec_.job->journal());
      client_.install_clone_plugin();
      loaded_ = true;
      writable.close();
    }
  }

  void work() {
    std::optional<Error> failed;
    try {
      cloner_.clone_into(data_);
    } catch (const Error& e) {
      failed = e;
    } catch (const std::exception& e) {
      failed = Error(Code::internal, std::string("cloning the server: ") + e.what());
    }
    const std::scoped_lock lock(mutex_);
    failed_ = std::move(failed);
    done_ = true;
    changed_.notify_all();
  }

  void wait_for_clone() {
    spec_.job->phase("clone");
    std::unique_lock lock(mutex_);
    while (!done_) {
      if (spec_.stop.stop_requested()) throw Error(Code::cancelled, "cloning the server: cancelled on request");
      changed_.wait_for(lock, kClonePoll);
      lock.unlock();
      show_progress();
      lock.lock();
    }
    if (failed_) {
      const bool space = std::string_view(failed_->what()).find("No space left") != std::string_view::npos;
      throw Error(space ? Code::resource_exhausted : failed_->code(), failed_->what(),
                  space ? "free space there, or set mysql.staging_dir to a larger file system"
                        : "the server must be able to write to " + around_.string() +
                              " (AppArmor or SELinux may forbid it: mysql.staging_dir names another place), and the "
                              "agent's account "
                              "needs BACKUP_ADMIN");
    }
  }

  void show_progress() {
    try {
      const auto [done, estimate] = client_.clone_progress();
      spec_.job->progress(done, estimate > 0 ? std::optional(std::max(done, estimate)) : std::nullopt);
    } catch (const Error& e) {
      log_debug("the clone's progress cannot be seen", {{"error", e.what()}});
    }
  }

  void stop_worker() {
    if (!worker_.joinable()) return;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        if (done_ || changed_.wait_for(lock, kClonePoll, [&] { return done_; })) break;
      }
      try {
        for (const std::uint64_t id : client_.clones_into(data_)) client_.kill_session(id);
      } catch (const Error& e) {
        // A server that is gone has ended the clone with it.
        log_info("could not end the clone", {{"error", e.what()}});
      }
    }
    worker_.join();
  }

  // What was made on the source, in the order in which it can go, before the copy counts as whole. recover_clone() does
  // the same by the journal for one that ends before its end.
  void clean_up() {
    stop_worker();
    remove_clone(around_);
    if (loaded_) unload_plugin(client_, spec_.job->journal());
    loaded_ = false;
  }

  const MysqlSettings& settings_;
  BackupSpec spec_;
  ServerClient client_, cloner_;
  fs::path around_, data_;
  bool loaded_ = false, ended_ = false;
  std::unique_ptr<ByteSource> archive_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;            // guarded by mutex_
  std::optional<Error> failed_;  // guarded by mutex_
  std::thread worker_;
};

}  // namespace

fs::path clone_parent(const MysqlSettings& settings) {
  return settings.staging_dir.empty() ? work_dir(settings.data_dir) : settings.staging_dir;
}

std::unique_ptr<BackupCopy> start_clone(const MysqlSettings& settings, BackupSpec spec, Clock&) {
  return std::make_unique<CloneCopy>(settings, std::move(spec));
}

std::string recover_clone(const MysqlSettings& settings, JobContext& job) {
  std::string done;
  for (const Journal::Step& each : job.journal().steps()) {
    if (each.name != step::kClone) continue;
    const fs::path around = step::read_place(each);
    // Only what stands where we make such directories.
    if (around.parent_path() != clone_parent(settings) || !around.filename().string().starts_with(kPrefix)) continue;
    if (!fs::exists(around)) continue;
    if (greets(settings.socket)) {
      ServerClient client(local_target(settings));
      end_clones(client, around / kData);
    }
    remove_clone(around);
    done = "removed the clone";
  }
  if (job.journal().find(step::kClonePlugin) != nullptr) {
    ServerClient client(local_target(settings));
    unload_plugin(client, job.journal());
    refuse_again(client, job.journal());
  }
  return done;
}

void unpack_clone(ByteSource& stream, const fs::path& dir, JobContext& job) {
  // What makes a server that server is never copied; both are made anew, or the host's own.
  const auto wanted = [](std::string_view path) { return path != "auto.cnf" && path != "mysqld-auto.cnf"; };
  const auto look = [](std::string_view path, unsigned mode) {
    check_copy_name(path);
    check_copy_mode(path, mode);
  };
  untar(
      stream, dir, wanted, [&] { job.check_cancelled(); }, look);
  require_data(dir);
}

}  // namespace guestagent::mysql
