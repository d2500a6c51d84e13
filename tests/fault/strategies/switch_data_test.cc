// The exchange of data on plain directories, killed at every place where it can be, on every layout: what is there
// afterwards is the old data or the new, whole.
#include "strategies/mysql/install/switch_data.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "base/error.h"
#include "strategies/mysql/host/tree_move.h"
#include "strategies/mysql/host/work_places.h"

namespace guestagent::mysql {
namespace {

void put(const fs::path& file, const std::string& content) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << content;
}

// What a tree is, but for the times of directories.
std::map<std::string, std::string> fingerprint(const fs::path& root) {
  std::map<std::string, std::string> out;
  if (!fs::exists(root)) return out;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    struct stat info {};
    EXPECT_EQ(::lstat(entry.path().c_str(), &info), 0);
    std::string what =
        std::to_string(info.st_mode) + " " + std::to_string(info.st_uid) + ":" + std::to_string(info.st_gid);
    if (S_ISREG(info.st_mode)) {
      what += " " + std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + " " +
              read_file(entry.path());
    }
    if (S_ISLNK(info.st_mode)) what += " " + fs::read_symlink(entry.path()).string();
    out[entry.path().lexically_relative(root).string()] = what;
  }
  return out;
}

class Mount {
 public:
  explicit Mount(const fs::path& at, const char* type = "tmpfs", const std::string& options = "size=16m") : at_(at) {
    fs::create_directories(at_);
    if (::mount(type, at_.c_str(), type, 0, options.c_str()) != 0) {
      throw std::runtime_error("these tests mount file systems: run them as root (" + at_.string() + ")");
    }
  }
  ~Mount() { ::umount2(at_.c_str(), MNT_DETACH); }
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

 private:
  fs::path at_;
};

enum class Kind { beside, mount_point, staging_elsewhere, logs_elsewhere, overlay };

std::string name_of(Kind kind) {
  switch (kind) {
    case Kind::beside:
      return "Beside";
    case Kind::mount_point:
      return "MountPoint";
    case Kind::staging_elsewhere:
      return "StagingOnAnotherFileSystem";
    case Kind::logs_elsewhere:
      return "LogsElsewhere";
    case Kind::overlay:
      break;
  }
  return "OverlayOfAnImage";
}
void PrintTo(Kind kind, std::ostream* out) {
  *out << name_of(kind);
}

// A host with old data and a prepared copy.
struct Host {
  explicit Host(Kind k) : kind(k), dir(fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path(), "switch-") {
    fs::path root = dir.path();
    if (kind == Kind::overlay) {
      // What an image brought: directories of the lower layer, which cannot be renamed.
      layout.data_dir = root / "lower/data";
      fs::create_directories(layout.data_dir);
      put_old();
      for (const char* name : {"upper", "work"}) fs::create_directory(root / name);
      mounts.push_back(std::make_unique<Mount>(root / "over", "overlay",
                                               "lowerdir=" + (root / "lower").string() + ",upperdir=" +
                                                   (root / "upper").string() + ",workdir=" + (root / "work").string()));
      root /= "over";
    }
    base = root;
    layout.data_dir = root / "data";
    if (kind == Kind::mount_point) mounts.push_back(std::make_unique<Mount>(layout.data_dir));
    fs::create_directories(layout.data_dir);
    if (kind == Kind::staging_elsewhere) mounts.push_back(std::make_unique<Mount>(root / "staging"));
    if (kind == Kind::logs_elsewhere) {
      mounts.push_back(std::make_unique<Mount>(root / "redo"));
      mounts.push_back(std::make_unique<Mount>(layout.data_dir / "undo-disk"));
      layout.redo_dir = root / "redo";
      layout.undo_dir = layout.data_dir / "undo-disk";
      layout.aria_dir = layout.data_dir / "aria";
      layout.log_bin = root / "binlogs" / "host-bin";
      layout.relay_log = root / "binlogs" / "relay";
      layout.files = {root / "indexes/bi", layout.data_dir / "relay.index", {}};
      put(root / "indexes/bi", "old index");
      put(root / "indexes/bi_crash_safe", "old index");
      put(root / "indexes/bi.of-another", "stays");
      put(root / "redo/not-the-servers", "stays");
      put(root / "binlogs/neighbour.000001", "stays");
    }
    // What the configuration names there goes along; the copy has no directory for temporary files.
    layout.host = {{"server-key.pem", "keys", "shared"}, {layout.data_dir / "tmp/deep", layout.data_dir / "db1"}};
    if (kind != Kind::overlay) put_old();
    staging = kind == Kind::staging_elsewhere ? root / "staging" / "s" : work_dir(layout.data_dir) / "staging-1";
    put_new();
    before = look();
  }

