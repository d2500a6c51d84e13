// What xtrabackup of each series is given, and what is believed of what it leaves. The tool is a script that plays a
// stream.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <map>
#include <thread>

#include "strategies/mysql/copy/backup_copy.h"
#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::error_of;
using Files = std::map<std::string, std::string>;

const std::string kUuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const std::string kOther = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

// A file of the stream, as the format has it.
std::string packed(const std::string& name, const std::string& text) {
  const auto little = [](std::uint64_t value, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
    return out;
  };
  const std::string path = little(name.size(), 4) + name;
  return std::string("XBSTCK01\0P", 10) + path + little(text.size(), 8) + little(0, 8) + little(0, 4) + text +
         std::string("XBSTCK01\0E", 10) + path;
}

struct Series {
  const char *tool, *server;
  bool gtid;
  std::string binlog_info, said;
  Files files;
};

Series series(const char* tool, const char* server, bool gtid) {
  const bool old = std::string(tool).starts_with("2.");
  const std::string set = kUuid + ":1-5,\n" + kOther + ":1-7";
  const std::string where = "filename 'binlog.000003', position '4711'";
  const std::string set_said = gtid ? ", GTID of the last change '" + set + "'" : "";
  Series out{tool,
             server,
             gtid,
             "binlog.000003\t4711" + (gtid ? "\t" + set : "") + "\n",
             "MySQL binlog position: " + where + set_said,
             {}};
  out.files["xtrabackup_binlog_info"] = out.binlog_info;
  out.files["xtrabackup_checkpoints"] =
      std::string("backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 44404\nlast_lsn = 44413\n") +
      (old ? "compact = 0\nrecover_binlog_info = 0\n" : "flushed_lsn = 44404\nredo_memory = 0\nredo_frames = 0\n");
  out.files["xtrabackup_info"] =
      "uuid = " + kUuid +
      "\nname = \ntool_name = xtrabackup\ntool_command = --backup --stream=xbstream\ntool_version = " + tool +
      "\nibbackup_version = " + tool + "\nserver_version = " + server + "-log\nstart_time = 2026-11-22 20:59:14\n" +
      "end_time = 2026-11-22 20:59:15\nlock_time = 0\nbinlog_pos = " + where + set_said +
      "\ninnodb_from_lsn = 0\ninnodb_to_lsn = 44404\npartial = N\nincremental = N\nformat = xbstream\n" +
      (old ? "compact = N\n" : "") + "compressed = N\nencrypted = N\n";
  return out;
}

std::vector<Series> all_series() {
  return {series("2.3.10", "5.6.24", false),   series("2.4.29", "5.6.51", true), series("2.4.29", "5.7.44", true),
          series("8.0.35-31", "8.0.36", true), series("8.4.0-1", "8.4.6", true), series("9.1.0-1", "9.1.0", false)};
}

// A server that greets, and knows no more.
class Greeter {
 public:
  explicit Greeter(const fs::path& path) : listener_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    thread_ = std::thread([this] {
      for (;;) {
        const UniqueFd peer(::accept(listener_.get(), nullptr, nullptr));
        if (!peer) return;
        const std::string greeting(
            "\x0c\0\0\0\x0a"
            "5.6\0\x07\0\0\0xxx",
            16);
        EXPECT_EQ(::send(peer.get(), greeting.data(), greeting.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(greeting.size()));
      }
    });
  }
  ~Greeter() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }

 private:
  UniqueFd listener_;
  std::thread thread_;
};

// How the script reaches the server of its option file.
const char kAsks[] =
    "perl -MIO::Socket::UNIX -e '$s=IO::Socket::UNIX->new(Peer=>$ARGV[0]) or exit; sysread $s,$b,1' "
    "\"$(sed -n 's/^socket=\"\\(.*\\)\"$/\\1/p' options)\"\n";

