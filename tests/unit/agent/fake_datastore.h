// A datastore of a few bytes, whose every call can be watched and made to fail.
#pragma once

#include <gmock/gmock.h>

#include <string>

#include "strategies/datastore.h"
#include "strategies/roles.h"

namespace guestagent::test {

class MockDatastore : public Datastore {
 public:
  OwnJson read_position(const JsonReader& in) const override {
    return OwnJson(JsonWriter().begin_object().member("at", in.uint("at")).end_object().text());
  }
  std::vector<std::string_view> attach_members() const override { return {"number"}; }
  OwnJson read_attach_members(const JsonReader& in) const override {
    const auto number = in.opt_uint("number", 1, 9);
    return number ? OwnJson(JsonWriter().begin_object().member("number", *number).end_object().text()) : OwnJson();
  }
  MOCK_METHOD(ServerDescription, describe, (), (override));
  MOCK_METHOD(Plan, plan_snapshot, (const SnapshotRequest&), (override));
  MOCK_METHOD(std::unique_ptr<SnapshotStream>, open_snapshot, (const SnapshotRequest&, JobContext&), (override));
  MOCK_METHOD(Plan, plan_attach, (const AttachRequest&, const std::string&), (override));
  MOCK_METHOD(std::uint64_t, receive, (PieceSource&, const fs::path&, JobContext&), (override));
  MOCK_METHOD(std::unique_ptr<Installation>, install, (const AttachRequest&, const fs::path&, JobContext&), (override));
  MOCK_METHOD(AttachOutcome, start_replicating, (const AttachRequest&, JobContext&), (override));
  MOCK_METHOD(Plan, plan_stop, (const DetachRequest&), (override));
  MOCK_METHOD(DetachOutcome, stop_replicating, (const DetachRequest&, JobContext&), (override));
};

class MockUpkeep : public DatastoreUpkeep {
 public:
  MOCK_METHOD(ReplicationStatus, status, (), (override));
  MOCK_METHOD(void, tend, (), (override));
  MOCK_METHOD(bool, has_part, (const fs::path&), (override));
  MOCK_METHOD(void, keep_staged, (const fs::path&, const PieceSource::Kind&, JobContext&), (override));
  MOCK_METHOD(std::uint64_t, discard_staged, (const PieceSource::Kind&, JobContext&), (override));
  MOCK_METHOD(fs::path, make_staging, (const PieceSource::Kind&, JobContext&), (override));
  MOCK_METHOD(std::string, recover, (Undertaking, JobContext&), (override));
  MOCK_METHOD(Plan, plan_release, (const std::string&), (override));
  MOCK_METHOD(void, release_source, (const std::string&, JobContext&), (override));
  MOCK_METHOD(std::vector<TableChecksum>, checksum_tables,
              (const std::vector<std::string>&, std::optional<std::uint64_t>, const std::optional<OwnJson>&, OwnJson&,
               JobContext&),
              (override));
};

class MockRoles : public DatastoreRoles {
 public:
  MOCK_METHOD(Plan, plan_read_only, (const ReadOnlyRequest&), (override));
  MOCK_METHOD(ReadOnlyOutcome, set_read_only, (const ReadOnlyRequest&, JobContext&), (override));
  MOCK_METHOD(ReplicationPlace, place, (), (override));
  MOCK_METHOD(void, wait_for, (const OwnJson&, Millis, JobContext&), (override));
  MOCK_METHOD(Plan, plan_open_source, (), (override));
  MOCK_METHOD(SourceFacts, open_source, (const std::string&, JobContext&), (override));
  MOCK_METHOD(Plan, plan_demote, (bool), (override));
  MOCK_METHOD(std::vector<std::string>, demote_source, (bool, JobContext&), (override));
};

// Of a replica whose applying thread is in `state`.
inline ReplicationStatus replica_status(ReplicationVerdict verdict, ThreadState state) {
  ReplicationStatus status;
  status.role = ReplicationRole::replica;
  status.verdict = verdict;
  status.threads = {{"receiver", ThreadState::running}, {"applier", state, true}};
  return status;
}

class MockInstallation : public Installation {
 public:
  MOCK_METHOD(void, accept, (), (override));
  MOCK_METHOD(void, dropped, ());
  ~MockInstallation() override { dropped(); }
};

inline SourceFacts source_facts() {
  SourceFacts facts;
  facts.master_host = "192.0.2.1";
  facts.master_port = 3306;
  facts.datastore_version = "mariadb-10.11.19";
  facts.dataset_bytes = (std::uint64_t{1} << 30) + 1;
  facts.data_position = OwnJson(R"({"at":205})");
  facts.lease_position = OwnJson(R"({"at":3})");
  facts.replication_user = "repl_x";
  facts.replication_password = Secret("the-password");
  facts.tool = "mariadb-backup 10.11.19";
  facts.format = "xbstream";
  facts.server_json = R"({"page_size":16384})";
  return facts;
}

// Answers `text`, then what `end` throws, or a good end.
class FakeStream : public SnapshotStream {
 public:
  explicit FakeStream(std::string text, std::function<void()> end = {})
      : text_(std::move(text)), end_(std::move(end)) {}
  std::size_t read(std::span<std::byte> into) override {
    const std::size_t n = std::min(into.size(), text_.size() - at_);
    if (n == 0 && end_) end_();
    std::memcpy(into.data(), text_.data() + at_, n);
    at_ += n;
    return n;
  }
  std::uint64_t expected_bytes() const override { return text_.size(); }
  SourceFacts facts() override { return source_facts(); }

 private:
  std::string text_;
  std::function<void()> end_;
  std::size_t at_ = 0;
};

}  // namespace guestagent::test