  fs::path at(const fs::path& special) const { return special.empty() ? layout.data_dir : special; }

  void put_old() const {
    const fs::path& d = layout.data_dir;
    put(d / "ibdata1", "old system tablespace");
    put(d / "db1/t1.ibd", std::string(300000, 'o'));
    put(d / "db1/deep/er/file", "old deep");
    put(d / "shared/t.ibd", "old shared");
    put(d / "auto.cnf", "old uuid");
    put(d / "server-key.pem", "the host's key");
    put(d / "keys/of/tables", "the host's keys");
    put(d / "tmp/deep/file", "old temporary");
    put(d / "lost+found/orphan", "the file system's own");
    put(at(layout.redo_dir) / "ib_logfile0", "old redo");
    put(at(layout.undo_dir) / "undo001", "old undo");
    put(at(layout.aria_dir) / "aria_log.00000001", "old aria");
    put((layout.log_bin.empty() ? d / "binlog" : layout.log_bin).string() + ".000001", "old binary log");
    put((layout.relay_log.empty() ? d / "relay" : layout.relay_log).string() + ".000007", "old relay log");
    fs::create_symlink("db1", d / "link");
    fs::permissions(d / "db1", fs::perms::owner_all);
    fs::permissions(d / "ibdata1", fs::perms::owner_read | fs::perms::group_read);
    ASSERT_EQ(::lchown((d / "db1/t1.ibd").c_str(), 1234, 4321), 0);
  }

  void put_new() const {
    put(staging / "ibdata1", "new system tablespace");
    put(staging / "ib_logfile0", "new redo");
    put(staging / "undo001", "new undo");
    put(staging / "aria_log.00000001", "new aria");
    put(staging / "shared/t.ibd", "new shared");
    put(staging / "db2/t2.ibd", std::string(300000, 'n'));
    put(staging / "xtrabackup_info", "the tool's");
    put(staging / "backup-my.cnf", "the tool's");
  }

  // Everything but the copy and the places where the agent keeps things.
  std::map<std::string, std::string> look() const {
    std::map<std::string, std::string> all = fingerprint(base);
    std::erase_if(all, [&](const auto& entry) {
      const std::string& path = entry.first;
      return path.starts_with("data.guestagent") || path.starts_with("data/.guestagent") ||
             path.starts_with("staging") || path.starts_with("journal");
    });
    return all;
  }

  void expect_old() const {
    EXPECT_EQ(look(), before);
    const fs::path work = work_dir(layout.data_dir);
    if (!fs::exists(work)) return;
    for (const auto& entry : fs::directory_iterator(work))
      EXPECT_FALSE(entry.path().filename().string().starts_with("previous")) << entry.path();
  }

