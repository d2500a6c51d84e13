#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <thread>

#include "base/file.h"
#include "object_store_suite.h"
#include "storage/local/local_store.h"
#include "storage/local/settings.h"
#include "storage/stores.h"

namespace guestagent {
namespace {

std::shared_ptr<TempDir> temp_dir() {
  return std::make_shared<TempDir>(fs::temp_directory_path(), "guestagent-store");
}

StoreUnderTest plain() {
  auto dir = temp_dir();
  auto store = make_local_store(dir->path() / "not yet there", "container", "some/prefix");
  return {dir, std::move(store)};
}

StoreUnderTest with_retries() {
  auto dir = temp_dir();
  StorageSettings settings;
  settings.store = "local";
  settings.own.of<LocalStoreSettings>().path = dir->path();
  return {dir, make_store(settings, system_clock())};
}

INSTANTIATE_TEST_SUITE_P(Local, ObjectStoreContract,
                         testing::Values(StoreKind{"plain", plain}, StoreKind{"retrying", with_retries}), kind_name);

// What only a directory can show.
class LocalStoreTest : public testing::Test {
 protected:
  LocalStoreTest()
      : dir_(fs::temp_directory_path(), "guestagent-store"), store_(make_local_store(dir_.path(), "c", "p")) {}
  fs::path root() const { return dir_.path() / "c" / "p"; }
  std::vector<std::string> listed() {
    std::vector<std::string> out;
    store_->list("", [&](const ObjectInfo& info) { out.push_back(info.name); }, {});
    return out;
  }
  unsigned mode(const fs::path& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  TempDir dir_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(LocalStoreTest, FilesAreForTheOwnerAlone) {
  const mode_t before = ::umask(0);
  store_->put("id/segment-1", Buffer::from("x"), {});
  ::umask(before);
  EXPECT_EQ(mode(root() / "id" / "segment-1"), 0600U);
  for (const fs::path& dir : {root() / "id", root(), root().parent_path()}) EXPECT_EQ(mode(dir), 0700U) << dir;
}

TEST_F(LocalStoreTest, NothingButObjectsIsLeft) {
  store_->put("id/segment-1", Buffer::from("x"), {});
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir_.path())) files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, 1);
  EXPECT_TRUE(store_->remove("id/segment-1", {}));
  EXPECT_FALSE(fs::exists(root() / "id"));
  EXPECT_TRUE(fs::exists(root()));
}

TEST_F(LocalStoreTest, LeftoversOfACrashAreNeverListedAndGoWithTheRest) {
  store_->put("id/segment-1", Buffer::from("x"), {});
  std::ofstream(root() / "id" / "segment-2~0badcafe") << "half";
  EXPECT_EQ(listed(), std::vector<std::string>{"id/segment-1"});
  EXPECT_TRUE(store_->remove("id/segment-1", {}));
  EXPECT_FALSE(fs::exists(root() / "id"));

  fs::create_directories(root() / "other");
  std::ofstream(root() / "other" / "segment-1~0badcafe") << "half";
  EXPECT_FALSE(store_->remove("other/manifest.json", {}));
  EXPECT_FALSE(fs::exists(root() / "other"));
}

TEST_F(LocalStoreTest, AWriteInProgressIsNoLeftover) {
  store_->put("id/segment-1", Buffer::from("x"), {});
  const fs::path temp = root() / "id" / "segment-2~0badcafe";
  std::ofstream(temp) << "half";
  const UniqueFd writer(::open(temp.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);
  EXPECT_TRUE(store_->remove("id/segment-1", {}));
  EXPECT_TRUE(fs::exists(temp));
}

TEST_F(LocalStoreTest, LinksAreNotFollowed) {
  store_->put("id/segment-1", Buffer::from("x"), {});
  std::ofstream(dir_.path() / "secret") << "not yours";
  fs::create_directories(dir_.path() / "outside");
  std::ofstream(dir_.path() / "outside" / "file") << "not yours";
  fs::create_symlink(dir_.path() / "secret", root() / "id" / "link");
  fs::create_directory_symlink(dir_.path() / "outside", root() / "out");
  EXPECT_EQ(listed(), std::vector<std::string>{"id/segment-1"});
  EXPECT_FALSE(store_->stat("id/link", {}));
  EXPECT_FALSE(store_->stat("out/file", {}));
  EXPECT_FALSE(store_->remove("out/file", {}));
  EXPECT_THROW(store_->get("id/link", 100, {}), StoreError);
  EXPECT_THROW(store_->put("out/new", Buffer::from("x"), {}), StoreError);
  EXPECT_FALSE(fs::exists(dir_.path() / "outside" / "new"));
  EXPECT_TRUE(fs::exists(dir_.path() / "outside" / "file"));
  // A link is replaced, not written through.
  store_->put("id/link", Buffer::from("mine"), {});
  EXPECT_EQ(read_file(dir_.path() / "secret"), "not yours");
}

TEST_F(LocalStoreTest, ADirectoryIsNoObject) {
  store_->put("id/segment-1", Buffer::from("x"), {});
  EXPECT_FALSE(store_->stat("id", {}));
  EXPECT_THROW(store_->get("id", 100, {}), StoreError);
  EXPECT_FALSE(store_->remove("id", {}));
  try {
    store_->put("id", Buffer::from("x"), {});
    FAIL();
  } catch (const StoreError& e) {
    EXPECT_EQ(e.code(), Code::failed_precondition) << e.what();
  }
  EXPECT_THROW(store_->put("id/segment-1/below", Buffer::from("x"), {}), StoreError);
  EXPECT_EQ(store_->get("id/segment-1", 100, {}).text(), "x");
}

TEST_F(LocalStoreTest, PutsAndRemovesOfOneDirectoryDoNotMeet) {
  std::jthread remover([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) store_->remove("race/other", {});
  });
  for (int i = 0; i < 300; ++i) {
    store_->put("race/one", Buffer::from("x"), {});
    EXPECT_TRUE(store_->remove("race/one", {}));
  }
}

// What stands where the store, or something above it, should be: each call says so at once.
TEST_F(LocalStoreTest, AStoreThatLeadsNowhereIsAnErrorAndNotEmpty) {
  const fs::path& base = dir_.path();
  fs::create_symlink(base / "not there" / "x", base / "dangling");
  fs::create_symlink(base / "dangling", base / "dangling twice");
  fs::create_symlink(base / "loop b", base / "loop a");
  fs::create_symlink(base / "loop a", base / "loop b");
  std::ofstream(base / "file") << "x";
  fs::create_symlink(base / "file", base / "link to a file");
  std::ofstream(base / "fstab") << "# a comment\nnas:/backup " << (base / "nas").string() << " nfs defaults 0 0\n"
                                << "/dev/x none swap sw 0 0\n";
  fs::create_directories(base / "nas");
  fs::create_symlink(base / "nas", base / "link to nas");
  const struct {
    fs::path path;
    const char* why;
  } kPlaces[] = {
      {base / "dangling", "dangling is a link to a place that is not there: is it mounted?"},
      {base / "dangling" / "below", "dangling is a link to a place that is not there: is it mounted?"},
      {base / "dangling twice", "dangling twice is a link to a place that is not there: is it mounted?"},
      {base / "loop a", "loop a is a loop of links"},
      {base / "loop a" / "below", "loop a is a loop of links"},
      {base / "file", "file is not a directory"},
      {base / "file" / "below", "file is not a directory"},
      {base / "link to a file", "link to a file is not a directory"},
      {base / "nas", "nas is not mounted, but "},
      {base / "nas" / "below", "nas is not mounted, but "},
      {base / "link to nas" / "below", "nas is not mounted, but "},
  };
  for (const auto& place : kPlaces) {
    const auto store = make_local_store(place.path, "c", "p", base / "fstab");
    const std::pair<const char*, std::function<void()>> kCalls[] = {
        {"put", [&] { store->put("id/x", Buffer::from("x"), {}); }},
        {"put_new", [&] { store->put_new("id/x", Buffer::from("x"), {}); }},
        {"get", [&] { store->get("id/x", 100, {}); }},
        {"stat", [&] { store->stat("id/x", {}); }},
        {"list", [&] { store->list("", [](const ObjectInfo&) {}, {}); }},
        {"remove", [&] { store->remove("id/x", {}); }},
    };
    for (const auto& [name, call] : kCalls) {
      try {
        call();
        ADD_FAILURE() << name << " of " << place.path;
      } catch (const StoreError& e) {
        EXPECT_EQ(e.code(), Code::failed_precondition) << name << ": " << e.what();
        EXPECT_THAT(e.what(), testing::HasSubstr(place.why)) << name;
        EXPECT_FALSE(e.retryable()) << name;
        EXPECT_FALSE(e.hint().empty()) << name;
      }
    }
  }
  EXPECT_TRUE(fs::is_empty(base / "nas"));
  EXPECT_FALSE(fs::exists(base / "not there"));
  // Links that lead somewhere are well, and so is what nobody has made yet.
  fs::create_directories(base / "there");
  fs::create_symlink(base / "there", base / "link");
  const auto store = make_local_store(base / "link" / "new", "c", "p", base / "fstab");
  EXPECT_FALSE(store->stat("id/x", {}));
  store->put("id/x", Buffer::from("x"), {});
  EXPECT_TRUE(fs::exists(base / "there" / "new" / "c" / "p" / "id" / "x"));
}

TEST_F(LocalStoreTest, APlaceThatMayNotBeUsedIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become nobody";
  fs::permissions(dir_.path(), fs::perms::owner_all);
  const auto store = make_local_store(dir_.path() / "store", "c", "p");
  std::optional<Code> put, stat;
  const auto code = [](const auto& call) -> std::optional<Code> {
    try {
      call();
    } catch (const StoreError& e) {
      return e.code();
    }
    return std::nullopt;
  };
  // Of this thread alone.
  std::thread([&] {
    ::syscall(SYS_setresuid, -1, 65534, -1);
    put = code([&] { store->put("id/x", Buffer::from("x"), {}); });
    stat = code([&] { store->stat("id/x", {}); });
  }).join();
  EXPECT_EQ(put, Code::permission_denied);
  EXPECT_EQ(stat, Code::permission_denied);
}

TEST_F(LocalStoreTest, PuttingNewDoesNotFollowOrReplaceWhatIsThere) {
  store_->put("id/segment-1", Buffer::from("x"), {});
  std::ofstream(dir_.path() / "secret") << "not yours";
  fs::create_symlink(dir_.path() / "secret", root() / "id" / "link");
  fs::create_symlink(dir_.path() / "nowhere", root() / "id" / "dangling");
  fs::create_directories(root() / "id" / "dir");
  for (const char* name : {"id/link", "id/dangling", "id/dir"}) {
    EXPECT_FALSE(store_->put_new(name, Buffer::from("not yours"), {}).ours) << name;
  }
  EXPECT_EQ(read_file(dir_.path() / "secret"), "not yours");
  EXPECT_FALSE(fs::exists(dir_.path() / "nowhere"));
  EXPECT_EQ(listed(), std::vector<std::string>{"id/segment-1"});
  int files = 0;
  for (const auto& entry : fs::directory_iterator(root() / "id"))
    files += !entry.is_symlink() && entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, 1) << "no temporary file is left";
}

TEST_F(LocalStoreTest, AddressesArePlainFiles) {
  const auto odd = make_local_store(dir_.path() / "with space", "c", "");
  EXPECT_EQ(odd->href("id/x"), "file://" + dir_.path().string() + "/with%20space/c/id/x");
  EXPECT_EQ(odd->name_of("file://localhost" + dir_.path().string() + "/with%20space/c/id/x"), "id/x");
  EXPECT_EQ(odd->name_of("file://otherhost" + dir_.path().string() + "/with%20space/c/id/x"), std::nullopt);
}

}  // namespace
}  // namespace guestagent
