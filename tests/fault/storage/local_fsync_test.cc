// The local store on file systems whose fsync of a directory fails.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/file.h"
#include "storage/local/local_store.h"

namespace {
// What fsync() of a directory fails with in this program; 0: it does what it does.
std::atomic<int> directory_fsync_errno{0};
}  // namespace

// In place of the C library's.
extern "C" int fsync(int fd) {
  struct stat info {};
  if (const int err = directory_fsync_errno; err != 0 && ::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    errno = err;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

namespace guestagent {
namespace {

class LocalStoreFsync : public testing::Test {
 protected:
  ~LocalStoreFsync() override { directory_fsync_errno = 0; }
  TempDir dir_{fs::temp_directory_path(), "guestagent-fsync"};
  std::unique_ptr<ObjectStore> store_ = make_local_store(dir_.path() / "a/b", "c", "p");
};

TEST_F(LocalStoreFsync, ADirectoryThatCannotBeMadeDurableIsNoFailure) {
  for (const int err : {EINVAL, ENOTSUP, EOPNOTSUPP, ENOSYS}) {
    directory_fsync_errno = err;
    store_->put("id/x", Buffer::from("body"), {});
    EXPECT_EQ(store_->get("id/x", 10, {}).text(), "body");
    EXPECT_TRUE(store_->remove("id/x", {}));
    write_file_atomic(dir_.path() / "file", "text");
    fsync_tree(dir_.path());
  }
}

TEST_F(LocalStoreFsync, ADiskThatFailsIs) {
  store_->put("id/there", Buffer::from("body"), {});
  for (const int err : {EIO, ENOSPC, EROFS}) {
    directory_fsync_errno = err;
    for (const auto& call : {std::function<void()>([&] { store_->put("id/x", Buffer::from("body"), {}); }),
                             std::function<void()>([&] { store_->put("new/x", Buffer::from("body"), {}); }),
                             std::function<void()>([&] { store_->remove("id/there", {}); }),
                             std::function<void()>([&] { write_file_atomic(dir_.path() / "file", "text"); }),
                             std::function<void()>([&] { fsync_tree(dir_.path()); })}) {
      directory_fsync_errno = 0;
      store_->put("id/there", Buffer::from("body"), {});
      directory_fsync_errno = err;
      EXPECT_THROW(call(), Error) << err;
    }
  }
}

}  // namespace
}  // namespace guestagent