class Taken {
 public:
  explicit Taken(const Series& of, const std::string& last_words = "completed OK!", const std::string& asks = kAsks,
                 int status = 0)
      : dir_(fs::temp_directory_path(), "ga-xtra-"), server_(dir_.path() / "nobody.sock") {
    std::string stream = packed("d/t.ibd", std::string(70000, 'x'));
    for (const auto& [name, text] : of.files) stream += packed(name, text);
    write_file_atomic(dir_.path() / "stream", stream);
    write_file_atomic(dir_.path() / "said", of.said + "\n" + last_words + "\n");
    const fs::path tool = dir_.path() / "xtrabackup";
    write_file_atomic(tool, "#!/bin/sh\ncd " + dir_.path().string() +
                                "\nprintf '%s\\n' \"$@\" > argv\ncat \"${1#--defaults-file=}\" > options\n" +
                                "stat -c %a \"${1#--defaults-file=}\" > mode\nenv > environment\n" + asks +
                                "cat stream\ncat said >&2\nexit " + std::to_string(status) + "\n");
    ::chmod(tool.c_str(), 0755);
    settings_.defaults_file = "/nonexistent/my.cnf";
    settings_.lock_wait = Seconds(7);
    make_dir(dir_.path() / "work", 0700);
    BackupSpec spec;
    spec.tool = {"xtrabackup", tool, of.tool};
    spec.server.version = parse_server_version(of.server, "");
    spec.server.gtid_on = of.gtid;
    spec.server.data_dir = "/data/of/mysql";
    spec.server.server_id = 7;
    spec.server.port = 3307;
    spec.target.socket = dir_.path() / "nobody.sock";
    spec.target.user = "agent";
    spec.target.password = Secret("pass \"word\"");
    spec.work_dir = dir_.path() / "work";
    spec.warn = [](std::string_view) {};
    copy_ = start_xtrabackup(settings_, std::move(spec), system_clock());
  }
  ~Taken() { copy_.reset(); }

  Position position() {
    std::vector<std::byte> buffer(1000);
    while (copy_->read(buffer) > 0) {
    }
    return copy_->position();
  }
  std::string dir() const { return dir_.path().string(); }
  std::string text(const char* name) const { return read_file(dir_.path() / name); }

 private:
  TempDir dir_;
  Greeter server_;
  MysqlSettings settings_;
  std::unique_ptr<BackupCopy> copy_;
};

Error refusal(const Series& of, const std::string& last_words = "completed OK!") {
  return error_of([&] { Taken(of, last_words).position(); });
}

TEST(Xtrabackup, ThePositionOfEachSeries) {
  for (const Series& each : all_series()) {
    SCOPED_TRACE(each.tool);
    const Position position = Taken(each).position();
    EXPECT_EQ(position.file, "binlog.000003");
    EXPECT_EQ(position.offset, 4711U);
    EXPECT_EQ(position.gtid.has_value(), each.gtid);
    if (each.gtid) {
      EXPECT_EQ(position.gtid, kUuid + ":1-5," + kOther + ":1-7");
    }
  }
}

TEST(Xtrabackup, TheCommandLineOfEachSeriesAndNoPasswordInIt) {
  for (const Series& each : all_series()) {
    SCOPED_TRACE(each.tool);
    Taken taken(each);
    taken.position();
    const bool old = std::string(each.tool).starts_with("2.");
    const std::string argv = taken.text("argv");
    EXPECT_EQ(argv.find("--defaults-file="), 0U) << "it must come first";
    for (const char* option : {"\n--backup\n", "\n--stream=xbstream\n", "\n--target-dir=", "\n--parallel=2\n",
                               "\n--ftwrl-wait-timeout=7\n", "\n--ftwrl-wait-query-type=all\n"}) {
      EXPECT_NE(argv.find(option), std::string::npos) << option << argv;
    }
    EXPECT_EQ(argv.find("--lock-ddl-timeout=7") == std::string::npos, old);
    EXPECT_EQ(argv.find("no-server-version-check"), std::string::npos);
    EXPECT_EQ(argv.find("word"), std::string::npos);
    EXPECT_EQ(taken.text("environment").find("word"), std::string::npos);
    const std::string options = taken.text("options");
    EXPECT_NE(options.find("[xtrabackup]\n"), std::string::npos);
    EXPECT_NE(options.find("user=\"agent\"\npassword=\"pass \\\"word\\\"\"\ndatadir=\"/data/of/mysql\"\n"),
              std::string::npos)
        << options;
    EXPECT_EQ(options.find("binlog-info=on") != std::string::npos, old);
    EXPECT_NE(options.find("[xtrabackup]\nhost=localhost\nport=3307\nloose-protocol=socket\n"
                           "loose-ssl-mode=DISABLED\nsocket=\"" +
                           taken.dir() + "/work/server.sock\"\n"),
              std::string::npos)
        << options;
    EXPECT_EQ(taken.text("mode"), "600\n");
    EXPECT_EQ(taken.text("environment").find("HOME="), std::string::npos) << "it would look for option files there";
  }
}

