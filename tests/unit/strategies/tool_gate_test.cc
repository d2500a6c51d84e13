// The door between a backup tool and its server. The server is a script of answers here; real ones stand in tests/fault
// and tests/integration.
#include "strategies/mysql/copy/tool_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <map>
#include <thread>

#include "strategies/mysql/copy/copy_place.h"
#include "strategies/mysql/copy/tool_lines.h"
#include "strategies/mysql/server/session_words.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using std::string_literals::operator""s;

sockaddr_un address_of(const fs::path& path) {
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  std::strncpy(out.sun_path, path.c_str(), sizeof out.sun_path - 1);
  return out;
}

std::string gate_packet(const std::string& payload, int number) {
  std::string out;
  for (int i = 0; i < 3; ++i) out += static_cast<char>(payload.size() >> (8 * i) & 0xff);
  return out + static_cast<char>(number) + payload;
}

std::string read_packet(int fd) {
  std::string out(4, '\0');
  if (::recv(fd, out.data(), 4, MSG_WAITALL) != 4) return "";
  std::string payload(static_cast<unsigned char>(out[0]) + 256U * static_cast<unsigned char>(out[1]), '\0');
  if (::recv(fd, payload.data(), payload.size(), MSG_WAITALL) != static_cast<ssize_t>(payload.size())) return "";
  return payload;
}

