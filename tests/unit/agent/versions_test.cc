// Snapshots of agents of another age: what a newer one adds is passed over, and what it requires and is not known here
// is refused before anything is touched.
#include "storage/snapshot_format.h"
#include "stream/digest.h"
#include "tests/unit/agent/agent_fixture.h"

namespace guestagent {
namespace {

using testing::_;
using testing::HasSubstr;

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size(), ++count)
    text.replace(at, from.size(), to);
  EXPECT_GT(count, 0U) << from << " in " << text;
  return text;
}

class VersionsTest : public test::AgentFixture {
 protected:
  std::string take() { return dispatcher.call("get_replication_snapshot", R"({"snapshot_id":"snap"})"); }
  static std::string attach(const std::string& metadata) { return R"({"snapshot":)" + metadata + "}"; }

  void refused(const std::string& metadata, const std::string& word) {
    EXPECT_CALL(upkeep, make_staging).Times(0);
    EXPECT_CALL(datastore, install).Times(0);
    const Error error = failure("attach_replication_slave", attach(metadata));
    EXPECT_EQ(error.code(), Code::failed_precondition) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(word));
    EXPECT_THAT(error.hint(), testing::AnyOf(HasSubstr("newer"), HasSubstr("upgrade")));
  }
};

TEST_F(VersionsTest, WhatANewerAgentAddsIsPassedOver) {
  const std::string metadata = replaced(replaced(take(), R"("snapshot":{)", R"("snapshot":{"parity":[1,{"of":null}],)"),
                                        R"({"master":{)", R"({"cloud":{"zone":"b"},"master":{"hosts":["a","b"],)");
  std::string index = store.text("snap/index-000001.json");
  Manifest manifest = parse_manifest(store.text("snap/manifest.json"), nullptr);
  index = replaced(replaced(index, R"({"name":)", R"({"tier":"cold","name":)"), R"("index":1)",
                   R"("index":1,"parity":{"of":[]})");
  manifest.indexes.at(0).sha256 = sha256_hex(as_bytes(index));
  store.set("snap/index-000001.json", index);
  store.set("snap/manifest.json",
            replaced(replaced(write_manifest(manifest, nullptr), R"({"name":)", R"({"parity":[2],"name":)"),
                     R"("requires":[])", R"("requires":[],"deltas":[{"of":"other"}])"));
  store.set("snap/parity-00000001", "an object that nobody here knows");

  EXPECT_STREQ(call("attach_replication_slave", attach(metadata))["state"].GetString(), "replica");
  EXPECT_EQ(received, data);
  EXPECT_TRUE(
      call("verify_replication_snapshot", R"({"snapshot_href":"memory://snap/manifest.json"})")["ok"].GetBool());
  EXPECT_EQ(
      call("delete_replication_snapshot", R"({"snapshot_href":"memory://snap/manifest.json"})")["objects"].GetInt(), 7);
  EXPECT_TRUE(store.names().empty()) << "also what was not known";
}

TEST_F(VersionsTest, WhatTheMetadataRequireAndIsNotKnownIsRefused) {
  refused(replaced(take(), R"("requires":[])", R"("requires":["deltas"])"), "deltas");
}

TEST_F(VersionsTest, WhatTheManifestRequiresAndIsNotKnownIsRefused) {
  const std::string metadata = take();
  Manifest manifest = parse_manifest(store.text("snap/manifest.json"), nullptr);
  manifest.requires_list = {"deltas"};
  store.set("snap/manifest.json", write_manifest(manifest, nullptr));
  refused(metadata, "deltas");
}

TEST_F(VersionsTest, ALaterFormatIsRefused) {
  const std::string metadata = take();
  refused(replaced(metadata, R"("format_version":1)", R"("format_version":2)"), "format_version");
  store.set("snap/manifest.json",
            replaced(store.text("snap/manifest.json"), R"("format_version":1)", R"("format_version":2)"));
  refused(metadata, "format_version");
}

}  // namespace
}  // namespace guestagent
