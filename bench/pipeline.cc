// The data path alone, without a database: what it costs to make a stream a snapshot, and a snapshot a stream.
//
//   bench_pipeline generate BYTES                 page-like bytes to standard output
//   bench_pipeline write STORE [OPTION VALUE]…    a snapshot of standard input
//   bench_pipeline synthetic BYTES STORE [OPTION VALUE]…   … of BYTES that cannot be compressed
//   bench_pipeline read STORE [OPTION VALUE]…     reads that snapshot back, verifies it and throws it away
//   bench_pipeline remove STORE                   deletes that snapshot
//
// STORE is a directory, "null" (objects are thrown away) or an agent's configuration (FILE.yaml), whose store it is.
// Options: --compression, --level, --workers, --transfers, --segment-mib,
// --memory-mib. Prints one JSON object: wall_s, cpu_s (user and system), peak_rss (bytes), raw_bytes, stored_bytes,
// segments.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "bench/bench_job.h"
#include "bench/page_data.h"
#include "storage/local/local_store.h"
#include "storage/snapshot_reader.h"
#include "storage/snapshot_writer.h"
#include "storage/snapshots.h"
#include "storage/stores.h"

namespace guestagent::bench {
namespace {

class NullStore : public ObjectStore {
 public:
  void put(std::string_view, const Buffer&, std::stop_token) override {}
  NewObject put_new(std::string_view name, const Buffer& body, std::stop_token) override {
    if (name.ends_with(kClaimName)) claim_ = body.text();
    return {true, {}};
  }
  bool promises_new() const override { return true; }
  Buffer get(std::string_view name, std::uint64_t, std::stop_token) override {
    if (name.ends_with(kClaimName) && !claim_.empty()) return Buffer::from(claim_);
    throw StoreError(Code::not_found, "get " + std::string(name) + ": nothing is kept here", "", false);
  }
  std::optional<ObjectInfo> stat(std::string_view, std::stop_token) override { return std::nullopt; }
  void list(std::string_view, const std::function<void(const ObjectInfo&)>&, std::stop_token) override {}
  bool remove(std::string_view, std::stop_token) override { return false; }
  bool join(std::string_view, const std::vector<ObjectInfo>&, std::stop_token) override { return false; }
  std::string href(std::string_view name) const override { return "null://" + std::string(name); }
  std::optional<std::string> name_of(std::string_view) const override { return std::nullopt; }

 private:
  std::string claim_;
};

class FdSource : public ByteSource {
 public:
  explicit FdSource(int fd) : fd_(fd) {}
  std::size_t read(std::span<std::byte> into) override {
    while (true) {
      const ssize_t n = ::read(fd_, into.data(), into.size());
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno != EINTR) throw system_error("reading standard input", errno);
    }
  }

 private:
  int fd_;
};

// Random bytes again and again; the period is longer than any window that a fast codec looks back.
class SyntheticSource : public ByteSource {
 public:
  explicit SyntheticSource(std::uint64_t bytes) : left_(bytes) {
    std::mt19937_64 random(1);
    pattern_.resize(kPeriod / 8);
    for (std::uint64_t& word : pattern_) word = random();
  }
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = std::min({into.size(), kPeriod - at_, static_cast<std::size_t>(left_)});
    std::memcpy(into.data(), reinterpret_cast<const std::byte*>(pattern_.data()) + at_, n);
    at_ = (at_ + n) % kPeriod;
    left_ -= n;
    return n;
  }

 private:
  static constexpr std::size_t kPeriod = std::size_t{12} << 20;
  std::uint64_t left_;
  std::vector<std::uint64_t> pattern_;
  std::size_t at_ = 0;
};

std::uint64_t peak_rss() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}