TEST(Xtrabackup, AMissingOrMalformedFileIsRefusedInEachSeries) {
  for (const Series& good : all_series()) {
    for (const auto& [name, text] : good.files) {
      SCOPED_TRACE(std::string(good.tool) + " " + name);
      Series bad = good;
      bad.files.erase(name);
      const Error missing = refusal(bad);
      EXPECT_EQ(missing.code(), Code::data_loss);
      EXPECT_NE(std::string(missing.what()).find(name), std::string::npos) << missing.what();
      for (const std::string& broken : {std::string(), text.substr(0, text.size() / 3), std::string(300, '\0')}) {
        bad.files[name] = broken;
        EXPECT_EQ(refusal(bad).code(), Code::data_loss) << broken;
      }
    }
  }
}

TEST(Xtrabackup, WhatDisagreesIsRefused) {
  const Series good = series("2.4.29", "5.7.44", true);
  const auto with = [&](const std::string& file, const std::string& from, const std::string& to) {
    Series bad = good;
    std::string& text = bad.files[file];
    text.replace(text.find(from), from.size(), to);
    return refusal(bad);
  };
  EXPECT_EQ(with("xtrabackup_binlog_info", "4711", "4712").code(), Code::data_loss);
  EXPECT_EQ(with("xtrabackup_info", "position '4711'", "position '4712'").code(), Code::data_loss);
  EXPECT_EQ(with("xtrabackup_binlog_info", "\t" + kUuid + ":1-5,\n" + kOther + ":1-7", "").code(), Code::data_loss);
  EXPECT_EQ(with("xtrabackup_info", "format = xbstream", "format = tar").code(), Code::data_loss);
  EXPECT_EQ(with("xtrabackup_checkpoints", "full-backuped", "incremental").code(), Code::data_loss);
  for (const char* flag : {"partial", "incremental", "compact", "encrypted"}) {
    EXPECT_EQ(with("xtrabackup_info", std::string("\n") + flag + " = N", std::string("\n") + flag + " = Y").code(),
              Code::failed_precondition)
        << flag;
  }
  Series said = good;
  said.said = "MySQL binlog position: filename 'binlog.000003', position '5'";
  EXPECT_EQ(refusal(said).code(), Code::data_loss);
  // Some series cut a long set off where they say it.
  said.said =
      "MySQL binlog position: filename 'binlog.000003', position '4711', GTID of the last change '" + kUuid + ":1-";
  EXPECT_NO_THROW(Taken(said).position());
}

TEST(Xtrabackup, OnlyTheLastWordCounts) {
  const Series good = series("8.0.35-31", "8.0.36", true);
  EXPECT_NO_THROW(
      Taken(good, "2026-11-22T20:59:15.1-00:00 0 [Note] [MY-011825] [Xtrabackup] completed OK!").position());
  EXPECT_EQ(refusal(good, "completed OK!\nand then it went wrong").code(), Code::internal);
  EXPECT_EQ(refusal(good, "").code(), Code::internal);
  EXPECT_EQ(
      refusal(good, "[ERROR] InnoDB: Encryption can't find master key, please check the keyring plugin is loaded.")
          .code(),
      Code::failed_precondition);
}

