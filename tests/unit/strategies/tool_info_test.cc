#include "strategies/mysql/copy/tool_info.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/errors.h"

namespace guestagent::mysql {
namespace {

using test::code_of;
using test::error_of;

constexpr char kInfo[] =
    "uuid = 93858f2a-e6b7-11f1-90ab-02fc00000001\n"
    "name = \n"
    "tool_name = mariadb-backup\n"
    "tool_command = --backup --stream=xbstream\n"
    "tool_version = 10.11.19-MariaDB\n"
    "ibbackup_version = 10.11.19-MariaDB\n"
    "server_version = 10.11.19-MariaDB-0+deb12u1-log\n"
    "start_time = 2026-11-22 20:59:14\n"
    "end_time = 2026-11-22 20:59:15\n"
    "lock_time = 2\n"
    "binlog_pos = filename 'binlog.000001', position '611', GTID of the last change '0-1-2'\n"
    "innodb_from_lsn = 0\n"
    "innodb_to_lsn = 44404\n"
    "partial = N\n"
    "incremental = N\n"
    "format = mbstream\n"
    "compressed = N\n";

std::string without(std::string text, const std::string& name) {
  const std::size_t at = text.find(name);
  return text.erase(at, text.find('\n', at) + 1 - at);
}

std::string changed_to(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(ToolInfo, AllFieldsAreRead) {
  const ToolInfo info = parse_tool_info(kInfo, "xtrabackup_info");
  EXPECT_EQ(info.tool_name, "mariadb-backup");
  EXPECT_EQ(info.tool_version, "10.11.19-MariaDB");
  EXPECT_EQ(info.innodb_to_lsn, 44404U);
  EXPECT_FALSE(info.partial);
  EXPECT_EQ(info.format, "mbstream");
  EXPECT_EQ(info.lock_time_s, 2.0);
  const auto position = position_in_line(info.binlog_pos);
  ASSERT_TRUE(position);
  EXPECT_EQ(position->file, "binlog.000001");
  EXPECT_EQ(position->offset, 611U);
  EXPECT_EQ(position->gtid, "0-1-2");
}

TEST(ToolInfo, MysqlsSetsOverSeveralLinesAreReadWhole) {
  const ToolInfo info =
      parse_tool_info(changed_to(kInfo, "'0-1-2'",
                                 "'3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1'"),
                      "xtrabackup_info");
  const auto position = position_in_line(info.binlog_pos);
  ASSERT_TRUE(position);
  EXPECT_EQ(position->gtid, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1");
}

TEST(ToolInfo, AMissingFieldIsNamedNeverGuessed) {
  for (const char* name : {"tool_name", "tool_version", "server_version", "start_time", "end_time", "partial",
                           "incremental", "format", "compressed"}) {
    const Error error = error_of([&] { parse_tool_info(without(kInfo, name), "xtrabackup_info"); });
    EXPECT_EQ(error.code(), Code::data_loss);
    EXPECT_NE(std::string(error.what()).find("xtrabackup_info: " + std::string(name)), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(code_of([] { parse_tool_info(changed_to(kInfo, "partial = N", "partial = perhaps"), "f"); }), "DATA_LOSS");
  EXPECT_EQ(code_of([] { parse_tool_info(changed_to(kInfo, "= 44404", "= 44404x"), "f"); }), "DATA_LOSS");
  EXPECT_EQ(code_of([] { parse_tool_info("", "f"); }), "DATA_LOSS");
}

TEST(BinlogInfo, OfEachFamily) {
  const Position maria = parse_binlog_info("binlog.000003\t4711\t0-1-205\n", "f");
  EXPECT_EQ(maria.file, "binlog.000003");
  EXPECT_EQ(maria.offset, 4711U);
  EXPECT_EQ(maria.gtid, "0-1-205");
  EXPECT_FALSE(parse_binlog_info("mysql-bin.000001\t120\n", "f").gtid.has_value());
  EXPECT_EQ(parse_binlog_info("b.000001\t120\tA1:1-5,\nB2:1:tag_a:3\n", "f").gtid, "A1:1-5,B2:1:tag_a:3");
}

TEST(BinlogInfo, MalformedIsRefused) {
  for (const char* text :
       {"", "binlog.000001", "binlog.000001\t", "binlog.000001\tx", "binlog.000001\t3", "binlog.000001 120",
        "../x.000001\t120", "binlog\t120", "binlog.0001\t120", "\t120", "binlog.000001\t120\tdrop table;",
        "binlog.000001\t120\nmore", "binlog.00000a\t120", "binlog.000001\t99999999999999999999"}) {
    EXPECT_EQ(code_of([&] { parse_binlog_info(text, "xtrabackup_binlog_info"); }), "DATA_LOSS") << text;
  }
}

TEST(BinlogInfo, ALineOfTheToolTellsTheSame) {
  const auto position = position_in_line(
      "[00] 2026-11-22 21:09:59 MySQL binlog position: filename 'binlog.000001', position '2580', GTID of "
      "the last change '0-1-12'");
  ASSERT_TRUE(position);
  EXPECT_EQ(position->offset, 2580U);
  EXPECT_EQ(position->gtid, "0-1-12");
  EXPECT_FALSE(position_in_line("filename 'binlog.000001', position '25x'"));
  EXPECT_FALSE(position_in_line("filename '/etc/passwd', position '25'"));
  EXPECT_FALSE(position_in_line("filename 'binlog.000001'"));
  EXPECT_FALSE(position_in_line("Streaming ./d/t.ibd to <STDOUT>"));
}

TEST(Checkpoints, ReadAndRefused) {
  const char text[] =
      "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 44404\nlast_lsn = 46643\nrecover_binlog_info = "
      "0\n";
  const ToolCheckpoints checkpoints = parse_checkpoints(text, "f");
  EXPECT_EQ(checkpoints.backup_type, "full-backuped");
  EXPECT_EQ(checkpoints.last_lsn, 46643U);
  for (const char* name : {"backup_type", "from_lsn", "to_lsn", "last_lsn"}) {
    EXPECT_EQ(code_of([&] { parse_checkpoints(without(text, name), "f"); }), "DATA_LOSS") << name;
  }
  EXPECT_EQ(code_of([&] { parse_checkpoints(changed_to(text, "= 46643", "= 4"), "f"); }), "DATA_LOSS");
}

TEST(ToolWords, CompletedIsTheEndOfTheLine) {
  EXPECT_TRUE(says_completed("[00] 2026-11-22 20:59:15 completed OK!"));
  EXPECT_TRUE(says_completed("completed OK!\n"));
  EXPECT_FALSE(says_completed("prints \"completed OK!\" at the end of a successful run"));
  EXPECT_FALSE(says_completed(""));
}

TEST(ToolWords, VersionOfEachTool) {
  EXPECT_EQ(parse_tool_version("mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)"),
            "10.11.19");
  EXPECT_EQ(parse_tool_version("mariabackup based on MariaDB server 10.4.2-MariaDB Linux (x86_64)"), "10.4.2");
  EXPECT_EQ(parse_tool_version("xtrabackup version 8.0.35-31 based on MySQL server 8.0.35 Linux (x86_64)"),
            "8.0.35-31");
  EXPECT_EQ(code_of([] { parse_tool_version("bash: no such thing"); }), "INTERNAL");
}

}  // namespace
}  // namespace guestagent::mysql