double cpu_seconds() {
  rusage used = {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

std::unique_ptr<ObjectStore> open_store(const std::string& name) {
  if (name == "null") return std::make_unique<NullStore>();
  if (name.ends_with(".yaml")) return make_store(load_settings(name, store_sections()).storage, system_clock());
  return make_local_store(name, "bench", "snapshots");
}

SnapshotSettings parse_options(const std::vector<std::string>& words, std::size_t from) {
  SnapshotSettings settings;
  settings.spill.max_bytes = 0;  // disk against disk would measure the disk
  for (std::size_t i = from; i + 1 < words.size(); i += 2) {
    const std::string& option = words[i];
    const std::string& value = words[i + 1];
    if (option == "--compression") {
      settings.compression = value;
    } else if (option == "--level") {
      settings.level = std::stoi(value);
    } else if (option == "--workers") {
      settings.workers = static_cast<unsigned>(std::stoul(value));
    } else if (option == "--transfers") {
      settings.transfers = static_cast<unsigned>(std::stoul(value));
    } else if (option == "--segment-mib") {
      settings.segment_bytes = std::stoull(value) << 20;
    } else if (option == "--memory-mib") {
      settings.memory_limit = std::stoull(value) << 20;
    } else {
      throw Error(Code::invalid_argument, "no option " + option);
    }
  }
  return settings;
}

Manifest write_snapshot(ByteSource& source, const std::string& store_name, const SnapshotSettings& settings) {
  const std::unique_ptr<ObjectStore> store = open_store(store_name);
  Throttle throttle;
  BenchJob job;
  SnapshotWriter writer(*store, "bench", settings, throttle, job);
  writer.write(source, std::nullopt);
  return writer.finish({"bench", "raw", "{}", {}}).manifest;
}

Manifest read_snapshot(const std::string& store_name, const SnapshotSettings& settings) {
  const std::unique_ptr<ObjectStore> store = open_store(store_name);
  Throttle throttle;
  BenchJob job;
  SnapshotReader reader(*store, store->href("bench/manifest.json"), settings, throttle, job);
  std::vector<std::byte> discarded(kChunkBytes);
  while (reader.read(discarded) > 0) {
  }
  return reader.manifest();
}

void generate(std::uint64_t bytes) {
  PageData pages(1);
  while (bytes > 0) {
    const std::string page = pages.next();
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, page.size()));
    std::cout.write(page.data(), static_cast<std::streamsize>(n));
    bytes -= n;
  }
  std::cout.flush();
}

int run(const std::vector<std::string>& words) {
  const std::string command = words.empty() ? "" : words[0];
  if (command == "generate" && words.size() == 2) {
    generate(std::stoull(words[1]));
    return 0;
  }
  if (command == "remove" && words.size() == 2) {
    delete_snapshot(*open_store(words[1]), "bench", {});
    return 0;
  }
  const auto start = std::chrono::steady_clock::now();
  Manifest manifest;
  if (command == "write" && words.size() >= 2) {
    FdSource source(STDIN_FILENO);
    manifest = write_snapshot(source, words[1], parse_options(words, 2));
  } else if (command == "synthetic" && words.size() >= 3) {
    SyntheticSource source(std::stoull(words[1]));
    manifest = write_snapshot(source, words[2], parse_options(words, 3));
  } else if (command == "read" && words.size() >= 2) {
    manifest = read_snapshot(words[1], parse_options(words, 2));
  } else {
    std::cerr << "usage: bench_pipeline generate BYTES | write STORE … | synthetic BYTES STORE … | read STORE … | "
                 "remove STORE\n";
    return 2;
  }
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  JsonWriter json;
  json.begin_object()
      .member("wall_s", wall)
      .member("cpu_s", cpu_seconds())
      .member("peak_rss", peak_rss())
      .member("raw_bytes", manifest.raw_bytes)
      .member("stored_bytes", manifest.stored_bytes)
      .member("segments", manifest.segments)
      .end_object();
  std::cout << json.text() << '\n';
  return 0;
}

}  // namespace
}  // namespace guestagent::bench

int main(int argc, char** argv) {
  try {
    return guestagent::bench::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::cerr << "bench_pipeline: " << error.what() << '\n';
    return 1;
  }
}