// `[client] host=` in a server's files led it elsewhere: data of the one, a position of the other.
TEST(Xtrabackup, ACopyThatDidNotAskThisServerIsRefused) {
  const Error error = error_of([&] { Taken(series("2.4.29", "5.7.44", true), "completed OK!", "").position(); });
  EXPECT_EQ(error.code(), Code::failed_precondition);
  EXPECT_THAT(error.hint(), ::testing::HasSubstr("remove host"));
  Series other = series("2.4.29", "5.7.44", true);
  other.files["backup-my.cnf"] = "[mysqld]\nserver_id=8\n\nredo_log_version=1\n";
  EXPECT_EQ(refusal(other).code(), Code::failed_precondition);
  other.files["backup-my.cnf"] = "[mysqld]\nserver_id=7\n\nredo_log_version=1\n";
  EXPECT_NO_THROW(Taken(other).position());
}

TEST(Xtrabackup, AnOptionThatChangesTheFilesIsNamed) {
  for (const auto& [ending, option] : std::map<std::string, std::string>{{".qp", "compress"},
                                                                         {".lz4", "compress"},
                                                                         {".zst", "compress"},
                                                                         {".xbcrypt", "encrypt"},
                                                                         {".qp.xbcrypt", "encrypt"}}) {
    Series changed = series("2.4.29", "5.7.44", true);
    changed.files["backup-my.cnf" + ending] = "x";
    changed.files.erase("xtrabackup_info");
    const Error error = refusal(changed);
    EXPECT_EQ(error.code(), Code::failed_precondition) << ending;
    EXPECT_THAT(error.hint(), ::testing::HasSubstr(option)) << ending;
  }
  Series plain = series("2.4.29", "5.7.44", true);
  for (const char* name : {"d/qp.ibd", "d/a.qp/db.opt", "d/x.MYD", "ibdata1"}) plain.files[name] = "x";
  EXPECT_NO_THROW(Taken(plain).position());
}

TEST(Xtrabackup, WhatItSaysOfItsFailureAndOfNobodysQueries) {
  const std::map<std::string, Code> table = {
      {"xtrabackup: error: failed to connect to MySQL server: Too many connections.", Code::unavailable},
      {"Error: failed to execute query BACKUP STAGE START: Lock wait timeout exceeded; try restarting transaction",
       Code::deadline_exceeded},
      {"261127 12:00:00 Unable to obtain lock. Please try again later.", Code::deadline_exceeded},
      {"xtrabackup: error: An optimized (without redo logging) DDLoperation has been performed. All modified pages may "
       "not have been flushed to "
       "the disk yet. \n    PXB will not be able take a consistent backup. Retry the backup operation",
       Code::unavailable},
      {"xtrabackup: error: log block numbers mismatch:\nxtrabackup: error: expected log block no. 20481, but got no. "
       "24577 from the log "
       "file.\nxtrabackup: error: xtrabackup_copy_logfile() failed.",
       Code::resource_exhausted},
      {"Warning: option 'datadir' has different values:\n  '/a/' in defaults file\n  '/b/' in SHOW VARIABLES",
       Code::failed_precondition},
      {"xtrabackup: got signal 11", Code::internal},
  };
  for (const auto& [words, code] : table) {
    const std::string said =
        "261127 11:59:59 Waiting for query 8 (duration 3 sec): SELECT 'geheim'261127 11:59:59 >> log scanned up to "
        "(1)\n" +
        words;
    const Error error = error_of([&] { Taken(series("2.4.29", "5.7.44", true), said, kAsks, 1).position(); });
    EXPECT_EQ(error.code(), code) << words << ": " << error.what();
    EXPECT_THAT(error.what(), ::testing::Not(::testing::HasSubstr("geheim")));
    EXPECT_FALSE(error.hint().empty());
  }
  // Also where it ends well: it was not this server's data.
  EXPECT_EQ(refusal(series("2.4.29", "5.7.44", true), "Warning: option 'datadir' has different values:\ncompleted OK!")
                .code(),
            Code::failed_precondition);
}

}  // namespace
}  // namespace guestagent::mysql
