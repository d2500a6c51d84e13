// Where the lab's servers are: tests/lab/swift.py runs this program with their addresses in its environment.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/secret.h"
#include "config/settings.h"
#include "storage/swift/settings.h"

namespace guestagent {

// A variable that has to be there: without the servers these tests fail, they are not skipped.
inline std::string lab(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr)
    throw Error(Code::failed_precondition, std::string(name) + ": not set", "run by tests/lab/swift.py run -- PROGRAM");
  return value;
}

struct LabSettings {
  std::shared_ptr<TempDir> files = std::make_shared<TempDir>(fs::temp_directory_path(), "guestagent-keys");
  StorageSettings storage;

  fs::path secret(const std::string& name, const std::string& value) const {
    const fs::path path = files->path() / name;
    write_file_atomic(path, value + "\n", 0600);
    return path;
  }
};

// A container of its own for each call.
inline LabSettings lab_swift() {
  LabSettings out;
  StorageSettings& s = out.storage;
  s.store = "swift";
  if (lab("SWIFT_FAULTS") != "0") {
    s.retry = {.tries = 20, .first_delay = Millis(10), .max_delay = Millis(300)};
    s.timeouts.stall = Millis(3000);
  }
  s.container = "contract-" + random_hex(6);
  s.prefix = "a/prefix";
  SwiftSettings& swift = s.own.of<SwiftSettings>();
  swift.auth = lab("SWIFT_AUTH");
  swift.auth_url = lab("SWIFT_AUTH_URL");
  swift.user = lab("SWIFT_USER");
  swift.project = "test";
  swift.region = "RegionOne";
  swift.key_file = out.secret("key", lab("SWIFT_KEY"));
  swift.tls.ca_file = lab("SWIFT_CA_FILE");
  return out;
}

}  // namespace guestagent
