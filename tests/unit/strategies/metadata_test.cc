#include "strategies/metadata.h"

#include <gtest/gtest.h>

#include "strategies/datastore.h"
#include "strategies/mysql/server/position.h"
#include "tests/support/errors.h"
#include "tests/support/fake_job.h"

namespace guestagent {
namespace {

using mysql::own;
using mysql::position_of;
using mysql::read_position;
using test::code_of;
using test::error_of;

constexpr char kText[] =
    R"({"master":{"host":"192.168.0.1","port":3307},)"
    R"("dataset":{"datastore":"mysql","datastore_version":"mariadb-10.11.19","dataset_size":2,"dataset_bytes":1728865318,"snapshot_href":"file:///s/m"},)"
    R"("binlog_position":{"file":"binlog.000003","position":4711,"gtid":"0-1-205","known":"now"},)"
    R"("lease_position":{"file":"binlog.000003","position":120,"gtid":null,"known":"now"},)"
    R"("replication_user":{"name":"repl_a","password":"p\"w","require_tls":true},)"
    R"("snapshot":{"id":"a","created_at":"2026-01-01T00:00:00Z","tool":"mariadb-backup 10.11.19","format":"xbstream","compression":"zstd",)"
    R"("encryption":null,"segments":55,"raw_bytes":9,"stored_bytes":8,"digest":"sha256:x","format_version":1,"requires":[]}})";

