#include "job_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "agent/dispatcher.h"
#include "fault/storage/fault_table.h"
#include "storage/stores.h"
#include "storage/swift/settings.h"
#include "tests/support/fake_clock.h"
#include "tests/unit/agent/fake_datastore.h"

namespace guestagent::test {
namespace {

using testing::_;
using testing::NiceMock;
using testing::Return;

bool is_login(const PeerRequest& r) {
  return r.target.starts_with("/auth/") || r.target.starts_with("/v3/");
}
bool is_of(const PeerRequest& r, const char* method, const char* part) {
  return r.method == method && r.path().find(part) != std::string::npos;
}
bool is_listing(const PeerRequest& r) {
  return r.method == "GET" && r.query().starts_with("format=json");
}
bool is_join(const PeerRequest& r) {
  return r.query().starts_with("multipart-manifest=put");
}

// An agent on a host of its own, with a store behind the peer and a datastore that only says what it is told.
class Host {
 public:
  // `at_end`: what the tool does when all its bytes have been read.
  Host(const StorageSettings& storage, const std::string& data, const std::function<void()>& at_end = {})
      : store_(make_store(storage, clock)) {
    ON_CALL(upkeep_, status).WillByDefault(Return(replica_status(ReplicationVerdict::healthy, ThreadState::running)));
    ON_CALL(upkeep_, make_staging).WillByDefault([this](const PieceSource::Kind&, JobContext&) {
      return dir_.path() / "staging";
    });
    ON_CALL(upkeep_, recover).WillByDefault(Return(""));
    ON_CALL(datastore_, open_snapshot).WillByDefault([data, at_end](auto&, auto&) {
      return std::make_unique<FakeStream>(data, at_end);
    });
    ON_CALL(datastore_, receive).WillByDefault([this](PieceSource& stream, auto&, auto&) {
      received.clear();
      std::vector<std::byte> buffer(70000);
      while (const std::size_t n = stream.read(buffer))
        received.append(reinterpret_cast<const char*>(buffer.data()), n);
      return 0;
    });
    ON_CALL(datastore_, install).WillByDefault([this](auto&, auto&, auto&) {
      ++installed;
      return std::make_unique<NiceMock<MockInstallation>>();
    });
    ON_CALL(datastore_, start_replicating).WillByDefault(Return(AttachOutcome{OwnJson(R"({"number":4})"), true, true}));
  }

  std::string call(const std::string& method, const std::string& params) { return dispatcher_.call(method, params); }
  void recover() { jobs_.recover(); }
  bool has_journal() const {
    std::error_code none;
    for (fs::directory_iterator at(dir_.path() / "state/jobs", none), end; !none && at != end; at.increment(none)) {
      if (at->path().extension() == ".journal") return true;
    }
    return false;
  }

  FakeClock clock;
  std::string received;
  unsigned installed = 0;

 private:
  TempDir dir_{fs::temp_directory_path(), "guestagent-host-"};
  const Settings settings_ = [this] {
    Settings made;
    made.agent.state_dir = dir_.path() / "state";
    made.snapshot.spill.dir = dir_.path() / "spill";
    made.snapshot.segment_bytes = 1 << 20;
    // What was under way when another request failed may arrive after the removal where nobody orders the two, as a
    // real Swift does.
    made.snapshot.transfers = 1;
    made.mysql.advertised_address = "192.0.2.1";
    return made;
  }();
  std::unique_ptr<ObjectStore> store_;
  NiceMock<MockDatastore> datastore_;
  NiceMock<MockUpkeep> upkeep_;
  NiceMock<MockRoles> roles_;
  Throttle throttle_;
  Operations operations_{settings_, *store_, datastore_, upkeep_, roles_, throttle_, system_clock()};
  Jobs jobs_{settings_.agent,
             [this](const std::string& method, JobContext& job) { return operations_.recover(method, job); },
             system_clock()};
  Dispatcher dispatcher_{operations_, jobs_, true};
};

// Refuses connections from the moment it is told to; a peer cannot do that from the thread of one of its own
// connections.
class PortCloser {
 public:
  explicit PortCloser(ScriptedHttp& peer) : peer_(peer), thread_([this](const std::stop_token& stop) { work(stop); }) {}
  void close() {
    const std::lock_guard lock(mutex_);
    if (state_ == State::open) state_ = State::closing;
    changed_.notify_all();
  }
  void open_again() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return state_ != State::closing; });
    if (state_ == State::closed) peer_.open_port();
    state_ = State::open;
  }

 private:
  enum class State { open, closing, closed };
  void work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return state_ == State::closing; })) {
      // Its connections' threads may be on their way to close().
      lock.unlock();
      peer_.close_port();
      lock.lock();
      state_ = State::closed;
      changed_.notify_all();
    }
  }
  ScriptedHttp& peer_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  State state_ = State::open;
  std::jthread thread_;
};