void write_all_to(int fd, const std::string& bytes) {
  ASSERT_EQ(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

const std::string kFine = "\0\0\0\2\0\0\0"s;
const std::string kTimedOut = "\xff\xb5\x04#HY000Lock wait timeout exceeded"s;  // 1205

using Answers = std::map<std::string, std::vector<std::string>>;

// One connection after the other; the n-th statement of a text is answered by the n-th of its answers, else by kFine.
class ScriptedServer {
 public:
  ScriptedServer(const fs::path& socket, Answers answers)
      : answers_(std::move(answers)), listener_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    const sockaddr_un address = address_of(socket);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~ScriptedServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  std::vector<std::string> heard() const {
    const std::scoped_lock lock(mutex_);
    return heard_;
  }

 private:
  void serve() {
    for (unsigned id = 70000;; ++id) {
      const UniqueFd peer(::accept(listener_.get(), nullptr, nullptr));
      if (!peer) return;
      std::string number;
      for (int i = 0; i < 4; ++i) number += static_cast<char>(id >> (8 * i) & 0xff);
      write_all_to(peer.get(), gate_packet("\x0a"
                                           "5.6.24\0"s +
                                               number + std::string(30, 'x'),
                                           0));
      for (std::string said = read_packet(peer.get()); !said.empty(); said = read_packet(peer.get())) {
        const std::scoped_lock lock(mutex_);
        heard_.push_back(said[0] == 3 ? said.substr(1) : "login");
        std::vector<std::string>& next = answers_[heard_.back()];
        write_all_to(peer.get(), gate_packet(next.empty() ? kFine : next.front(), 1));
        if (!next.empty()) next.erase(next.begin());
      }
    }
  }

  Answers answers_;
  UniqueFd listener_;
  mutable std::mutex mutex_;
  std::vector<std::string> heard_;  // guarded by mutex_
  std::thread thread_;
};

class GateTool {
 public:
  explicit GateTool(const fs::path& socket, unsigned flags = 0) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    const sockaddr_un address = address_of(socket);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    greeting_ = read_packet(fd_.get());
    std::string login;
    for (int i = 0; i < 4; ++i) login += static_cast<char>(flags >> (8 * i) & 0xff);
    write_all_to(fd_.get(), gate_packet(login + std::string(28, '\0') + "agent", 1));
    read_packet(fd_.get());
  }
  std::string ask(const std::string& sql, const std::string& before = "") {
    write_all_to(fd_.get(), gate_packet("\3" + before + sql, 0));
    return read_packet(fd_.get());
  }
  std::string greeting_;

 private:
  UniqueFd fd_;
};

struct GateSite {
  explicit GateSite(Answers answers = {})
      : server(dir.path() / "server", std::move(answers)),
        gate(dir.path(), dir.path() / "server", {Seconds(20), Millis(30)}, system_clock()) {}
  TempDir dir{fs::temp_directory_path(), "ga-gate-"};
  ScriptedServer server;
  ToolGate gate;
};

const std::string kLimits(kNoLimits), kFlush = "FLUSH TABLES WITH READ LOCK",
                                      kPatience = "SET SESSION lock_wait_timeout=20",
                                      kHaste = "SET SESSION lock_wait_timeout=1";

TEST(ToolGate, WhatWouldBlindItIsNotOfferedToTheTool) {
  GateSite site;
  const GateTool tool(site.gate.socket());
  const std::size_t offered = 1 + "5.6.24\0"s.size() + 4 + 8 + 1;
  // The script's server offers what the bits of "xx" are: encryption (0x0800) and compression (0x20) among it.
  EXPECT_EQ(tool.greeting_.substr(offered), "Xp" + std::string(30 - 8 - 1 - 2, 'x'));
}

TEST(LockKinds, WhatOthersWaitBehind) {
  const std::vector<std::pair<std::string, LockKind>> table = {
      {"FLUSH TABLES WITH READ LOCK", LockKind::freeze},
      {"flush /* x */ local\ttables with  read lock", LockKind::freeze},
      {"/* tool */ FLUSH TABLES WITH READ LOCK", LockKind::freeze},
      {"BACKUP STAGE BLOCK_COMMIT", LockKind::freeze},
      {"FLUSH NO_WRITE_TO_BINLOG TABLES", LockKind::polite},
      {"LOCK TABLES FOR BACKUP", LockKind::polite},
      {"LOCK BINLOG FOR BACKUP", LockKind::freeze},
      {"LOCK INSTANCE FOR BACKUP", LockKind::polite},
      {"BACKUP STAGE START", LockKind::polite},
      {"BACKUP STAGE FLUSH", LockKind::polite},
      {"BACKUP STAGE BLOCK_DDL", LockKind::polite},
      {"BACKUP LOCK d.t", LockKind::polite},
      {"BACKUP STAGE END", LockKind::none},
      {"UNLOCK TABLES", LockKind::none},
      {"SELECT 'FLUSH TABLES WITH READ LOCK'", LockKind::none},
      {"SET SESSION lock_wait_timeout=31536000", LockKind::none},
      {"", LockKind::none},
      {"/* never closed", LockKind::none},
  };
  for (const auto& [statement, kind] : table) EXPECT_EQ(lock_kind(statement), kind) << statement;
}

TEST(ToolGate, KnowsAndRecordsEverySession) {
  GateSite site;
  EXPECT_THAT(site.gate.sessions(), IsEmpty());
  {
    GateTool one(site.gate.socket());
    EXPECT_EQ(one.greeting_.substr(1, 6), "5.6.24");
    EXPECT_THAT(site.gate.sessions(), ElementsAre(70000U)) << "known before the tool is greeted";
  }
  GateTool two(site.gate.socket());
  const auto record = read_gate_record(site.dir.path());
  ASSERT_TRUE(record.has_value());
  EXPECT_THAT(record->sessions, ElementsAre(70000U, 70001U));
  EXPECT_TRUE(record->own_dir.empty());
  EXPECT_FALSE(read_gate_record(site.dir.path() / "nowhere").has_value());
}

TEST(ToolGate, ALongPathHasAPlaceOfItsOwn) {
  TempDir dir(fs::temp_directory_path(), "ga-gate-");
  const fs::path deep = dir.path() / std::string(120, 'd');
  make_dir(deep, 0700);
  fs::path own;
  {
    ToolGate gate(deep, dir.path() / "nobody", {}, system_clock());
    const auto record = read_gate_record(deep);
    ASSERT_TRUE(record.has_value());
    own = record->own_dir;
    EXPECT_EQ(gate.socket().parent_path(), own);
  }
  EXPECT_FALSE(fs::exists(own));
}

TEST(ToolGate, EveryLockIsGivenALimitByTheServerItself) {
  GateSite site;
  GateTool tool(site.gate.socket());
  for (const char* statement :
       {"SET SESSION lock_wait_timeout=31536000", "LOCK TABLES FOR BACKUP", "SELECT 1", "BACKUP STAGE BLOCK_COMMIT"}) {
    EXPECT_EQ(tool.ask(statement), kFine);
  }
  EXPECT_THAT(site.server.heard(),
              ElementsAre("login", kLimits, "SET SESSION lock_wait_timeout=31536000", kPatience,
                          "LOCK TABLES FOR BACKUP", "SELECT 1", kHaste, "BACKUP STAGE BLOCK_COMMIT"));
}

TEST(ToolGate, TheLimitsForEverybodyAreNotTheTools) {
  GateSite site;
  for (int session = 0; session < 2; ++session) {
    GateTool tool(site.gate.socket());
    EXPECT_EQ(tool.ask("SHOW VARIABLES"), kFine);
    EXPECT_EQ(tool.ask("SHOW ENGINES"), kFine);
  }
  EXPECT_THAT(site.server.heard(), ElementsAre("login", kLimits, "SHOW VARIABLES", "SHOW ENGINES", "login", kLimits,
                                               "SHOW VARIABLES", "SHOW ENGINES"));
}

TEST(ToolGate, AFreezeIsTriedAgainAndTheWritersGoOnInBetween) {
  GateSite site(Answers{{kFlush, {kTimedOut, kTimedOut, kFine}}});
  GateTool tool(site.gate.socket());
  EXPECT_EQ(tool.ask(kFlush), kFine) << "the tool knows nothing of it";
  EXPECT_THAT(site.server.heard(), ElementsAre("login", kLimits, kHaste, kFlush, "UNLOCK TABLES", kHaste, kFlush,
                                               "UNLOCK TABLES", kHaste, kFlush));
  EXPECT_TRUE(site.gate.frozen_since().has_value());
  EXPECT_EQ(tool.ask("UNLOCK TABLES"), kFine);
  EXPECT_FALSE(site.gate.frozen_since().has_value());
}

TEST(ToolGate, WhatTheToolHasIsNotTakenFromItBetweenTwoTries) {
  const std::string binlog = "LOCK BINLOG FOR BACKUP";
  GateSite site(Answers{{binlog, {kTimedOut, kFine}}});
  GateTool tool(site.gate.socket());
  EXPECT_EQ(tool.ask("LOCK TABLES FOR BACKUP"), kFine);
  EXPECT_EQ(tool.ask(binlog), kFine);
  EXPECT_THAT(site.server.heard(),
              ElementsAre("login", kLimits, kPatience, "LOCK TABLES FOR BACKUP", kHaste, binlog, kHaste, binlog));
  EXPECT_EQ(tool.ask("UNLOCK BINLOG"), kFine);
  EXPECT_FALSE(site.gate.frozen_since().has_value());
}

TEST(ToolGate, AfterLockWaitTheToolIsToldSo) {
  TempDir dir(fs::temp_directory_path(), "ga-gate-");
  ScriptedServer server(dir.path() / "server", Answers{{kFlush, std::vector<std::string>(1000, kTimedOut)}});
  ToolGate gate(dir.path(), dir.path() / "server", {Millis(200), Millis(30)}, system_clock());
  GateTool tool(gate.socket());
  EXPECT_EQ(tool.ask(kFlush), kTimedOut);
  EXPECT_FALSE(gate.frozen_since().has_value());
  EXPECT_EQ(server.heard().back(), "UNLOCK TABLES") << "nothing is kept of what the server may have given";
}

TEST(ToolGate, AnotherErrorIsTheTools) {
  const std::string denied = "\xff\xcb\x04#42000denied";  // 1227
  GateSite site(Answers{{kFlush, {denied}}});
  GateTool tool(site.gate.socket());
  EXPECT_EQ(tool.ask(kFlush), denied);
  EXPECT_FALSE(site.gate.frozen_since().has_value());
}

TEST(ToolGate, WhatItCannotReadItPassesOn) {
  for (const unsigned flag : {1U << 5, 1U << 11, 1U << 26}) {
    GateSite site;
    GateTool tool(site.gate.socket(), flag);
    EXPECT_EQ(tool.ask(kFlush), kFine);
    EXPECT_THAT(site.server.heard(), ElementsAre("login", kFlush)) << flag;
    EXPECT_THAT(site.gate.sessions(), ElementsAre(70000U));
  }
}

TEST(ToolGate, AStatementMayHaveAttributesBeforeIt) {
  GateSite site;
  GateTool tool(site.gate.socket(), 1U << 27);
  EXPECT_EQ(tool.ask("LOCK INSTANCE FOR BACKUP", "\0\1"s), kFine);
  EXPECT_THAT(site.server.heard(),
              ElementsAre("login", "\0\1"s + kLimits, "\0\1"s + kPatience, "\0\1LOCK INSTANCE FOR BACKUP"s));
}

TEST(ToolLines, OfOthersQueriesOnlyNumberAndAge) {
  struct Case {
    std::vector<std::string> said, kept;
  };
  const std::string gave_up = "Unable to obtain lock. Please try again later.",
                    asks = "261127 12:00:00 Executing FLUSH TABLES WITH READ LOCK...";
  const std::string waits = "261127 11:59:58 Waiting for query 8 (duration 3 sec)";
  const std::vector<Case> table = {
      {{"261127 11:59:57 >> log scanned up to (42)", asks}, {"261127 11:59:57 >> log scanned up to (42)", asks}},
      // Glued, as the tool ends no line after a query.
      {{waits + ": SELECT 'geheim'261127 11:59:59 >> log scanned up to (42)", asks}, {waits, asks}},
      {{waits + ": INSERT INTO t VALUES ('geheim',", "'geheim'", "", "2)261127 11:59:59 >> log scanned up to (42)",
        "." + asks},
       {waits, "." + asks}},
      {{waits + ": SELECT (duration 1 sec): geheim"}, {waits}},
      {{waits + ": SELECT 'geheim'" + waits + ": SELECT 'geheim'261127 12:00:01 " + gave_up}, {waits, gave_up}},
      {{waits + ": SELECT", "'geheim'261127 12:00:01 " + gave_up}, {waits, gave_up}},
      {{waits + ": SELECT 'geheim'", "[00] 2026-11-27 12:00:00 Finished"},
       {waits, "[00] 2026-11-27 12:00:00 Finished"}},
      {{"2026-11-27T12:00:00.1-00:00 0 [Note] Waiting for query 8 (duration 3 sec): geheim",
        "2026-11-27T12:00:01.1-00:00 0 [Note] completed OK!"},
       {"2026-11-27T12:00:00.1-00:00 0 [Note] Waiting for query 8 (duration 3 sec)",
        "2026-11-27T12:00:01.1-00:00 0 [Note] completed OK!"}},
      {{"Waiting for query geheim"}, {"Waiting for query"}},
      {{"Waiting for query "}, {"Waiting for query"}},
  };
  for (const Case& each : table) {
    ToolLines lines;
    std::vector<std::string> kept;
    for (const std::string& line : each.said) {
      for (const std::string& out : lines.take(line)) kept.push_back(out);
    }
    EXPECT_EQ(kept, each.kept) << each.said.front();
  }
}

TEST(CopyPlace, OnlyAPlaceOfThisServersHistory) {
  const std::vector<BinlogFile> logs = {{"binlog.000001", 500}, {"binlog.000002", 900}, {"binlog.000003", 461}};
  const auto at = [](const char* file, std::uint64_t offset, const char* gtid = "0-1-9") {
    Position out;
    out.file = file, out.offset = offset, out.gtid = gtid;
    return out;
  };
  const Position lease = at("binlog.000002", 300, "0-1-7");
  struct Case {
    Position position;
    const char* why;  // "": it is one
  };
  const std::vector<Case> table = {
      {at("binlog.000002", 300), ""},
      {at("binlog.000003", 4), ""},
      {at("binlog.000003", 461, "0-1-7,5-5-5"), ""},
      {at("binlog.000004", 632), "no binary log of that name"},
      {at("mysql-bin.000002", 400), "no binary log of that name"},
      {at("", 0), "no binary log of that name"},
      {at("binlog.000003", 462), "ends at 461"},
      {at("binlog.000002", 299), "lies before"},
      {at("binlog.000001", 499), "lies before"},
      {at("binlog.000003", 461, "0-1-6"), "GTIDs lack"},
      {at("binlog.000003", 461, "1-1-60"), "GTIDs lack"},
  };
  for (const Case& each : table) {
    const std::string what =
        *each.position.file + ":" + std::to_string(*each.position.offset) + " " + *each.position.gtid;
    if (*each.why == '\0') {
      EXPECT_NO_THROW(require_place(each.position, lease, logs, GtidKind::mariadb)) << what;
      continue;
    }
    const Error error = error_of([&] { require_place(each.position, lease, logs, GtidKind::mariadb); });
    EXPECT_EQ(error.code(), Code::failed_precondition) << what;
    EXPECT_THAT(error.what(), HasSubstr(each.why)) << what;
  }
  Position later;
  later.restored = true;
  EXPECT_NO_THROW(require_place(later, lease, logs, GtidKind::mysql));
  Position without = at("binlog.000003", 4);
  without.gtid.reset();
  EXPECT_NO_THROW(require_place(without, lease, logs, GtidKind::mariadb));
}

}  // namespace
}  // namespace guestagent::mysql
