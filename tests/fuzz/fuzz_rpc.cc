// A request of any bytes gets an answer of JSON-RPC or none, and never an exception; nothing is stored and nothing
// changed by what was refused.
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "agent/dispatcher.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "tests/support/memory_store.h"
#include "tests/support/no_roles.h"

namespace {

using namespace guestagent;

[[noreturn]] void nothing() {
  throw Error(Code::unavailable, "there is no server here");
}

class NoDatastore final : public Datastore, public DatastoreUpkeep {
 public:
  OwnJson read_position(const JsonReader& in) const override { return OwnJson::of(in); }
  ServerDescription describe() override { return {}; }
  Plan plan_snapshot(const SnapshotRequest&) override { return {}; }
  std::unique_ptr<SnapshotStream> open_snapshot(const SnapshotRequest&, JobContext&) override { nothing(); }
  Plan plan_attach(const AttachRequest&, const std::string&) override { return {}; }
  std::uint64_t receive(PieceSource&, const fs::path&, JobContext&) override { nothing(); }
  std::unique_ptr<Installation> install(const AttachRequest&, const fs::path&, JobContext&) override { nothing(); }
  AttachOutcome start_replicating(const AttachRequest&, JobContext&) override { nothing(); }
  Plan plan_stop(const DetachRequest&) override { return {}; }
  DetachOutcome stop_replicating(const DetachRequest&, JobContext&) override { nothing(); }
  ReplicationStatus status() override { return {}; }
  bool has_part(const fs::path&) override { return false; }
  void keep_staged(const fs::path&, const PieceSource::Kind&, JobContext&) override { nothing(); }
  fs::path make_staging(const PieceSource::Kind&, JobContext&) override { nothing(); }
  std::string recover(Undertaking, JobContext&) override { return ""; }
  Plan plan_release(const std::string&) override { return {}; }
  void release_source(const std::string&, JobContext&) override { nothing(); }
  std::vector<TableChecksum> checksum_tables(const std::vector<std::string>&, std::optional<std::uint64_t>,
                                             const std::optional<OwnJson>&, OwnJson&, JobContext&) override {
    nothing();
  }
};

struct Agent {
  TempDir dir{fs::temp_directory_path(), "fuzz-rpc-"};
  const Settings settings = [this] {
    log_setup(LogLevel::error, LogFormat::logfmt);
    Settings made;
    made.agent.state_dir = dir.path() / "state";
    made.snapshot.spill.dir = dir.path() / "spill";
    return made;
  }();
  test::MemoryStore store;
  NoDatastore datastore;
  test::NoRoles roles;
  Throttle throttle;
  Operations operations{settings, store, datastore, datastore, roles, throttle, system_clock()};
  Jobs jobs{settings.agent,
            [this](const std::string& method, JobContext& job) { return operations.recover(method, job); },
            system_clock()};
  Dispatcher dispatcher{operations, jobs, true};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::optional<Agent> agent;
  static unsigned calls = 0;
  if (calls++ % 1000 == 0) agent.emplace();  // its history of jobs would grow for ever
  const std::string answer = agent->dispatcher.handle({reinterpret_cast<const char*>(data), size});
  if (answer.empty()) return 0;
  if (!valid_utf8(answer)) std::abort();
  const JsonDocument document = parse_json(answer, "the answer");
  if (!document.IsObject() && !document.IsArray()) std::abort();
  return 0;
}