class JobCase {
 public:
  JobCase(const JobFaults& faults, FaultRow fault, bool stays, std::unique_ptr<SwiftUnderTest> swift)
      : faults_(faults), fault_(std::move(fault)), stays_(stays), swift_(std::move(swift)), closer_(swift_->peer()) {}
  ~JobCase() { swift_->peer().set_script(nullptr); }
  JobCount run();

 private:
  using Job = JobFaults::Job;
  bool is_snapshot() const { return faults_.job == Job::snapshot || faults_.job == Job::dying_snapshot; }
  std::string on_snapshot(const std::string& metadata) const;
  void spoil(Host& host);
  void mend() {
    swift_->peer().set_script(nullptr);
    swift_->set_storage_url("");
    closer_.open_again();
  }
  bool is_true_success(const Host& host, const std::string& result);
  void check_failure(const Error& error) const;
  bool leaves_nothing(Host& host, const Error& error, JobCount& count);

  const JobFaults& faults_;
  const FaultRow fault_;
  const bool stays_;
  const std::unique_ptr<SwiftUnderTest> swift_;
  PortCloser closer_;
  const std::string data_ = fault_content(2500000);
  std::atomic<unsigned> injected_{0};
  std::atomic<bool> stored_one_{false};
  std::size_t objects_before_ = 0;
};

void JobCase::spoil(Host& host) {
  if (fault_.name == "TLS") return;
  if (fault_.name == "refused" && !stays_) host.clock.on_sleep([this] { closer_.open_again(); });
  swift_->peer().set_script([this](const PeerRequest& request) -> PeerPlan {
    if (faults_.after_first_segment && !stored_one_) {
      if (is_of(request, "PUT", "/segment-") && !stored_one_.exchange(true) && faults_.hits == is_login) {
        return {.instead = PeerAnswer{.status = 401}};  // the token has expired
      }
      return {};
    }
    if (!faults_.hits(request) || (!stays_ && injected_ > 0)) return {};
    ++injected_;
    if (fault_.name != "refused") return fault_.plan;
    closer_.close();
    return {.fault = PeerFault::close};
  });
}

std::string JobCase::on_snapshot(const std::string& metadata) const {
  const JsonDocument document = parse_json(metadata, "metadata");
  const std::string href = document["dataset"]["snapshot_href"].GetString();
  if (faults_.job == Job::attach) return R"({"snapshot":)" + metadata + "}";
  return R"({"snapshot_href":")" + href + "\"}";
}

// Asks the server itself, and another host that meets no fault.
bool JobCase::is_true_success(const Host& host, const std::string& result) {
  mend();
  switch (faults_.job) {
    case Job::dying_snapshot:
      return false;
    case Job::attach:
      return host.received == data_ && host.installed == 1;
    case Job::remove:
      // A store that says again and again that there is nothing is believed.
      return swift_->objects() == 0 || (fault_.name == "404" && stays_);
    case Job::verify:
      return parse_json(result, "result")["raw_bytes"].GetUint64() == data_.size();
    case Job::snapshot: {
      Host other(swift_->settings(faults_.auth), data_);
      other.call("attach_replication_slave", R"({"snapshot":)" + result + "}");
      return other.received == data_;
    }
  }
  return false;
}

void JobCase::check_failure(const Error& error) const {
  EXPECT_NE(error.code(), Code::internal) << error.what();
  EXPECT_FALSE(error.hint().empty()) << error.what();
  EXPECT_EQ(std::string(error.what() + error.hint()).find(swift_->key()), std::string::npos);
}

bool JobCase::leaves_nothing(Host& host, const Error& error, JobCount& count) {
  // A store that says again and again that there is nothing is believed.
  if (fault_.name == "404" && stays_ && faults_.job == Job::dying_snapshot) return !host.has_journal();
  if (host.installed != 0) return false;
  if (faults_.job == Job::attach || faults_.job == Job::verify)
    return swift_->objects() == objects_before_ && !host.has_journal();
  if (swift_->objects() == 0)
    return !host.has_journal() || std::string(error.what()).find(" are left: ") != std::string::npos;
  // Named, journaled, and removed as soon as it can be.
  ++count.left;
  EXPECT_NE(std::string(error.what()).find("snap"), std::string::npos) << error.what();
  EXPECT_TRUE(host.has_journal()) << error.what();
  mend();
  host.recover();
  return swift_->objects() == 0 && !host.has_journal();
}

