// What xtrabackup of each series is given, and what is believed of what it leaves. The tool is a script that plays a stream.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "strategies/mysql/backup_copy.h"
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
  Series out{tool, server, gtid, "binlog.000003\t4711" + (gtid ? "\t" + set : "") + "\n", "MySQL binlog position: " + where + set_said, {}};
  out.files["xtrabackup_binlog_info"] = out.binlog_info;
  out.files["xtrabackup_checkpoints"] = std::string("backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 44404\nlast_lsn = 44413\n") +
                                        (old ? "compact = 0\nrecover_binlog_info = 0\n" : "flushed_lsn = 44404\nredo_memory = 0\nredo_frames = 0\n");
  out.files["xtrabackup_info"] = "uuid = " + kUuid + "\nname = \ntool_name = xtrabackup\ntool_command = --backup --stream=xbstream\ntool_version = " +
                                 tool + "\nibbackup_version = " + tool + "\nserver_version = " + server + "-log\nstart_time = 2026-11-22 20:59:14\n" +
                                 "end_time = 2026-11-22 20:59:15\nlock_time = 0\nbinlog_pos = " + where + set_said +
                                 "\ninnodb_from_lsn = 0\ninnodb_to_lsn = 44404\npartial = N\nincremental = N\nformat = xbstream\n" +
                                 (old ? "compact = N\n" : "") + "compressed = N\nencrypted = N\n";
  return out;
}

std::vector<Series> all_series() {
  return {series("2.3.10", "5.6.24", false), series("2.4.29", "5.6.51", true), series("2.4.29", "5.7.44", true),
          series("8.0.35-31", "8.0.36", true), series("8.4.0-1", "8.4.6", true), series("9.1.0-1", "9.1.0", false)};
}

class Taken {
 public:
  explicit Taken(const Series& of, const std::string& last_words = "completed OK!") : dir_(fs::temp_directory_path(), "ga-xtra-") {
    std::string stream = packed("d/t.ibd", std::string(70000, 'x'));
    for (const auto& [name, text] : of.files) stream += packed(name, text);
    write_file_atomic(dir_.path() / "stream", stream);
    write_file_atomic(dir_.path() / "said", of.said + "\n" + last_words + "\n");
    const fs::path tool = dir_.path() / "xtrabackup";
    write_file_atomic(tool, "#!/bin/sh\ncd " + dir_.path().string() + "\nprintf '%s\\n' \"$@\" > argv\ncat \"${1#--defaults-file=}\" > options\n" +
                                "stat -c %a \"${1#--defaults-file=}\" > mode\nenv > environment\ncat stream\ncat said >&2\n");
    ::chmod(tool.c_str(), 0755);
    settings_.defaults_file = "/nonexistent/my.cnf";
    settings_.lock_wait = Seconds(7);
    make_dir(dir_.path() / "work", 0700);
    BackupSpec spec;
    spec.tool = {"xtrabackup", tool, of.tool};
    spec.server.version = parse_server_version(of.server, "");
    spec.server.gtid_on = of.gtid;
    spec.server.data_dir = "/data/of/mysql";
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
  std::string text(const char* name) const { return read_file(dir_.path() / name); }

 private:
  TempDir dir_;
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
    for (const char* option : {"\n--backup\n", "\n--stream=xbstream\n", "\n--target-dir=", "\n--parallel=2\n", "\n--ftwrl-wait-timeout=7\n",
                               "\n--ftwrl-wait-query-type=all\n"}) {
      EXPECT_NE(argv.find(option), std::string::npos) << option << argv;
    }
    EXPECT_EQ(argv.find("--lock-ddl-timeout=7") == std::string::npos, old);
    EXPECT_EQ(argv.find("no-server-version-check"), std::string::npos);
    EXPECT_EQ(argv.find("word"), std::string::npos);
    EXPECT_EQ(taken.text("environment").find("word"), std::string::npos);
    const std::string options = taken.text("options");
    EXPECT_NE(options.find("[xtrabackup]\n"), std::string::npos);
    EXPECT_NE(options.find("user=\"agent\"\npassword=\"pass \\\"word\\\"\"\ndatadir=\"/data/of/mysql\"\n"), std::string::npos) << options;
    EXPECT_EQ(options.find("binlog-info=on") != std::string::npos, old);
    EXPECT_EQ(taken.text("mode"), "600\n");
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
    EXPECT_EQ(with("xtrabackup_info", std::string("\n") + flag + " = N", std::string("\n") + flag + " = Y").code(), Code::failed_precondition) << flag;
  }
  Series said = good;
  said.said = "MySQL binlog position: filename 'binlog.000003', position '5'";
  EXPECT_EQ(refusal(said).code(), Code::data_loss);
  // Some series cut a long set off where they say it.
  said.said = "MySQL binlog position: filename 'binlog.000003', position '4711', GTID of the last change '" + kUuid + ":1-";
  EXPECT_NO_THROW(Taken(said).position());
}

TEST(Xtrabackup, OnlyTheLastWordCounts) {
  const Series good = series("8.0.35-31", "8.0.36", true);
  EXPECT_NO_THROW(Taken(good, "2026-11-22T20:59:15.1-00:00 0 [Note] [MY-011825] [Xtrabackup] completed OK!").position());
  EXPECT_EQ(refusal(good, "completed OK!\nand then it went wrong").code(), Code::internal);
  EXPECT_EQ(refusal(good, "").code(), Code::internal);
  EXPECT_EQ(refusal(good, "[ERROR] InnoDB: Encryption can't find master key, please check the keyring plugin is loaded.").code(), Code::failed_precondition);
}

}  // namespace
}  // namespace guestagent::mysql