  void expect_new() const {
    const fs::path& d = layout.data_dir;
    EXPECT_EQ(read_file(d / "ibdata1"), "new system tablespace");
    EXPECT_EQ(read_file(d / "shared/t.ibd"), "new shared");
    EXPECT_EQ(read_file(d / "db2/t2.ibd"), std::string(300000, 'n'));
    EXPECT_EQ(read_file(at(layout.redo_dir) / "ib_logfile0"), "new redo");
    EXPECT_EQ(read_file(at(layout.undo_dir) / "undo001"), "new undo");
    EXPECT_EQ(read_file(at(layout.aria_dir) / "aria_log.00000001"), "new aria");
    EXPECT_EQ(read_file(d / "lost+found/orphan"), "the file system's own");
    for (const char* gone : {"db1/t1.ibd", "auto.cnf", "link", "xtrabackup_info", "backup-my.cnf", "binlog.000001"}) {
      EXPECT_FALSE(fs::exists(d / gone)) << gone;
    }
    EXPECT_EQ(read_file(d / "server-key.pem"), "the host's key");
    EXPECT_EQ(read_file(d / "keys/of/tables"), "the host's keys");
    EXPECT_TRUE(fs::is_empty(d / "tmp/deep"));
    EXPECT_TRUE(fs::is_empty(d / "db1"));
    if (kind == Kind::logs_elsewhere) {
      EXPECT_FALSE(fs::exists(dir.path() / "indexes/bi"));
      EXPECT_FALSE(fs::exists(dir.path() / "indexes/bi_crash_safe"));
      EXPECT_EQ(read_file(dir.path() / "indexes/bi.of-another"), "stays");
      EXPECT_FALSE(fs::exists(dir.path() / "binlogs/host-bin.000001"));
      EXPECT_FALSE(fs::exists(dir.path() / "binlogs/relay.000007"));
      EXPECT_EQ(read_file(dir.path() / "redo/not-the-servers"), "stays");
      EXPECT_EQ(read_file(dir.path() / "binlogs/neighbour.000001"), "stays");
    }
  }

  // What a server writes when it runs on the new data.
  void run_new_server() const {
    put(layout.data_dir / "ibtmp1", "made by the new server");
    put(layout.data_dir / "db1/of-the-new.ibd", "made by the new server");
    put(at(layout.redo_dir) / "ib_logfile101", "made by the new server");
    if (!layout.log_bin.empty()) put(layout.log_bin.string() + ".000001", "made by the new server");
  }

  fs::path journal_file() const { return dir.path() / "journal"; }

  Kind kind;
  TempDir dir;
  fs::path base;  // of what is looked at
  std::vector<std::unique_ptr<Mount>> mounts;
  DataLayout layout;
  fs::path staging;
  std::map<std::string, std::string> before;
};

// Runs `work` in a process that is killed at `failpoint`; whether it was.
template <typename F>
bool killed_at(const std::string& failpoint, F&& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::setenv("GUESTAGENT_FAILPOINT", failpoint.c_str(), 1);
    try {
      work();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s: %s\n", failpoint.c_str(), e.what());
      ::_exit(3);
    }
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) {
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    return true;
  }
  EXPECT_EQ(WEXITSTATUS(status), 0) << failpoint;
  return false;
}

void exchange(const Host& host) {
  Journal journal(host.journal_file());
  DataSwitch(host.layout, host.staging, journal).exchange();
}

void put_back(const Host& host) {
  Journal journal(host.journal_file());
  if (auto data = DataSwitch::recorded(journal)) data->put_back();
}

class SwitchData : public ::testing::TestWithParam<Kind> {};

TEST_P(SwitchData, ExchangesAndDiscards) {
  const Host host(GetParam());
  exchange(host);
  host.expect_new();
  Journal journal(host.journal_file());
  DataSwitch::recorded(journal)->discard_previous();
  host.expect_new();
  for (const auto& [path, what] : fingerprint(host.base)) EXPECT_EQ(what.find("old "), std::string::npos) << path;
}

TEST_P(SwitchData, PutsBackAfterTheNewServerRan) {
  const Host host(GetParam());
  exchange(host);
  host.run_new_server();
  put_back(host);
  host.expect_old();
  put_back(host);
  host.expect_old();
}

