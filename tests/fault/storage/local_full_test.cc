// The local store on a file system that is full or read-only.
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "base/file.h"
#include "storage/local/local_store.h"

namespace guestagent {
namespace {

void write_line(const char* path, const std::string& text) {
  std::ofstream out(path);
  out << text;
}

// Runs `f` on a small tmpfs at `dir` that only its thread sees.
void on_small_disk(const fs::path& dir, const std::function<void()>& f) {
  std::string why;
  std::thread([&] {
    const uid_t uid = ::getuid();
    const gid_t gid = ::getgid();
    // A user namespace for whoever is not root. It needs a process of one thread, so root takes the plain
    // way.
    if (::unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) {
      why = std::string("unshare: ") + std::strerror(errno);
      return;
    }
    if (uid != 0) {
      write_line("/proc/thread-self/setgroups", "deny");
      write_line("/proc/thread-self/uid_map", "0 " + std::to_string(uid) + " 1");
      write_line("/proc/thread-self/gid_map", "0 " + std::to_string(gid) + " 1");
    }
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", dir.c_str(), "tmpfs", 0, "size=3m") != 0) {
      why = std::string("mount: ") + std::strerror(errno);
      return;
    }
    f();
    ::umount2(dir.c_str(), MNT_DETACH);
  }).join();
  ASSERT_EQ(why, "") << "this test needs to mount a tmpfs (root, or user namespaces)";
}

Buffer zeros(std::size_t size) {
  Buffer out;
  out.append(as_bytes(std::string(size, '\0')));
  return out;
}

int files_below(const fs::path& dir) {
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) files += entry.is_regular_file() ? 1 : 0;
  return files;
}

TEST(LocalStoreFull, NoSpaceIsSaidAndNothingIsLeft) {
  const TempDir dir(fs::temp_directory_path(), "guestagent-full");
  on_small_disk(dir.path(), [&] {
    const auto store = make_local_store(dir.path(), "c", "p");
    store->put("id/kept", zeros(1 << 20), {});
    try {
      store->put("id/too-much", zeros(3 << 20), {});
      ADD_FAILURE() << "3 MiB fit into 2";
    } catch (const StoreError& e) {
      EXPECT_EQ(e.code(), Code::resource_exhausted) << e.what();
      EXPECT_FALSE(e.retryable());
      EXPECT_FALSE(e.hint().empty());
      EXPECT_THAT(e.what(), testing::HasSubstr("id/too-much"));
    }
    EXPECT_EQ(files_below(dir.path()), 1);
    // What was there is not replaced by a part of the new.
    EXPECT_THROW(store->put("id/kept", zeros(3 << 20), {}), StoreError);
    EXPECT_EQ(store->get("id/kept", 1 << 21, {}).size(), 1U << 20);
    EXPECT_EQ(files_below(dir.path()), 1);
  });
}

TEST(LocalStoreFull, AReadOnlyFileSystemIsSaid) {
  const TempDir dir(fs::temp_directory_path(), "guestagent-full");
  on_small_disk(dir.path(), [&] {
    const auto store = make_local_store(dir.path(), "c", "p");
    store->put("id/kept", zeros(1000), {});
    ASSERT_EQ(::mount("tmpfs", dir.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
    for (const auto& call : {std::function<void()>([&] { store->put("id/new", zeros(1), {}); }),
                             std::function<void()>([&] { store->remove("id/kept", {}); })}) {
      try {
        call();
        ADD_FAILURE() << "written to a read-only file system";
      } catch (const StoreError& e) {
        EXPECT_EQ(e.code(), Code::permission_denied) << e.what();
        EXPECT_FALSE(e.retryable());
      }
    }
    EXPECT_EQ(store->get("id/kept", 2000, {}).size(), 1000U);
  });
}

}  // namespace
}  // namespace guestagent