JobCount JobCase::run() {
  JobCount count{.cases = 1};
  std::string metadata;
  if (!is_snapshot()) {
    Host source(swift_->settings(faults_.auth), data_);
    metadata = source.call("get_replication_snapshot", R"({"snapshot_id":"snap"})");
    objects_before_ = swift_->objects();
  }
  StorageSettings settings = swift_->settings(faults_.auth);
  if (fault_.name.starts_with("stall")) settings.timeouts.stall = std::min(settings.timeouts.stall, kStallTold);
  if (fault_.name == "TLS") {
    const std::string https = "https" + swift_->peer().url().substr(4);
    if (faults_.hits == is_login) {
      settings.own.of<SwiftSettings>().auth_url = https;
    } else {
      swift_->set_storage_url(https + "/v1/AUTH_test");
    }
  }
  const auto die = [this] {
    while (!swift_->object("snap/segment-00000001")) std::this_thread::sleep_for(Millis(5));
    throw Error(Code::resource_exhausted, "the tool died", "look at the tool");
  };
  Host host(settings, data_, faults_.job == Job::dying_snapshot ? std::function<void()>(die) : nullptr);
  spoil(host);
  const char* const methods[] = {"get_replication_snapshot", "get_replication_snapshot", "attach_replication_slave",
                                 "verify_replication_snapshot", "delete_replication_snapshot"};
  std::optional<Error> error;
  std::string result;
  try {
    result = host.call(methods[static_cast<std::size_t>(faults_.job)],
                       is_snapshot() ? R"({"snapshot_id":"snap"})" : on_snapshot(metadata));
  } catch (const Error& e) {
    error = e;
  }
  if (error) {
    ++count.failed;
    check_failure(*error);
    EXPECT_TRUE(leaves_nothing(host, *error, count)) << "something is left: " << error->what();
    const bool first_login = faults_.hits == is_login && fault_.name == "401" && !faults_.after_first_segment;
    const bool must_pass =
        fault_.passes && !stays_ && fault_.name != "TLS" && !first_login && faults_.job != Job::dying_snapshot;
    EXPECT_FALSE(must_pass) << "one fault was too much: " << error->what();
  } else {
    ++count.succeeded;
    if (!is_true_success(host, result)) {
      ++count.false_successes;
      ADD_FAILURE() << "a success that is none";
    }
  }
  if (fault_.name != "TLS") {
    EXPECT_GT(injected_, 0U) << "no such request";
  }
  return count;
}

}  // namespace

const std::vector<JobFaults>& job_faults() {
  using Job = JobFaults::Job;
  static const std::vector<JobFaults> all = {
      {"auth", Job::snapshot, is_login},
      {"auth_v3", Job::snapshot, is_login, false, "v3"},
      {"auth_in_mid_run", Job::snapshot, is_login, true},
      {"auth_v3_in_mid_run", Job::snapshot, is_login, true, "v3"},
      {"head", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "HEAD", "/manifest.json"); }},
      {"list", Job::snapshot, is_listing},
      {"put_claim", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "PUT", "/claim.json"); }},
      {"put_second_claim", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "PUT", "/claim-"); }},
      {"get_claim", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "GET", "/claim.json"); }},
      {"put_segment", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "PUT", "/segment-"); }},
      {"put_index", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "PUT", "/index-"); }},
      {"put_slo", Job::snapshot, is_join},
      {"put_manifest", Job::snapshot, [](const PeerRequest& r) { return is_of(r, "PUT", "/manifest.json"); }},
      {"undo_list", Job::dying_snapshot, is_listing, true},
      {"undo_delete", Job::dying_snapshot, [](const PeerRequest& r) { return r.method == "DELETE"; }},
      {"get_manifest", Job::attach, [](const PeerRequest& r) { return is_of(r, "GET", "/manifest.json"); }},
      {"get_index", Job::attach, [](const PeerRequest& r) { return is_of(r, "GET", "/index-"); }},
      {"get_segment", Job::attach, [](const PeerRequest& r) { return is_of(r, "GET", "/segment-"); }},
      {"auth_of_attach", Job::attach, is_login},
      {"verify_segment", Job::verify, [](const PeerRequest& r) { return is_of(r, "GET", "/segment-"); }},
      {"take_over_claim", Job::remove, [](const PeerRequest& r) { return is_of(r, "PUT", "/claim.json"); }},
      {"delete_manifest", Job::remove, [](const PeerRequest& r) { return is_of(r, "DELETE", "/manifest.json"); }},
      {"delete_list", Job::remove, is_listing},
      {"delete_segment", Job::remove, [](const PeerRequest& r) { return is_of(r, "DELETE", "/segment-"); }},
  };
  return all;
}

void JobCount::add(const JobCount& more) {
  cases += more.cases;
  succeeded += more.succeeded;
  failed += more.failed;
  left += more.left;
  false_successes += more.false_successes;
}

std::ostream& operator<<(std::ostream& out, const JobCount& count) {
  return out << count.cases << " cases, " << count.false_successes << " false successes (" << count.succeeded
             << " succeeded, " << count.failed << " failed, of which " << count.left
             << " removed later what the store had kept)";
}

JobCount run_job_matrix(const JobFaults& faults, const std::function<std::unique_ptr<SwiftUnderTest>()>& make) {
  JobCount count;
  for (const FaultRow& fault : fault_table()) {
    // Only a job's first requests meet a store whose TLS fails.
    const std::string name = faults.name;
    if (fault.name == "TLS" && name != "auth" && name != "auth_v3" && name != "head") continue;
    for (const bool stays : {false, true}) {
      SCOPED_TRACE(name + ", " + fault.name + (stays ? ", for ever" : ", once"));
      count.add(JobCase(faults, fault, stays, make()).run());
    }
  }
  return count;
}

}  // namespace guestagent::test