TEST_P(SwitchData, PutsBackFromAKillAnywhere) {
  int kills = 0;
  for (const std::string point : {"journal:switch.plan", "journal:switch.in", "journal:switch.done", "switch:out",
                                  "switch:in", "move:copied", "move:both", "move:trash", "move:waste"}) {
    for (int n = 1;; ++n) {
      const Host host(GetParam());
      const std::string failpoint = point + "@" + std::to_string(n);
      SCOPED_TRACE(failpoint);
      if (!killed_at(failpoint, [&] { exchange(host); })) break;
      ++kills;
      put_back(host);
      host.expect_old();
      if (HasFailure()) return;
    }
  }
  EXPECT_GE(kills, 15);
  RecordProperty("kills", kills);
}

TEST_P(SwitchData, PutsBackFromAKillWhilePuttingBack) {
  int kills = 0;
  for (const char* first : {"switch:out@3", "switch:in@3", "none"}) {
    for (const std::string point : {"journal:switch.back", "journal:switch.undone", "switch:clear", "switch:back",
                                    "move:copied", "move:both", "move:trash", "move:waste"}) {
      for (int n = 1;; ++n) {
        const Host host(GetParam());
        const std::string failpoint = point + "@" + std::to_string(n);
        SCOPED_TRACE(std::string(first) + " then " + failpoint);
        killed_at(first, [&] { exchange(host); });
        if (std::string(first) == "none") host.run_new_server();
        if (!killed_at(failpoint, [&] { put_back(host); })) break;
        ++kills;
        put_back(host);
        host.expect_old();
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GE(kills, 20);
  RecordProperty("kills", kills);
}

INSTANTIATE_TEST_SUITE_P(Layouts, SwitchData,
                         ::testing::Values(Kind::beside, Kind::mount_point, Kind::staging_elsewhere,
                                           Kind::logs_elsewhere, Kind::overlay),
                         [](const auto& param) { return name_of(param.param); });

TEST(SwitchDataRefusal, MountPointAmongTheData) {
  const Host host(Kind::beside);
  const Mount inner(host.layout.data_dir / "db1/deep");
  const Mount direct(host.layout.data_dir / "mounted");
  Journal journal(host.journal_file());
  try {
    DataSwitch(host.layout, host.staging, journal);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::failed_precondition);
    EXPECT_NE(std::string(e.what()).find("mounted"), std::string::npos);
  }
}

TEST(SwitchDataRefusal, OldDataThatSomebodyRemoved) {
  const Host host(Kind::beside);
  exchange(host);
  fs::remove_all(host.dir.path() / "data.guestagent");
  EXPECT_THROW(put_back(host), Error);
  host.expect_new();
}

TEST(SwitchDataFullDisk, PutsBack) {
  const Host host(Kind::mount_point);
  put(host.dir.path() / "staging-big/s/ibdata1", "new");
  put(host.dir.path() / "staging-big/s/db/huge.ibd", std::string(20 << 20, 'x'));
  {
    Journal journal(host.journal_file());
    DataSwitch data(host.layout, host.dir.path() / "staging-big/s", journal);
    try {
      data.exchange();
      FAIL() << "it fitted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::resource_exhausted);
    }
    data.put_back();
  }
  fs::remove_all(host.dir.path() / "staging-big");
  host.expect_old();
}

TEST(MoveEntry, KeepsHolesAndAttributesAcrossFileSystems) {
  const TempDir dir(fs::temp_directory_path(), "move-");
  const Mount other(dir.path() / "other");
  const fs::path file = dir.path() / "sparse";
  put(file, "head");
  fs::resize_file(file, 64 << 20);  // larger than the other file system
  move_entry(dir.path(), dir.path() / "other", "sparse");
  EXPECT_FALSE(fs::exists(file));
  EXPECT_EQ(fs::file_size(dir.path() / "other/sparse"), std::uintmax_t{64} << 20);
  EXPECT_EQ(read_file(dir.path() / "other/sparse", 128 << 20).substr(0, 4), "head");
}

}  // namespace
}  // namespace guestagent::mysql
