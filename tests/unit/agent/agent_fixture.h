// The agent without a server and without a database: a store in memory and a datastore that does as it is
// told.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/dispatcher.h"
#include "base/log.h"
#include "tests/support/errors.h"
#include "tests/support/memory_store.h"
#include "tests/unit/agent/fake_datastore.h"

namespace guestagent::test {

class AgentFixture : public testing::Test {
 protected:
  AgentFixture() {
    log_setup(LogLevel::error, LogFormat::logfmt);
    using testing::_;
    using testing::Return;
    ON_CALL(upkeep, status).WillByDefault(Return(replica_status(ReplicationVerdict::healthy, ThreadState::running)));
    ON_CALL(upkeep, make_staging).WillByDefault([this](const PieceSource::Kind&, JobContext&) {
      return dir.path() / "staging";
    });
    ON_CALL(upkeep, recover).WillByDefault(Return(""));
    ON_CALL(datastore, open_snapshot).WillByDefault([this](auto&, auto&) {
      return std::make_unique<FakeStream>(data);
    });
    ON_CALL(datastore, receive).WillByDefault([this](PieceSource& stream, auto&, auto&) {
      std::vector<std::byte> buffer(70000);
      received.clear();
      while (const std::size_t n = stream.read(buffer))
        received.append(reinterpret_cast<const char*>(buffer.data()), n);
      return 0;
    });
    ON_CALL(datastore, install).WillByDefault([](auto&, auto&, auto&) {
      return std::make_unique<testing::NiceMock<MockInstallation>>();
    });
    ON_CALL(datastore, start_replicating).WillByDefault(Return(AttachOutcome{OwnJson(R"({"number":4})"), true, true}));
  }

  // The result of a call as JSON, or the test fails.
  JsonDocument call(const std::string& method, const std::string& params = "{}") {
    return parse_json(dispatcher.call(method, params), "result");
  }
  Error failure(const std::string& method, const std::string& params = "{}") {
    return error_of([&] { dispatcher.call(method, params); });
  }
  // A whole request, answered.
  JsonDocument ask(const std::string& request) { return parse_json(dispatcher.handle(request), "response"); }

  TempDir dir{fs::temp_directory_path(), "agent-test-"};
  std::string data = std::string(3000000, 'x') + "the end";
  std::string received;
  const Settings settings = [this] {
    Settings made;
    made.agent.state_dir = dir.path() / "state";
    made.snapshot.spill.dir = dir.path() / "spill";
    made.snapshot.segment_bytes = 1 << 20;
    made.mysql.advertised_address = "192.0.2.1";
    return made;
  }();
  MemoryStore store;
  testing::NiceMock<MockDatastore> datastore;
  testing::NiceMock<MockUpkeep> upkeep;
  testing::NiceMock<MockRoles> roles;
  Throttle throttle;
  Operations operations{settings, store, datastore, upkeep, roles, throttle, system_clock()};
  Jobs jobs{settings.agent,
            [this](const std::string& method, JobContext& job) { return operations.recover(method, job); },
            system_clock()};
  Dispatcher dispatcher{operations, jobs, true};
};

}  // namespace guestagent::test