std::string with(const std::string& from, const std::string& to) {
  std::string text = kText;
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

SnapshotMetadata read(const std::string& text) {
  const JsonDocument document = parse_json(text, "test");
  SnapshotMetadata read = read_metadata(document, "snapshot");
  const JsonReader in(document, "snapshot");
  read.data_position = own(read_position(in.object(kDataPosition)));
  read.lease_position = own(read_position(in.object(kLeasePosition)));
  return read;
}

TEST(Metadata, IsWrittenAsItIsRead) {
  const SnapshotMetadata metadata = read(kText);
  EXPECT_EQ(write_metadata(metadata), kText);
  EXPECT_EQ(metadata.master_port, 3307);
  EXPECT_EQ(metadata.replication_password.reveal(), "p\"w");
  EXPECT_EQ(position_of(metadata.data_position).gtid, "0-1-205");
  EXPECT_FALSE(position_of(metadata.lease_position).gtid.has_value());
}

TEST(Metadata, OfASourceAloneItTellsOfNoData) {
  const std::string text =
      R"({"master":{"host":"192.168.0.1","port":3307},)"
      R"("binlog_position":{"file":"binlog.000003","position":4711,"gtid":"0-1-205","known":"now"},)"
      R"("lease_position":{"file":"binlog.000003","position":120,"gtid":null,"known":"now"},)"
      R"("replication_user":{"name":"repl_a","password":"p","require_tls":true},)"
      R"("source":{"id":"a","created_at":"2026-01-01T00:00:00Z","datastore":"mysql","datastore_version":"mariadb-10.11.19",)"
      R"("format_version":1,"requires":[]}})";
  const SnapshotMetadata metadata = read(text);
  EXPECT_FALSE(metadata.has_data);
  EXPECT_EQ(metadata.datastore_version, "mariadb-10.11.19");
  EXPECT_EQ(write_metadata(metadata), text);
  EXPECT_TRUE(read(kText).has_data);
  // A snapshot from which a part was lost is no source.
  EXPECT_EQ(code_of([] { read(with(R"("dataset":{)", R"("source":{)")); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([&] {
              std::string newer = text;
              read(newer.replace(newer.find("\"format_version\":1"), 18, "\"format_version\":9"));
            }),
            "FAILED_PRECONDITION");
}

TEST(Metadata, ASetIsAnId) {
  const std::string text =
      with(R"("digest":"sha256:x","format_version":1)", R"("digest":"sha256:x","format_version":1,"set":"a-1")");
  EXPECT_EQ(read(text).set, "a-1");
  EXPECT_EQ(write_metadata(read(text)), text);
  EXPECT_EQ(code_of([] { read(with(R"("format_version":1)", R"("format_version":1,"set":"a/../b")")); }),
            "INVALID_ARGUMENT");
}

// Every string that comes with metadata, and what a stranger could put there.
TEST(Metadata, HostileTextsAreRefusedInEveryMember) {
  const std::pair<std::string, std::string> members[] = {
      {R"("host":"192.168.0.1")", "host"},
      {R"("datastore":"mysql")", "datastore"},
      {R"("datastore_version":"mariadb-10.11.19")", "datastore_version"},
      {R"("snapshot_href":"file:///s/m")", "snapshot_href"},
      {R"("file":"binlog.000003","position":4711)", "file"},
      {R"("gtid":"0-1-205")", "gtid"},
      {R"("name":"repl_a")", "name"},
      {R"("password":"p\"w")", "password"},
      {R"("id":"a")", "id"},
      {R"("created_at":"2026-01-01T00:00:00Z")", "created_at"},
      {R"("tool":"mariadb-backup 10.11.19")", "tool"},
      {R"("format":"xbstream")", "format"},
      {R"("compression":"zstd")", "compression"},
      {R"("encryption":null)", "encryption"},
      {R"("digest":"sha256:x")", "digest"},
  };
  const std::string hostile[] = {R"(a\nplugin_load=x)", R"(a\u0000b)", R"(\u001b[31m)", R"(a\rb)", R"(a\u007fb)", ""};
  for (const auto& [text, key] : members) {
    for (std::string value : hostile) {
      if (value.empty()) value.assign(key == "gtid" ? std::size_t{17} << 20 : 100000, 'x');  // longer than is allowed
      if (key == "gtid" && value == R"(a\rb)") continue;  // the datastore's own parser refuses that
      std::string replaced = "\"" + key + "\":\"" + value + "\"";
      if (key == "file") replaced += ",\"position\":4711";
      const Error error = error_of([&] { read(with(text, replaced)); });
      EXPECT_EQ(error.code(), Code::invalid_argument) << key;
      EXPECT_NE(std::string(error.what()).find("." + key), std::string::npos) << error.what();
      EXPECT_LT(std::string(error.what()).size(), 400U);
    }
  }
}

TEST(Metadata, AHostIsAHost) {
  for (const char* bad :
       {"", "host=127.0.0.1;port=1;plugin-dir=/tmp;default-auth=evil;x=:", "x', MASTER_PORT=1, MASTER_USER='y",
        "x,127.0.0.1", "tcp://x", "[::1]", "x:3306", "-x", "127.1", "a b", "$(x)", "%"}) {
    EXPECT_EQ(code_of([&] { read(with(R"("host":"192.168.0.1")", R"("host":")" + std::string(bad) + "\"")); }),
              "INVALID_ARGUMENT")
        << bad;
  }
  for (const char* good : {"db1.example.org", "::1", "fe80::1%eth0", "db_1"}) {
    EXPECT_EQ(read(with(R"("host":"192.168.0.1")", R"("host":")" + std::string(good) + "\"")).master_host, good);
  }
}

TEST(Metadata, APositionNamesABinaryLogAndGtidsOnly) {
  for (const char* bad : {"../x", "/etc/passwd", ""}) {
    EXPECT_EQ(code_of([&] {
                read(with(R"("file":"binlog.000003","position":4711)",
                          R"("file":")" + std::string(bad) + R"(","position":4711)"));
              }),
              "INVALID_ARGUMENT");
  }
  for (const char* bad : {"0-1-205'; DROP", "a(b)", "0-1-205/*"}) {
    EXPECT_EQ(code_of([&] { read(with(R"("gtid":"0-1-205")", R"("gtid":")" + std::string(bad) + "\"")); }),
              "INVALID_ARGUMENT")
        << bad;
  }
  EXPECT_NO_THROW(read(
      with(R"("gtid":"0-1-205")",
           R"("gtid":"7b0c1f5c-0000-11ee-8c99-0242ac120002:1-5:tag_1:7,\n7b0c1f5c-0000-11ee-8c99-0242ac120003:1")")));
}

TEST(Metadata, EqualPositionsAreEqualTextsHoweverTheyWereSent) {
  const SnapshotMetadata other =
      read(with(R"({"file":"binlog.000003","position":4711,"gtid":"0-1-205","known":"now"})",
                R"({ "more": [1], "gtid":"0-1-205", "position":4711,"file":"binlog.000003"})"));
  EXPECT_EQ(other.data_position, read(kText).data_position);
}

TEST(Metadata, APositionOfAnotherEngineIsCarriedAsItIs) {
  const std::string theirs = R"({"lsn":"0/16B3748","known":true})";
  const JsonDocument document =
      parse_json(with(R"({"file":"binlog.000003","position":4711,"gtid":"0-1-205","known":"now"})", theirs), "test");
  EXPECT_EQ(read_metadata(document, "snapshot").data_position.text(), theirs);
}

TEST(Metadata, UnknownKeysOfANewerAgentAreIgnored) {
  EXPECT_EQ(read(with("\"master\":{", "\"extra\":[1,{}],\"master\":{\"x\":null,")).master_host, "192.168.0.1");
}

TEST(Metadata, AMissingOrMistypedKeyIsNamedWithItsPath) {
  const std::pair<std::string, std::string> cases[] = {
      {R"("host":"192.168.0.1",)", "snapshot.master.host"},
      {R"("snapshot_href":"file:///s/m")", "snapshot.dataset.snapshot_href"},
      {R"("password":"p\"w",)", "snapshot.replication_user.password"},
      {R"("digest":"sha256:x",)", "snapshot.snapshot.digest"},
      {R"("segments":55,)", "snapshot.snapshot.segments"},
  };
  for (const auto& [removed, path] : cases) {
    const std::string text = with(removed, R"("gone":0)" + std::string(removed.back() == ',' ? "," : ""));
    const Error error = error_of([&] { read(text); });
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
  EXPECT_EQ(code_of([] { read(with("3307", "0")); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([] { read(with("3307", "65536")); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([] { read(with("3307", "\"3307\"")); }), "INVALID_ARGUMENT");
}

TEST(Metadata, APositionIsWholeOrOnlyKnownWhenRestored) {
  EXPECT_EQ(code_of([] {
              read(with(R"("file":"binlog.000003","position":4711,"gtid":"0-1-205")",
                        R"("file":null,"position":null,"gtid":null)"));
            }),
            "INVALID_ARGUMENT");
  const SnapshotMetadata restored =
      read(with(R"("file":"binlog.000003","position":4711,"gtid":"0-1-205","known":"now")",
                R"("file":null,"position":null,"gtid":null,"known":"restored")"));
  EXPECT_TRUE(position_of(restored.data_position).restored);
  EXPECT_EQ(code_of([] { read(with("\"position\":4711", "\"position\":null")); }), "INVALID_ARGUMENT");
  EXPECT_EQ(code_of([] { read(with("\"known\":\"now\"", "\"known\":\"perhaps\"")); }), "INVALID_ARGUMENT");
}

TEST(Metadata, WhatMustBeUnderstoodAndIsNotIsRefused) {
  const Error needs = error_of([] { read(with("\"requires\":[]", "\"requires\":[\"delta\"]")); });
  EXPECT_EQ(needs.code(), Code::failed_precondition);
  EXPECT_NE(std::string(needs.what()).find("delta"), std::string::npos);
  EXPECT_EQ(code_of([] { read(with("\"format_version\":1", "\"format_version\":2")); }), "FAILED_PRECONDITION");
}

TEST(RequirePassed, TheFirstFailureIsThrownTheOthersFollowAndWarningsGoToTheJob) {
  const TempDir dir("/tmp", "guestagent-plan-");
  test::FakeJob job(dir.path() / "journal");
  Plan plan;
  plan.checks.push_back({"a", Check::Result::ok, "fine", "", Code::internal});
  plan.checks.push_back({"b", Check::Result::warning, "careful", "", Code::internal});
  EXPECT_NO_THROW(require_passed(plan, job));
  EXPECT_EQ(job.warnings(), std::vector<std::string>{"b: careful"});
  plan.checks.push_back({"c", Check::Result::failed, "no", "do this", Code::not_found});
  plan.checks.push_back({"d", Check::Result::failed, "nor this", "", Code::internal});
  const Error error = error_of([&] { require_passed(plan, job); });
  EXPECT_EQ(error.code(), Code::not_found);
  EXPECT_NE(std::string(error.what()).find("c: no"), std::string::npos);
  EXPECT_NE(error.hint().find("do this"), std::string::npos);
  EXPECT_NE(error.hint().find("d: nor this"), std::string::npos);
}

}  // namespace
}  // namespace guestagent
