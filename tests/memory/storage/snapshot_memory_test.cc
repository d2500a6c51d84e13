// What the writer of a snapshot takes, in a program without a sanitizer, which has memory of its own and keeps what was
// freed.
#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <thread>

#include "storage/spill.h"
#include "tests/support/snapshot_fixture.h"

namespace guestagent {
namespace {

using test::random_bytes;

std::uint64_t peak_resident() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  ADD_FAILURE() << "no VmHWM";
  return 0;
}

class EndlessSource : public ByteSource {
 public:
  EndlessSource(std::uint64_t bytes, std::string pattern) : left_(bytes), pattern_(std::move(pattern)) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = std::min({into.size(), pattern_.size() - at_, static_cast<std::size_t>(left_)});
    pattern_.copy(reinterpret_cast<char*>(into.data()), n, at_);
    at_ = (at_ + n) % pattern_.size();
    left_ -= n;
    return n;
  }

 private:
  std::uint64_t left_;
  std::string pattern_;
  std::size_t at_ = 0;
};

class SnapshotMemory : public test::SnapshotFixture {};

// What cannot be compressed takes the most memory. One slow sender makes everything queue.
TEST_F(SnapshotMemory, StaysWithinTheLimit) {
  settings = SnapshotSettings();
  settings.workers = 2;
  settings.spill.dir = job.dir() / "spill";
  settings.spill.max_bytes = std::uint64_t{256} << 20;
  settings.spill.keep_free_bytes = 0;
  store.keeps_bodies = false;
  store.wait = [](const std::string&, const std::string& name, std::stop_token) {
    if (name.ends_with("1")) std::this_thread::sleep_for(Millis(300));
  };
  EndlessSource source(std::uint64_t{1} << 30, random_bytes(10000001, 18));
  ::malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // a peak before is not the writer's
  const std::uint64_t before = peak_resident();
  write_from(source);
  // A fresh process of the agent takes less than 28 MiB; what this one had before is not the writer's.
  EXPECT_LE(peak_resident() - before + (std::uint64_t{28} << 20), settings.memory_limit);
  EXPECT_GE(peak_resident() - before, std::uint64_t{64} << 20) << "is anything measured?";
}

}  // namespace
}  // namespace guestagent
