// Writing and reading snapshots in tests, with small segments.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "storage/snapshot_reader.h"
#include "storage/snapshot_writer.h"
#include "storage/snapshots.h"
#include "storage/throttle.h"
#include "tests/support/bytes.h"
#include "tests/support/errors.h"
#include "tests/support/memory_store.h"
#include "tests/support/test_job.h"

namespace guestagent::test {

class SnapshotFixture : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kSegment = 10000;

  SnapshotFixture() {
    settings.segment_bytes = kSegment;
    settings.workers = 2;
    settings.spill.dir = job.dir() / "spill";
    settings.spill.keep_free_bytes = 0;
    store.can_join = true;
  }

  // A key file with 32 bytes of `fill`, configured under `id`; used for writing.
  void use_key(const std::string& id, char fill) {
    const fs::path file = job.dir() / ("key-" + id);
    write_file_atomic(file, std::string(32, fill), 0600);
    settings.encryption.keys.push_back({id, file});
    settings.encryption.write_key = id;
  }

  static StreamFacts facts() { return {"mariadb-backup 10.11.19", "xbstream", R"({"version":"10.11.19"})", {}}; }

  SnapshotSummary write(const std::string& bytes, const std::string& id = "snap") {
    StringSource source(bytes);
    return write_from(source, id, bytes.size());
  }
  SnapshotSummary write_from(ByteSource& source, const std::string& id = "snap",
                             std::optional<std::uint64_t> expected = {}) {
    SnapshotWriter writer(store, id, settings, throttle, job);
    writer.write(source, expected);
    return writer.finish(facts());
  }

  std::string read(ObjectStore& from, const std::string& id = "snap") {
    TestJob reading;
    return read(from, id, reading);
  }
  std::string read(ObjectStore& from, const std::string& id, JobContext& reading) {
    SnapshotReader reader(from, from.href(id + "/manifest.json"), settings, throttle, reading);
    std::string bytes;
    std::vector<std::byte> part(70001);
    while (const std::size_t n = reader.read(part)) bytes.append(reinterpret_cast<const char*>(part.data()), n);
    return bytes;
  }
  // What reading ends with: "" for a success, else the code and the message.
  std::string reading_fails_with(ObjectStore& from, const std::string& id = "snap") {
    try {
      read(from, id, job);
    } catch (const Error& error) {
      return std::string(code_row(error.code()).wire) + ": " + error.what();
    }
    return "";
  }

  // Only the job's journal and what tests put there may be left.
  bool spill_is_gone() const { return !fs::exists(settings.spill.dir) || fs::is_empty(settings.spill.dir); }

  TestJob job;
  MemoryStore store;
  Throttle throttle;
  SnapshotSettings settings;
};

}  // namespace guestagent::test
